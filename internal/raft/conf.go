package raft

import (
	"cmp"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft/progress"
)

// effective is the configuration in effect: the latest in the log (rule 10).
func (n *Node) effective() *PlacedConf {
	at := len(n.confs) - 1
	if defect.On(defect.ChangeAtApply) {
		for at > 0 && n.confs[at].Index > n.applied {
			at--
		}
	}
	return &n.confs[at]
}

func (n *Node) conf() Conf { return n.effective().Conf }

func (n *Node) startConfs(s *Start) {
	invariant.Check(s.Conf.valid() && s.Previous.valid() && s.PreviousIndex <= s.ConfIndex && s.ConfIndex <= s.Last,
		"configurations %v at %d and %v at %d in a log up to %d", s.Previous, s.PreviousIndex, s.Conf, s.ConfIndex, s.Last)
	if s.PreviousIndex < s.ConfIndex {
		n.confs = append(n.confs, PlacedConf{s.Previous, s.PreviousIndex})
	}
	n.confs = append(n.confs, PlacedConf{s.Conf, s.ConfIndex})
	n.settleConfs()
	n.lookRemoved()
}

// placeConf puts a change that was just appended into effect.
func (n *Node) placeConf(e *Entry) {
	conf, _, err := DecodeChange(e.Data)
	invariant.Check(err == nil, "configuration at %d: %v", e.Index, err)
	if defect.On(defect.RemovedVotes) {
		// Nobody is forgotten who was a voter, until a restart reads the log.
		conf.Voters = union(conf.Voters, n.conf().Voters)
	}
	n.confs = append(n.confs, PlacedConf{conf, e.Index})
	n.confTookEffect()
}

// undoConfs takes back the changes that a truncation removed.
func (n *Node) undoConfs(from id.Index) {
	keep := len(n.confs)
	if defect.On(defect.ConfKeptOnTruncation) {
		return
	}
	for keep > 0 && n.confs[keep-1].Index >= from {
		keep--
	}
	invariant.Check(keep > 0, "truncation at %d removes a committed configuration", from)
	if keep < len(n.confs) {
		n.confs = n.confs[:keep]
		n.confTookEffect()
	}
}

// settleConfs forgets configurations that can no longer come back.
func (n *Node) settleConfs() {
	limit := n.hard.Commit
	if defect.On(defect.ChangeAtApply) {
		limit = n.applied
	}
	n.member = n.member || n.confs[0].Conf.Has(n.cfg.ID)
	for len(n.confs) > 1 && n.confs[1].Index <= limit {
		n.confs = append(n.confs[:0], n.confs[1:]...)
		n.member = n.member || n.confs[0].Conf.Has(n.cfg.ID)
	}
}

// appliedConfs looks at what the applied index means for configurations.
func (n *Node) appliedConfs() {
	if defect.On(defect.ChangeAtApply) && len(n.confs) > 1 {
		n.settleConfs()
		n.confTookEffect()
	}
	n.lookRemoved()
	if n.role == Leader && n.conf().Joint() {
		n.dirty = true // it may be ended now
	}
}

// lookRemoved tells once that this replica is a member no more. One that is still
// to join has applied configurations without itself too, but none with it before.
func (n *Node) lookRemoved() {
	committed := n.confs[0]
	if n.member && committed.Index <= n.applied && !committed.Conf.Has(n.cfg.ID) {
		n.member = false
		n.tell(Event{Kind: Removed, Term: n.hard.Term, Member: n.cfg.ID, Index: committed.Index})
	}
}

func (n *Node) confTookEffect() {
	latest := n.effective()
	n.tell(Event{Kind: ConfChanged, Term: n.hard.Term, Index: latest.Index})
	if n.role != Leader {
		return
	}
	for _, m := range latest.Conf.Members() {
		if f := n.follower(m); f != nil {
			f.Leaving = 0
		} else if m != n.cfg.ID {
			n.addFollower(m)
		}
	}
	for i := range n.followers {
		if f := &n.followers[i]; f.Leaving == 0 && !latest.Conf.Has(f.Member) {
			f.Leaving = latest.Index
		}
	}
	if n.transferee != 0 && !slices.Contains(latest.Conf.Voters, n.transferee) {
		n.endTransfer()
	}
}

func (n *Node) addFollower(m id.Member) *progress.Follower {
	n.followers = append(n.followers, n.newFollower(m))
	slices.SortFunc(n.followers, func(a, b progress.Follower) int { return cmp.Compare(a.Member, b.Member) })
	return n.follower(m)
}

// meetStranger is called with whoever asks for votes. Who is not in the
// configuration has not heard of its removal; a leader tells it, as it tells those
// that it removed itself.
func (n *Node) meetStranger(m id.Member) {
	if n.role != Leader || n.follower(m) != nil || n.conf().Has(m) {
		return
	}
	n.addFollower(m).Leaving = n.effective().Index
	n.dirty = true
}

// ProposeConf appends a configuration change (rule 10); context travels with it to
// whoever applies it. conf is the target and not joint; after is the index of the
// configuration in effect that the caller checked the change against.
//
// Learners may change freely. If more than one voter changes, a joint
// configuration is appended, and the target by itself once that is committed and
// applied here, or by a later leader; context goes with the first of the two, whose
// index is returned. A voter becomes a learner only in a change of its own.
//
// Errors: ErrNotLeader, ErrTransferring, ErrChangePending, ErrBadChange (no voter
// is left, nothing changes, or the lists of conf are not in order).
func (n *Node) ProposeConf(now env.Instant, after id.Index, conf Conf, context []byte) (id.Index, error) {
	n.now = now
	latest := n.confs[len(n.confs)-1]
	switch {
	case n.role != Leader:
		return 0, ErrNotLeader
	case n.transferee != 0:
		return 0, ErrTransferring
	case latest.Index != after || latest.Index > n.hard.Commit || n.termFirst > n.hard.Commit || latest.Conf.Joint():
		return 0, ErrChangePending
	case !conf.valid() || conf.Joint() || len(conf.Voters) == 0 || conf.equal(latest.Conf) && len(context) == 0:
		return 0, ErrBadChange
	}
	next := conf
	if difference(latest.Conf.Voters, conf.Voters) > 1 {
		if next.Outgoing = latest.Conf.Voters; !next.valid() {
			return 0, ErrBadChange
		}
	}
	index := n.appendOwn(Change, EncodeChange(next, context))
	n.advanceCommit()
	return index, nil
}

// endJoint appends the second half of a joint configuration as the one to stay.
func (n *Node) endJoint() {
	latest := n.confs[len(n.confs)-1]
	if !latest.Conf.Joint() || latest.Index > min(n.hard.Commit, n.applied) || n.termFirst > n.hard.Commit || n.transferee != 0 {
		return
	}
	n.appendOwn(Change, EncodeChange(Conf{Voters: latest.Conf.Voters, Learners: latest.Conf.Learners}, nil))
	n.advanceCommit()
}
