package raft

import (
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft/progress"
)

// A linearizable read takes the commit index of the moment at which it reaches
// the leader, and is confirmed when a quorum has acknowledged a round that
// left after that moment: nobody can have been elected, and have committed
// more, before it (rule 11). All reads between two Outputs share one round.

// pendingRead waits at the leader for its round.
type pendingRead struct {
	id    ReadID
	from  id.Member
	index id.Index
	round uint64
}

// Read asks for a linearizable read of this member; the answer is in the Reads
// of a later Output. A ReadID is used once: an answer to an earlier use would
// pass for one to a later. Errors: ErrNoLeader.
func (n *Node) Read(now env.Instant, read ReadID) error {
	n.now = now
	switch {
	case n.role == Leader:
		n.queueRead(read, n.cfg.ID)
	case n.leader == 0:
		return ErrNoLeader
	case defect.On(defect.FollowerReadsAlone):
		n.results, n.dirty = append(n.results, ReadResult{ID: read, Index: n.hard.Commit}), true
	default:
		if len(n.forwarded) == 0 {
			n.forwardRetry = now.Add(n.retryAfter())
		}
		n.forwarded = append(n.forwarded, read)
		n.post(n.leader, &ReadRequest{ID: read})
	}
	return nil
}

// queueRead begins a read at the leader. Before an entry of this term is
// committed the commit index may lag behind what another leader committed; but
// all of that is before the term's first entry.
func (n *Node) queueRead(read ReadID, from id.Member) {
	n.roundWant = n.round + 1
	index := max(n.hard.Commit, n.termFirst)
	switch {
	case defect.On(defect.ReadBeforeTerm):
		index = n.hard.Commit
	case defect.On(defect.ReadByEarlierRound):
		n.roundWant = n.round
	}
	n.reads = append(n.reads, pendingRead{read, from, index, n.roundWant})
	n.dirty = true
	n.confirmReads()
}

// confirmedRound is the latest round that a quorum acknowledged.
func (n *Node) confirmedRound() uint64 {
	own := max(n.round, n.roundWant)
	round := reached(n, &n.rounds, own, func(f *progress.Follower) uint64 { return f.RoundHeard })
	if defect.On(defect.ReadByOneAck) {
		return slices.Max(n.rounds)
	}
	return round
}

// confirmReads answers the reads whose round is confirmed.
func (n *Node) confirmReads() {
	if len(n.reads) == 0 || n.hard.Commit < n.termFirst && !defect.On(defect.ReadBeforeTerm) {
		return
	}
	round, done := n.confirmedRound(), 0
	for ; done < len(n.reads) && n.reads[done].round <= round; done++ {
		n.answer(&n.reads[done], false)
	}
	n.reads = append(n.reads[:0], n.reads[done:]...)
}

func (n *Node) answer(r *pendingRead, refused bool) {
	n.dirty = true
	switch {
	case r.from != n.cfg.ID:
		n.post(r.from, &ReadReply{ID: r.id, Index: r.index, Refused: refused})
	case refused:
		n.results = append(n.results, ReadResult{ID: r.id, Err: ErrLeaderChanged})
	default:
		n.results = append(n.results, ReadResult{ID: r.id, Index: r.index})
	}
}

// endReads refuses what this leader can no longer confirm.
func (n *Node) endReads() {
	for i := range n.reads {
		n.answer(&n.reads[i], true)
	}
	n.reads = n.reads[:0]
}

func (n *Node) stepRoundReply(from id.Member, b *RoundReply) {
	f := n.hear(from)
	if f == nil || b.Round <= f.RoundHeard || b.Round > n.round {
		return
	}
	f.RoundHeard = b.Round
	n.confirmReads()
}

func (n *Node) stepReadRequest(from id.Member, b *ReadRequest) {
	if n.role != Leader {
		n.post(from, &ReadReply{ID: b.ID, Refused: true})
		return
	}
	n.queueRead(b.ID, from)
}

// stepReadReply takes the answer to a read that was sent to the leader. What was
// waiting here when that one was asked is answered with it: its round left after
// them too.
func (n *Node) stepReadReply(b *ReadReply) {
	for i := range n.forwarded {
		if defect.On(defect.ReadOfAnotherBoot) {
			b.ID.Boot = n.forwarded[i].Boot
		}
		if n.forwarded[i] != b.ID {
			continue
		}
		for _, read := range n.forwarded[:i+1] {
			result := ReadResult{ID: read, Index: b.Index}
			if b.Refused {
				result = ReadResult{ID: read, Err: ErrLeaderChanged}
			}
			n.results = append(n.results, result)
		}
		n.forwarded = append(n.forwarded[:0], n.forwarded[i+1:]...)
		n.dirty = true
		return
	}
}

// endForwarded ends the reads that wait for a leader who is not one any more.
func (n *Node) endForwarded() {
	for _, read := range n.forwarded {
		n.results = append(n.results, ReadResult{ID: read, Err: ErrLeaderChanged})
		n.dirty = true
	}
	n.forwarded = n.forwarded[:0]
}

// retryAfter is how long a follower waits before it asks again: long enough for
// a round that is on its way, short enough to be worth it before the leader is
// given up.
func (n *Node) retryAfter() time.Duration { return n.cfg.Election / 2 }

// forwardAgain repeats the latest request that was not answered: its answer is one
// to all before it. (Repeating each of them buries a leader that is slow to answer.)
func (n *Node) forwardAgain() {
	n.forwardRetry = n.now.Add(n.retryAfter())
	n.post(n.leader, &ReadRequest{ID: n.forwarded[len(n.forwarded)-1]})
}
