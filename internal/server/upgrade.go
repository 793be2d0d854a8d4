package server

import (
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Upgrade raises the version of the cluster if that is due and this member leads: a
// duty (rule 14). It returns at once, and says whether it is due, here or elsewhere;
// it is to be called again and again.
func (m *Member) Upgrade() (due bool) {
	version, due := m.opts.State.View().VersionDue()
	if !due || m.opts.Group.Leader() != m.opts.Member || !m.upgrade.begin() {
		return due
	}
	header := command.Header{Class: command.Duty, Term: m.opts.Group.Term(), Wall: m.opts.Clock.Wall().UnixNano()}
	cmd := command.Encode(make([]byte, 0, headerBytes), header, &command.ClusterVersion{Version: version})
	m.opts.Group.Propose(host.Call{To: &m.upgrade, Deadline: m.Deadline()}, cmd)
	return true
}

// duty is the Completions of a duty of which one is under way at a time. What came
// of it shows in the state.
type duty struct{ busy atomic.Bool }

func (d *duty) begin() bool { return d.busy.CompareAndSwap(false, true) }

// Push ends it.
func (d *duty) Push(host.Result) { d.busy.Store(false) }
