package raft

import (
	"slices"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft/progress"
)

// Transfer hands leadership to a voter, or to the best one when to is 0. It is
// given up after an election time-out. Errors: ErrNotLeader, ErrBadTransferee.
func (n *Node) Transfer(now env.Instant, to id.Member) error {
	n.now = now
	switch {
	case n.role != Leader:
		return ErrNotLeader
	case to == n.cfg.ID || to != 0 && to == n.transferee:
		return nil
	case to == 0:
		to = n.heir()
	}
	if f := n.follower(to); f == nil || !n.mayInherit(f) {
		return ErrBadTransferee
	}
	n.transferee, n.transferSent = to, false
	n.transferUntil = now.Add(n.cfg.Election)
	n.dirty = true
	return nil
}

// heir is the follower with the longest log among those that are alive; 0 if
// there is none.
func (n *Node) heir() id.Member {
	var best *progress.Follower
	for i := range n.followers {
		f := &n.followers[i]
		if n.mayInherit(f) && f.Active(n.now, n.cfg.Election) && (best == nil || f.Match() > best.Match()) {
			best = f
		}
	}
	if best == nil {
		return 0
	}
	return best.Member
}

// endTransfer gives a transfer up; proposals are taken again.
func (n *Node) endTransfer() {
	n.transferee, n.transferSent = 0, false
	n.dirty = true // the end of a joint configuration may have waited
}

// mayInherit says whether a follower may be handed the leadership: it is a voter
// and will still be one when a joint configuration has ended.
func (n *Node) mayInherit(f *progress.Follower) bool {
	return slices.Contains(n.conf().Voters, f.Member)
}
