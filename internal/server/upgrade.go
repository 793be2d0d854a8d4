package server

import (
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Upgrade sets the version of the cluster if another is due, a higher one or that of a
// downgrade, and this member leads: a duty (rule 14). It returns at once, and says
// whether it is due, here or elsewhere; it is to be called again and again.
func (m *Member) Upgrade() (due bool) {
	version, due := m.opts.State.View().VersionDue()
	if due {
		m.versionDuty(&command.ClusterVersion{Version: version})
	}
	return due
}

// versionDuty proposes what is due if this member leads and nothing of the kind is
// under way.
func (m *Member) versionDuty(body command.Body) {
	if m.opts.Group.Leader() != m.opts.Member || !m.upgrade.begin() {
		return
	}
	header := command.Header{Class: command.Duty, Term: m.opts.Group.Term(), Wall: m.opts.Clock.Wall().UnixNano()}
	cmd := command.Encode(make([]byte, 0, headerBytes), header, body)
	m.opts.Group.Propose(host.Call{To: &m.upgrade, Deadline: m.Deadline()}, cmd)
}

// duty is the Completions of a duty of which one is under way at a time. What came
// of it shows in the state.
type duty struct{ busy atomic.Bool }

func (d *duty) begin() bool { return d.busy.CompareAndSwap(false, true) }

// Push ends it.
func (d *duty) Push(host.Result) { d.busy.Store(false) }
