package member

import (
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Each of these returns the table as it is afterwards, and puts the rows that
// differ into the batch.

// Genesis names the first members, once: a table that knows anybody stays as it is.
func (t Table) Genesis(group id.Group, batch engine.Batch, g *command.MemberGenesis) Table {
	if len(t.facts) > 0 || len(t.removed) > 0 {
		return t
	}
	for _, m := range g.Members {
		t = t.set(group, batch, Facts{ID: m.Member, PeerURLs: m.PeerURLs})
	}
	return t
}

// Publish takes a member's word about its name, client URLs and version; about its
// peer URLs only where none are known. A removed member has no word. Errors:
// command.ErrMemberNotFound, command.ErrLowerVersion.
func (t Table) Publish(group id.Group, batch engine.Batch, p *command.MemberPublish) (Table, error) {
	if t.Removed(p.Member) {
		return t, command.ErrMemberNotFound
	}
	if p.Version != (command.Version{}) && p.Version.Before(t.version) {
		return t, command.ErrLowerVersion
	}
	facts, known := t.Get(p.Member)
	if !known {
		facts = Facts{ID: p.Member, PeerURLs: p.PeerURLs}
	}
	facts.Name, facts.ClientURLs, facts.Version = p.Name, p.ClientURLs, p.Version
	return t.set(group, batch, facts), nil
}

// Update gives a member other peer URLs. Errors: command.ErrMemberNotFound,
// command.ErrPeerURLExists.
func (t Table) Update(group id.Group, batch engine.Batch, u *command.MemberUpdate) (Table, error) {
	facts, known := t.Get(u.Member)
	if !known {
		return t, command.ErrMemberNotFound
	}
	if t.taken(u.PeerURLs, u.Member) {
		return t, command.ErrPeerURLExists
	}
	facts.PeerURLs = u.PeerURLs
	return t.set(group, batch, facts), nil
}

// Change applies the facts of a change of the configuration. It refuses nothing:
// raft obeys the change already, and its leader has asked Judge before (rule 10).
func (t Table) Change(group id.Group, batch engine.Batch, c *command.MemberChange) Table {
	facts, known := t.Get(c.Member)
	switch c.Change {
	case command.AddMember, command.AddLearner:
		if !known {
			facts = Facts{ID: c.Member}
		}
		facts.PeerURLs, facts.Learner = c.PeerURLs, c.Change == command.AddLearner
		return t.set(group, batch, facts)
	case command.PromoteMember:
		if known {
			facts.Learner = false
			return t.set(group, batch, facts)
		}
	case command.RemoveMember:
		return t.remove(group, batch, c.Member)
	}
	return t
}

func (t Table) remove(group id.Group, batch engine.Batch, member id.Member) Table {
	batch.Delete(keys.AppendMeta(nil, group, rowName(member)))
	batch.Set(keys.AppendMeta(nil, group, removedName(member)), encodeRemoved(nil, member))
	if at, known := t.find(member); known {
		t.facts = slices.Delete(slices.Clone(t.facts), at, at+1)
	}
	if at, known := slices.BinarySearch(t.removed, member); !known {
		t.removed = slices.Insert(slices.Clone(t.removed), at, member)
	}
	return t
}

// Judge says whether a change is one that the table allows (spec 5). At most so
// many learners may be there. Errors: command.ErrMemberNotFound, ErrMemberExists,
// ErrPeerURLExists, ErrTooManyLearners, ErrNotLearner.
func (t Table) Judge(c *command.MemberChange, maxLearners int) error {
	facts, known := t.Get(c.Member)
	switch c.Change {
	case command.AddMember, command.AddLearner:
		switch {
		case t.Removed(c.Member):
			return command.ErrMemberNotFound
		case known:
			return command.ErrMemberExists
		case t.taken(c.PeerURLs, 0):
			return command.ErrPeerURLExists
		case c.Change == command.AddLearner && t.learners() >= maxLearners:
			return command.ErrTooManyLearners
		}
		return nil
	case command.PromoteMember:
		if known && !facts.Learner {
			return command.ErrNotLearner
		}
	}
	if !known {
		return command.ErrMemberNotFound
	}
	return nil
}

// taken says whether one of the URLs is another member's.
func (t Table) taken(urls []string, but id.Member) bool {
	return slices.ContainsFunc(t.facts, func(f Facts) bool {
		return f.ID != but && slices.ContainsFunc(f.PeerURLs, func(u string) bool { return slices.Contains(urls, u) })
	})
}

func (t Table) learners() (count int) {
	for i := range t.facts {
		if t.facts[i].Learner {
			count++
		}
	}
	return count
}
