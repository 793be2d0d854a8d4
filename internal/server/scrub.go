package server

import (
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// Members that hold different data under the same revision are looked for by comparing
// sums of all versions (HashKV), and told by the alarm CORRUPT (spec/server-ops.md 5). How
// a member comes by sums is the assembler's: both ways may wait.

// Sum is what one member holds up to a revision.
type Sum struct {
	Member id.Member
	mvcc.KVHash
}

// SameAs says whether two sums are of the same versions. Only those can be compared whose
// members have seen the same compactions: otherwise equal data has different sums.
func (s Sum) SameAs(other Sum) (same, comparable bool) {
	return s.Sum == other.Sum, s.At == other.At && s.Compacted == other.Compacted
}

// Sums is how a member comes by them.
type Sums struct {
	// Here sums this member's own versions up to a revision, There another's. Errors of
	// There go to Silent: it is not compared with.
	Here   func(id.Revision) (Sum, error)
	There  func(id.Member, id.Revision) (Sum, error)
	Silent func(id.Member, error)
}

// Compare compares all members that give a sum at a revision, this one among them. It
// returns those that hold other data than the majority of the members, by their IDs, and
// whose alarm is not in force; 0 among them is nobody knows who. Errors: those of Here.
func (m *Member) Compare(rev id.Revision, by Sums) (accused []id.Member, compared int, err error) {
	own, err := by.Here(rev)
	if err != nil {
		return nil, 0, err
	}
	members, all := m.Members(), []Sum{own}
	for _, other := range members {
		if other.ID == m.opts.Member {
			continue
		}
		sum, err := by.There(other.ID, rev)
		if err != nil {
			by.Silent(other.ID, err)
			continue
		}
		if _, comparable := own.SameAs(sum); comparable {
			all = append(all, sum)
		}
	}
	view := m.opts.State.View()
	accused = slices.DeleteFunc(accuse(all, len(members)), func(who id.Member) bool {
		return view.HasAlarm(command.Alarm{Member: who, Type: command.AlarmCorrupt}) // it has been said
	})
	return accused, len(all), nil
}

// accuse finds the members that hold other data than the majority of a cluster of a size;
// member 0 stands for nobody knows who, when no sum has a majority.
func accuse(all []Sum, size int) (who []id.Member) {
	votes := map[uint32]int{}
	for _, one := range all {
		votes[one.Sum]++
	}
	if len(votes) < 2 {
		return nil
	}
	for _, one := range all {
		if 2*votes[one.Sum] <= size {
			continue
		}
		for _, other := range all {
			if other.Sum != one.Sum {
				who = append(who, other.Member)
			}
		}
		slices.Sort(who)
		return who
	}
	return []id.Member{0}
}
