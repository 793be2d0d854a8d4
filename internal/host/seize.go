package host

import (
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
	"github.com/kvorum/kvorum/internal/storage/wal"
)

// OpenAlone is Open for a member whose others are lost for good: it becomes the only
// voter, with all that its state and its log have, and the others are removed.
// known tells the members that the state knows, after the replay; dropped are those that are removed,
// none if it was alone already. The removals are entries of the log in a term of
// their own, applied like any: a member that comes back finds that it was removed.
// The end of the log is kept, committed or not, as every new leader keeps its own:
// what is known to be committed is only a hint, and may be behind what clients were
// told. Errors: those of Open for a lone voter, ErrNoData,
// ErrNoMember (this one was removed).
func (h *Host) OpenAlone(group id.Group, machine Machine, known func() []id.Member) (g *Group, dropped []id.Member, err error) {
	s := &seizure{known: known}
	g, err = h.open(group, machine, raft.Conf{}, s)
	return g, s.dropped, err
}

// seizure is how a member makes itself the only one.
type seizure struct {
	known   func() []id.Member
	dropped []id.Member
}

// seize appends to the log, and to what a node is to start with, the changes that
// leave this member alone.
func (s *seizure) seize(h *Host, group id.Group, start *raft.Start) error {
	me := h.opts.Member
	if start.Last == 0 && start.Applied == 0 {
		return ErrNoData
	}
	if !start.Conf.Has(me) {
		return ErrNoMember
	}
	for _, m := range slices.Concat(s.known(), start.Conf.Members()) {
		if m != me && !slices.Contains(s.dropped, m) {
			s.dropped = append(s.dropped, m)
		}
	}
	slices.Sort(s.dropped)
	var changes []*command.MemberChange
	if !slices.Contains(start.Conf.Voters, me) {
		changes = append(changes, &command.MemberChange{Change: command.PromoteMember, Member: me})
	}
	for _, m := range s.dropped {
		changes = append(changes, &command.MemberChange{Change: command.RemoveMember, Member: m})
	}
	if len(changes) == 0 {
		return nil
	}
	conf := raft.Conf{Voters: []id.Member{me}}
	start.Hard.Term, start.Hard.Vote = start.Hard.Term+1, 0
	start.Terms = append(start.Terms, raft.TermRun{First: start.Last + 1, Term: start.Hard.Term})
	var entries []raft.Entry
	for _, c := range changes {
		start.Last++
		data := raft.EncodeChange(conf, command.EncodeChange(c))
		entries = append(entries, raft.Entry{Term: start.Hard.Term, Index: start.Last, Kind: raft.Change, Data: data,
			Sum: wal.Sum(group, uint8(raft.Change), start.Hard.Term, start.Last, data)})
		start.Previous, start.PreviousIndex = start.Conf, start.ConfIndex
		start.Conf, start.ConfIndex = conf, start.Last
	}
	start.Tail = append(start.Tail, entries...)
	invariant.Check(start.Conf.Alone(me), "member %v is not alone in %+v", me, start.Conf)
	h.opts.Log.Append(raftlog.Save{Group: group, Hard: start.Hard, Entries: entries})
	return nil
}
