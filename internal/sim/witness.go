package sim

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// witness counts for itself what members promise each other: that who leads was
// voted for by a quorum, and that who says that an index is committed has a quorum
// that acknowledged it. It hears every message when it is sent, before it can be
// lost, and goes by the configurations of the log, not by what a leader counts.
type witness struct {
	w *world
	// votes are those given in a term to a candidate.
	votes map[ballot]map[id.Member]bool
	// acks are the highest indexes that members acknowledged in a term.
	acks map[id.Term]map[id.Member]id.Index
	// told is the highest index that anyone was told to be committed.
	told id.Index
}

type ballot struct {
	term      id.Term
	candidate id.Member
}

func newWitness(w *world) *witness {
	return &witness{w: w, votes: map[ballot]map[id.Member]bool{}, acks: map[id.Term]map[id.Member]id.Index{}}
}

// said hears a message of a member.
func (t *witness) said(r *replica, m raft.Message) {
	switch b := m.Body.(type) {
	case *raft.VoteReply:
		if at := (ballot{m.Term, m.To}); b.Granted && !b.Pre {
			if t.votes[at] == nil {
				t.votes[at] = map[id.Member]bool{}
			}
			t.votes[at][r.member] = true
		}
	case *raft.AppendReply:
		if !b.Reject {
			if t.acks[m.Term] == nil {
				t.acks[m.Term] = map[id.Member]id.Index{}
			}
			t.acks[m.Term][r.member] = max(t.acks[m.Term][r.member], b.Match)
		}
	case *raft.Append:
		if b.Commit > max(t.told, t.w.ledger.last()) {
			t.commits(r, m.Term, b.Commit)
			t.told = b.Commit
		}
	}
}

// elected judges a member that says it leads.
func (t *witness) elected(r *replica, term id.Term) {
	conf := t.w.confOf(r)
	r.reign = []raft.PlacedConf{conf}
	if term == 0 || decides(conf.Conf, func(m id.Member) bool { return m == r.member || t.votes[ballot{term, r.member}][m] }) {
		return
	}
	t.w.fail("%v leads in term %d without a quorum of %+v at %d: votes of %v", r, term, conf.Conf, conf.Index, t.votes[ballot{term, r.member}])
}

// commits judges a leader's first word that an index is committed: a quorum of the
// configuration there, or of one that the leader has appended since, has it.
func (t *witness) commits(r *replica, term id.Term, index id.Index) {
	status := r.group.Status()
	if status.Role != raft.Leader || status.Hard.Term != term || len(r.reign) == 0 {
		return
	}
	// Messages leave before the events of their turn are told.
	if r.reign[len(r.reign)-1].Index < status.ConfIndex {
		r.reign = append(r.reign, t.w.confOf(r))
	}
	has := func(m id.Member) bool {
		return m == r.member && status.Durable >= index || t.acks[term][m] >= index
	}
	for i := len(r.reign) - 1; i >= 0; i-- {
		if decides(r.reign[i].Conf, has) {
			return
		}
		if r.reign[i].Index <= index {
			break
		}
	}
	t.w.fail("%v says in term %d that %d is committed, without a quorum of %+v: its own log is durable to %d, acknowledged %v",
		r, term, index, r.reign, status.Durable, t.acks[term])
}

// confOf is the configuration in effect on a member: as decided, if it is decided.
func (w *world) confOf(r *replica) raft.PlacedConf {
	s := r.group.Status()
	conf := raft.PlacedConf{Conf: s.Conf, Index: s.ConfIndex}
	if last := w.ledger.at(w.ledger.last()); last != nil && last.term > s.Hard.Term {
		return conf // a later leader has decided something else, and this one has not heard of it
	}
	if known := w.ledger.confAt(conf.Index); known.Index == conf.Index && conf.Index <= w.ledger.last() && len(conf.Conf.Voters) > 0 {
		if !sameConf(known, conf) {
			w.fail("%v goes by configuration %+v at %d, where %+v was decided", r, conf.Conf, conf.Index, known.Conf)
		}
		return known
	}
	return conf
}

// decides says whether those that have something are a majority of each half.
func decides(conf raft.Conf, has func(id.Member) bool) bool {
	for _, half := range [][]id.Member{conf.Voters, conf.Outgoing} {
		count := 0
		for _, m := range half {
			if has(m) {
				count++
			}
		}
		if len(half) > 0 && count <= len(half)/2 {
			return false
		}
	}
	return len(conf.Voters) > 0
}
