package server

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// Members that hold different data under the same revision are looked for by comparing
// sums of all versions (HashKV), and told by the alarm CORRUPT (spec/server-ops.md 5). How
// a member waits for others, and when it looks, is the assembler's.

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

// errSum says that a question for a sum, or the answer to one, cannot be read.
var errSum = errors.New("malformed question for a sum, or answer to one")

// SumQuestion is what AskSum asks: the sum up to a revision.
func SumQuestion(rev id.Revision) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(rev)) }

// sumBytes is the size of an answer: sum, revision, compact revision.
const sumBytes = 4 + 8 + 8

// ParseSum reads another member's answer to AskSum.
func ParseSum(from id.Member, answer []byte) (Sum, error) {
	if len(answer) != sumBytes {
		return Sum{}, errSum
	}
	return Sum{Member: from, KVHash: mvcc.KVHash{Sum: binary.LittleEndian.Uint32(answer), At: id.Revision(binary.LittleEndian.Uint64(answer[4:])),
		Compacted: id.Revision(binary.LittleEndian.Uint64(answer[12:]))}}, nil
}

// AnswerSum answers AskSum. As long as this member has not applied as much as it is asked
// about it calls rest, whose error ends the wait; goOn is that of HashKV. Errors: theirs,
// those of HashKV.
func (m *Member) AnswerSum(question []byte, rest, goOn func() error) ([]byte, error) {
	if len(question) != 8 {
		return nil, errSum
	}
	rev := id.Revision(binary.LittleEndian.Uint64(question))
	for m.Revision() < rev {
		if err := rest(); err != nil {
			return nil, err
		}
	}
	own, err := m.SumHere(rev, goOn)
	if err != nil {
		return nil, err
	}
	answer := binary.LittleEndian.AppendUint32(nil, own.Sum)
	answer = binary.LittleEndian.AppendUint64(answer, uint64(rev))
	return binary.LittleEndian.AppendUint64(answer, uint64(own.Compacted)), nil
}

// SumHere sums this member's own versions up to a revision that it has applied. Errors:
// those of HashKV.
func (m *Member) SumHere(rev id.Revision, goOn func() error) (Sum, error) {
	hash, err := m.HashKV(rev, goOn)
	return Sum{Member: m.opts.Member, KVHash: hash}, err
}

// ScrubAll is the revision up to which this member is to compare all data now, 0 if it is
// not its turn: it does not lead, or is alone.
func (m *Member) ScrubAll() id.Revision {
	if m.opts.Group.Leader() != m.opts.Member || len(m.Members()) < 2 {
		return 0
	}
	return m.Revision()
}

// ScrubCompacted is ScrubAll for what the latest compaction has left, 0 too if that is not
// after the one at which all were compared last.
func (m *Member) ScrubCompacted(last id.Revision) id.Revision {
	if compacted, _ := m.Removal(); compacted > last && m.ScrubAll() > 0 {
		return compacted
	}
	return 0
}

// Comparing is how a comparison goes about it: one thing after the other, waiting in
// between.
type Comparing struct {
	// GoOn is asked while the store is read, as in HashKV.
	GoOn func() error
	// Ask puts the question AskSum to another member and waits for the answer. Its errors
	// go to Silent: that member is not compared with.
	Ask    func(m id.Member, question []byte) (answer []byte, err error)
	Silent func(id.Member, error)
	// Found is told whom the comparison accuses, before anybody else is.
	Found func(accused []id.Member)
	// Await makes a call and waits until it ends.
	Await func(start func(host.Call)) error
}

// Scrub compares all members that give a sum at a revision, this one among them, and has
// the alarm CORRUPT raised of those that hold other data than the majority of the members;
// of 0, if nobody knows who they are. Those whose alarm is in force are not accused again.
// all says that every member was compared. Errors: those of HashKV; what Await returns.
func (m *Member) Scrub(rev id.Revision, by Comparing) (all bool, err error) {
	own, err := m.SumHere(rev, by.GoOn)
	if err != nil {
		return false, err
	}
	members, sums := m.Members(), []Sum{own}
	for _, other := range members {
		if other.ID == m.opts.Member {
			continue
		}
		sum, err := sumThere(other.ID, rev, by)
		if err != nil {
			by.Silent(other.ID, err)
			continue
		}
		if _, comparable := own.SameAs(sum); comparable {
			sums = append(sums, sum)
		}
	}
	all = len(sums) == len(members)
	view := m.opts.State.View()
	accused := slices.DeleteFunc(accuse(sums, len(members)), func(who id.Member) bool {
		return view.HasAlarm(command.Alarm{Member: who, Type: command.AlarmCorrupt}) // it has been said
	})
	by.Found(accused)
	for _, who := range accused {
		if err := by.Await(func(call host.Call) { m.ReportCorrupt(call, who) }); err != nil {
			return false, err
		}
	}
	return all, nil
}

func sumThere(m id.Member, rev id.Revision, by Comparing) (Sum, error) {
	answer, err := by.Ask(m, SumQuestion(rev))
	if err != nil {
		return Sum{}, err
	}
	return ParseSum(m, answer)
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
