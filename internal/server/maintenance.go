package server

import (
	"github.com/kvorum/kvorum/internal/id"
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
	}
}
