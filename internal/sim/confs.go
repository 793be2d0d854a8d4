package sim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/member"
)

// confLedger is what the ledger knows of configurations and of the table of
// members: each decided change, and the table as it must be after the last entry.
type confLedger struct {
	// confs are the configurations by index, the founders' first.
	confs []raft.PlacedConf
	// changes are the contexts of the changes by index.
	changes map[id.Index]string
	table   map[id.Member]member.Facts
	struck  map[id.Member]bool // removed from the table
}

func newConfLedger() confLedger {
	return confLedger{changes: map[id.Index]string{}, table: map[id.Member]member.Facts{}, struck: map[id.Member]bool{}}
}

// found writes down the founders.
func (l *confLedger) found(voters []id.Member) {
	l.confs = []raft.PlacedConf{{Conf: raft.Conf{Voters: voters}}}
}

// conf is the latest decided configuration.
func (l *confLedger) conf() raft.PlacedConf { return l.confs[len(l.confs)-1] }

// confAt is the configuration at an index.
func (l *confLedger) confAt(index id.Index) raft.PlacedConf {
	at := l.confs[0]
	for _, c := range l.confs {
		if c.Index <= index {
			at = c
		}
	}
	return at
}

// was says whether a member has ever been in a decided configuration.
func (l *confLedger) was(m id.Member) bool {
	return slices.ContainsFunc(l.confs, func(c raft.PlacedConf) bool { return c.Conf.Has(m) })
}

// removed says whether a member was in a decided configuration and is no more.
func (l *confLedger) removed(m id.Member) bool { return l.was(m) && !l.conf().Conf.Has(m) }

// listed says whether a member that is to join finds itself in the list.
func (l *confLedger) listed(m id.Member) bool {
	_, listed := l.table[m]
	return listed
}

// decide takes note of a decided change. Any quorum of a configuration must meet
// any quorum of the next.
func (l *confLedger) decide(e raft.Entry) error {
	conf, context, err := raft.DecodeChange(e.Data)
	if err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	before := l.conf().Conf
	if !meet(before, conf) {
		return fmt.Errorf("configuration %+v at %d follows %+v: quorums of the two need not meet", conf, e.Index, before)
	}
	l.confs = append(l.confs, raft.PlacedConf{Conf: conf, Index: e.Index})
	l.changes[e.Index] = string(context)
	if len(context) == 0 {
		return nil
	}
	c, err := command.DecodeChange(context)
	if err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	l.obey(c)
	return nil
}

func (l *confLedger) obey(c *command.MemberChange) {
	switch f, known := l.table[c.Member]; {
	case c.Change == command.RemoveMember:
		delete(l.table, c.Member)
		l.struck[c.Member] = true
	case c.Change == command.PromoteMember && known:
		f.Learner = false
		l.table[c.Member] = f
	case isAddition(c):
		f.ID, f.PeerURLs, f.Learner = c.Member, c.PeerURLs, c.Change == command.AddLearner
		l.table[c.Member] = f
	}
}

// fact obeys a command about members and compares what came of it.
func (l *confLedger) fact(body command.Body, got error) error {
	var want error
	switch b := body.(type) {
	case *command.MemberGenesis:
		if len(l.table) == 0 && len(l.struck) == 0 {
			for _, m := range b.Members {
				l.table[m.Member] = member.Facts{ID: m.Member, PeerURLs: m.PeerURLs}
			}
		}
	case *command.MemberPublish:
		if want = l.refuse(l.struck[b.Member], command.ErrMemberNotFound); want == nil {
			f, known := l.table[b.Member]
			if !known {
				f = member.Facts{ID: b.Member, PeerURLs: b.PeerURLs}
			}
			f.Name, f.ClientURLs = b.Name, b.ClientURLs
			l.table[b.Member] = f
		}
	case *command.MemberUpdate:
		f, known := l.table[b.Member]
		if want = l.refuse(!known, command.ErrMemberNotFound); want == nil {
			want = l.refuse(l.taken(b), command.ErrPeerURLExists)
		}
		if want == nil {
			f.PeerURLs = b.PeerURLs
			l.table[b.Member] = f
		}
	}
	if !errors.Is(got, want) {
		return fmt.Errorf("%+v came to %v, want %v", body, got, want)
	}
	return nil
}

func (l *confLedger) refuse(refused bool, err error) error {
	if refused {
		return err
	}
	return nil
}

func (l *confLedger) taken(u *command.MemberUpdate) bool {
	for _, m := range slices.Sorted(maps.Keys(l.table)) {
		if m != u.Member && slices.ContainsFunc(l.table[m].PeerURLs, func(url string) bool { return slices.Contains(u.PeerURLs, url) }) {
			return true
		}
	}
	return false
}

// members compares the table of a replica that has applied everything.
func (l *confLedger) members(got []member.Facts) error {
	want := slices.SortedFunc(maps.Values(l.table), func(a, b member.Facts) int { return cmp.Compare(a.ID, b.ID) })
	if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); a != b {
		return fmt.Errorf("the table of members is not what was decided:\n\tit has %s\n\tdecided %s", a, b)
	}
	return nil
}

// meet says whether every quorum of one configuration meets every quorum of the
// next: one voter differs, or one of the two is joint and has the other's voters
// as the half that they share.
func meet(before, after raft.Conf) bool {
	switch {
	case before.Joint():
		return !after.Joint() && slices.Equal(before.Voters, after.Voters)
	case after.Joint():
		return slices.Equal(before.Voters, after.Outgoing)
	}
	differ := 0
	for _, m := range slices.Concat(before.Voters, after.Voters) {
		if slices.Contains(before.Voters, m) != slices.Contains(after.Voters, m) {
			differ++
		}
	}
	return differ <= 1
}

func sameConf(a, b raft.PlacedConf) bool {
	return a.Index == b.Index && slices.Equal(a.Conf.Voters, b.Conf.Voters) &&
		slices.Equal(a.Conf.Learners, b.Conf.Learners) && slices.Equal(a.Conf.Outgoing, b.Conf.Outgoing)
}
