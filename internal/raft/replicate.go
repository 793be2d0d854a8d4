package raft

import (
	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft/progress"
)

// lead begins the leadership of the current term with an Empty entry: nothing of
// earlier terms counts as committed before something of this one does.
func (n *Node) lead() {
	end := n.log.end()
	n.setLeader(n.cfg.ID)
	n.become(Leader)
	n.termFirst = end.Index + 1
	n.round, n.roundWant = 0, 0
	n.transferee = 0
	n.followers = n.followers[:0]
	for _, m := range n.conf().Members() {
		if m != n.cfg.ID {
			n.followers = append(n.followers, n.newFollower(m))
		}
	}
	n.appendOwn(Empty, nil)
}

// newFollower guesses that a member has everything before the end of the log.
func (n *Node) newFollower(m id.Member) progress.Follower {
	return progress.New(m, n.log.last+1, n.cfg.MaxInflightMessages, n.cfg.MaxInflightBytes, n.now)
}

// follower returns what is known of a member; nil if it is no follower.
func (n *Node) follower(m id.Member) *progress.Follower {
	for i := range n.followers {
		if n.followers[i].Member == m {
			return &n.followers[i]
		}
	}
	return nil
}

// Propose appends an entry if this node leads in term and returns its index.
// Errors: ErrNotLeader, ErrTransferring.
func (n *Node) Propose(now env.Instant, term id.Term, data []byte) (id.Index, error) {
	n.now = now
	switch {
	case n.role != Leader || term != n.hard.Term:
		return 0, ErrNotLeader
	case n.transferee != 0:
		return 0, ErrTransferring
	}
	return n.appendOwn(Batch, data), nil
}

// appendOwn appends an entry of the leader. It is sent with the next Output: all
// proposals since the last one share their messages.
func (n *Node) appendOwn(kind Kind, data []byte) id.Index {
	index := n.log.last + 1
	n.append(Entry{Term: n.hard.Term, Index: index, Kind: kind,
		Sum: n.cfg.Sum(kind, n.hard.Term, index, data), Data: data})
	return index
}

// replicate tells every follower what it should hear now.
func (n *Node) replicate() {
	n.round = max(n.round, n.roundWant)
	for i := range n.followers {
		n.feed(&n.followers[i])
	}
}

// feed sends a follower what its state and its window allow. If that is nothing,
// a Heartbeat carries what it must know all the same: a read round, a commit.
func (n *Node) feed(f *progress.Follower) {
	sent := false
	switch f.State() {
	case progress.Probe:
		sent = n.probe(f)
	case progress.Replicate:
		sent = n.pipeline(f) || f.Due && f.Outstanding() && n.remind(f)
	case progress.Snapshot:
	}
	commit := min(n.hard.Commit, f.Match())
	if defect.On(defect.HeartbeatCommitsAll) {
		commit = n.hard.Commit
	}
	if !sent && (f.Due || f.RoundSent < n.round || f.CommitSent < commit) {
		n.sendTo(f, &Heartbeat{Commit: commit, Round: n.round}, commit)
	}
	f.Due = false
	if f.Member == n.transferee && !n.transferSent && (f.Match() == n.log.last || defect.On(defect.TransferSkipsLog)) {
		n.transferSent = true
		n.post(f.Member, &TimeoutNow{})
	}
}

// probe asks a follower whose log is not known; the first time with entries,
// which are right more often than not.
func (n *Node) probe(f *progress.Follower) bool {
	now, bare := f.Probing()
	if !now {
		return false
	}
	previous := f.Next() - 1
	if previous < n.log.base.Index {
		// A member that is silent would only keep a snapshot waiting.
		if f.Active(n.now, n.cfg.Election) {
			n.needSnapshot(f)
		}
		return false
	}
	var entries []Entry
	if next := f.Next(); !bare && next >= n.log.first() && next <= n.log.last {
		entries, _ = n.log.slice(next, n.log.last, n.cfg.MaxAppendBytes, true)
	}
	n.sendAppend(f, previous, entries)
	f.Asked()
	return true
}

// pipeline sends entries as far as the window goes, or has them loaded.
func (n *Node) pipeline(f *progress.Follower) (sent bool) {
	for f.Next() <= n.log.last {
		room, sole := f.Room()
		if room == 0 {
			return sent
		}
		next, first := f.Next(), n.log.first()
		limit := min(room, n.cfg.MaxAppendBytes)
		switch {
		case next <= n.log.base.Index:
			n.needSnapshot(f)
			return sent
		case next < first:
			f.Loading()
			n.loads = append(n.loads, Load{To: f.Member, Term: n.hard.Term, Low: next, High: first - 1, MaxBytes: limit})
			return sent
		}
		entries, bytes := n.log.slice(next, n.log.last, limit, sole)
		if len(entries) == 0 {
			return sent
		}
		n.sendAppend(f, next-1, entries)
		f.Pipelined(entries[len(entries)-1].Index, bytes)
		sent = true
	}
	return sent
}

// remind follows up on what was not answered: an Append without entries at the
// end of what was sent is rejected if any of it was lost.
func (n *Node) remind(f *progress.Follower) bool {
	if f.State() != progress.Replicate {
		return false
	}
	if f.Next()-1 < n.log.base.Index {
		n.needSnapshot(f)
		return false
	}
	n.sendAppend(f, f.Next()-1, nil)
	return true
}

func (n *Node) sendAppend(f *progress.Follower, previous id.Index, entries []Entry) {
	term, ok := n.log.term(previous)
	if !ok {
		violated("no term for entry %d, sent to %v", previous, f.Member)
	}
	commit := min(n.hard.Commit, previous+id.Index(len(entries)))
	f.Appended = n.now
	n.sendTo(f, &Append{Previous: Position{previous, term}, Entries: entries, Commit: n.hard.Commit, Round: n.round}, commit)
}

// sendTo sends a message that carries the latest round, and a commit index.
func (n *Node) sendTo(f *progress.Follower, body Body, commit id.Index) {
	n.send = append(n.send, n.message(f.Member, body))
	f.Sent, f.CommitSent = n.now, max(f.CommitSent, commit)
	if f.RoundSent < n.round || f.Due {
		f.RoundSent, f.RoundAt = n.round, n.now
	}
}

// hear finds the follower of a reply and notes that it is alive.
func (n *Node) hear(from id.Member) *progress.Follower {
	if n.role != Leader {
		return nil
	}
	f := n.follower(from)
	if f != nil {
		f.Heard, n.dirty = n.now, true
	}
	return f
}

func (n *Node) stepAppendReply(from id.Member, b *AppendReply) {
	f := n.hear(from)
	switch {
	case f == nil:
	case b.Reject:
		// The leader's log may be trimmed beyond the hint.
		f.Rejected(b.Previous, min(b.Hint.Index, n.log.agree(b.Hint).Index))
	default:
		if b.Match > n.log.last {
			violated("%v acknowledges %d, the log ends at %d", from, b.Match, n.log.last)
		}
		if f.Accepted(b.Match, n.log.base.Index) {
			n.advanceCommit()
		}
	}
}

// advanceCommit commits what a quorum of the voters has on stable storage, if
// it is of this term: entries of earlier terms are only committed along with it
// (Raft paper, 5.4.2).
func (n *Node) advanceCommit() {
	own := n.log.durable
	if defect.On(defect.LeaderCountsUnsynced) {
		own = n.log.last
	}
	index := reached(n, &n.indices, own, (*progress.Follower).Match)
	if index <= n.hard.Commit {
		return
	}
	if index < n.termFirst && !defect.On(defect.CommitEarlierTermByCounting) {
		return
	}
	n.setCommit(index)
	n.confirmReads()
	n.dropLeavers()
	if latest := n.effective(); latest.Index <= index && !latest.Conf.Votes(n.cfg.ID) {
		n.leave()
	}
}

// leave steps down after this leader's own removal is committed. The others are
// told of the commit first, and the one that has everything may stand at once.
func (n *Node) leave() {
	n.replicate()
	var heir id.Member
	for i := range n.followers {
		if f := &n.followers[i]; heir == 0 && n.mayInherit(f) && f.Match() == n.log.last {
			heir = f.Member
		}
	}
	if heir != 0 {
		n.post(heir, &TimeoutNow{})
	}
	n.retire()
	n.become(Follower)
	n.setLeader(0)
}

// dropLeavers forgets removed members that know of their removal, or had the
// time to learn of it.
func (n *Node) dropLeavers() {
	keep := n.followers[:0]
	for i := range n.followers {
		f := &n.followers[i]
		told := f.Leaving != 0 && f.Leaving <= min(f.CommitSent, f.Match())
		silent := f.Leaving != 0 && f.Leaving <= n.hard.Commit && !f.Active(n.now, n.cfg.Election)
		if !told && !silent {
			keep = append(keep, *f)
		}
	}
	n.followers = keep
}

// PeerUnreachable says that messages to a follower were lost: the leader goes
// back to probing.
func (n *Node) PeerUnreachable(member id.Member) {
	if n.role != Leader {
		return
	}
	if f := n.follower(member); f != nil {
		f.Lost()
	}
}

// quorumHeard is the instant since which a quorum was heard.
func (n *Node) quorumHeard() env.Instant {
	return reached(n, &n.instants, n.now, func(f *progress.Follower) env.Instant { return f.Heard })
}

// tickLeader steps down without a quorum, and sees to it that every follower
// hears something every Heartbeat.
func (n *Node) tickLeader() {
	if n.now.Sub(n.quorumHeard()) >= n.cfg.Election {
		n.tell(Event{Kind: LostQuorum, Term: n.hard.Term})
		n.retire()
		n.become(Follower)
		n.setLeader(0)
		return
	}
	if n.transferee != 0 && n.now >= n.transferUntil {
		n.endTransfer()
	}
	n.dropLeavers()
	for i := range n.followers {
		f := &n.followers[i]
		if n.now >= n.dueAt(f) {
			f.Due, n.dirty = true, true
			f.AskAgain()
			if f.Member == n.transferee {
				n.transferSent = false
			}
		}
	}
}

// dueAt is when a follower must hear something: a Heartbeat after the last
// message, or after the last that carried a round or entries which it has not
// answered. Steady traffic of one kind never keeps a lost message of another from
// being sent again.
func (n *Node) dueAt(f *progress.Follower) env.Instant {
	since := f.Sent
	if len(n.reads) > 0 && f.RoundHeard < f.RoundSent {
		since = f.RoundAt
	}
	if f.Awaited() {
		since = min(since, f.Appended)
	}
	return since.Add(n.cfg.Heartbeat)
}

func (n *Node) wakeLeader() env.Instant {
	wake := env.Never
	for i := range n.followers {
		wake = min(wake, n.dueAt(&n.followers[i]))
	}
	if !n.alone() {
		wake = min(wake, n.quorumHeard().Add(n.cfg.Election))
	}
	if n.transferee != 0 {
		wake = min(wake, n.transferUntil)
	}
	return wake
}
