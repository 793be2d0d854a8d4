package server

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// Status is a look at this member.
type Status struct {
	Revision id.Revision
	Leader   id.Member
	Term     id.Term
	// Commit is raftIndex of the API, Applied raftAppliedIndex.
	Commit, Applied id.Index
	// Bytes is the replicated count of rule 17: what dbSize and dbSizeInUse say.
	Bytes, Quota int64
	// Alarms are those in force, by member and type.
	Alarms []command.Alarm
}

// Status looks at the member; it needs neither a leader nor the log.
func (m *Member) Status() Status {
	group, view := m.opts.Group.Status(), m.opts.State.View()
	return Status{
		Revision: view.State().Revision,
		Leader:   group.Leader,
		Term:     group.Hard.Term,
		Commit:   group.Hard.Commit,
		Applied:  view.At.Index,
		Bytes:    view.State().Bytes(),
		Quota:    m.opts.Quota,
		Alarms:   view.Alarms(),
	}
}

// Revision is that of the keys as this member has applied them.
func (m *Member) Revision() id.Revision { return m.opts.State.View().State().Revision }

// HashKV sums every version up to a revision on this member; 0 is the newest. It
// reads all keys, asking goOn now and then. Errors: command.ErrFutureRevision,
// command.ErrCompacted, engine.ErrIterators, *mvcc.DamageError, what goOn returns.
func (m *Member) HashKV(rev id.Revision, goOn func() error) (mvcc.KVHash, error) {
	begun := m.opts.Clock.Now()
	h, err := m.opts.State.View().HashKV(rev, goOn)
	if err == nil {
		m.hashed(rev, m.opts.Clock.Now().Sub(begun))
	}
	return h, err
}

// Removal tells the compact revision, and the latest one up to which this member
// has removed everything that it frees.
func (m *Member) Removal() (compacted, removed id.Revision) {
	state := m.opts.State.View().State()
	return state.Compacted, state.Freed
}

// HurryRemoval has this member remove what is compacted as fast as it can, until enough
// is called.
func (m *Member) HurryRemoval() (enough func()) { return m.opts.State.HurryRemoval() }

// MoveLeader begins to hand leadership to another voter; to itself it is done
// already. Errors: raft.ErrNotLeader, raft.ErrBadTransferee, raft.ErrTransferring.
func (m *Member) MoveLeader(to id.Member) error {
	group := m.opts.Group
	switch {
	case group.Leader() != m.opts.Member:
		return raft.ErrNotLeader
	case to == m.opts.Member:
		return nil
	case to == 0: // to raft it means whoever fits best
		return raft.ErrBadTransferee
	}
	return group.Transfer(to)
}
