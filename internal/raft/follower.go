package raft

import (
	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

// stepAppend takes entries from the leader of this term.
func (n *Node) stepAppend(b *Append) {
	n.noteRound(b.Round)
	entries, previous := b.Entries, b.Previous
	if last := previous.Index + id.Index(len(entries)); last < n.hard.Commit {
		// All of it is committed here already, so it is the same.
		n.agree(n.hard.Commit)
		return
	}
	if previous.Index < n.hard.Commit {
		// Skip what is committed: it may be trimmed, and it cannot differ.
		skip := n.hard.Commit - previous.Index
		previous = Position{n.hard.Commit, 0}
		entries = entries[skip:]
	} else if !n.log.has(previous) && !(defect.On(defect.AppendAnywhere) && previous.Index <= n.log.last) {
		n.reply(n.message(n.leader, &AppendReply{Reject: true, Previous: previous.Index,
			Hint: n.log.agree(previous)}))
		return
	}
	for len(entries) > 0 && n.log.has(Position{entries[0].Index, entries[0].Term}) {
		previous.Index, entries = entries[0].Index, entries[1:]
	}
	if len(entries) > 0 && entries[0].Index <= n.log.last {
		n.truncate(entries[0].Index)
	}
	for _, e := range entries {
		n.append(e)
	}
	matched := previous.Index + id.Index(len(entries))
	n.agree(matched)
	if defect.On(defect.CommitBeyondMatch) {
		matched = n.log.last
	}
	n.setCommit(max(n.hard.Commit, min(b.Commit, matched)))
}

// truncate drops entries that another leader never had.
func (n *Node) truncate(from id.Index) {
	invariant.Check(from > n.hard.Commit, "truncation at %d, commit is %d", from, n.hard.Commit)
	n.log.truncate(from)
	n.tell(Event{Kind: Truncated, Term: n.hard.Term, Index: from})
	n.undoConfs(from)
}

// append puts an entry at the end of the log, the leader's own or a received one.
func (n *Node) append(e Entry) {
	n.log.add(e)
	n.dirty = true
	if e.Kind == Change {
		n.placeConf(&e)
	}
}

// agree notes that the log is the leader's up to index; an answer is owed.
func (n *Node) agree(index id.Index) {
	n.agreed = max(n.agreed, index)
	n.ackOwed, n.dirty = true, true
}

func (n *Node) stepHeartbeat(b *Heartbeat) {
	n.noteRound(b.Round)
	n.roundOwed, n.dirty = true, true
	if b.Commit > n.log.last {
		// The leader was told of entries that are gone: only damage does that. The
		// rejection makes it look where the logs agree (rule 5).
		invariant.Check(n.damaged, "told of commit %d, the log ends at %d", b.Commit, n.log.last)
		n.reply(n.message(n.leader, &AppendReply{Reject: true, Previous: b.Commit, Hint: n.log.end()}))
		return
	}
	commit := b.Commit
	if n.damaged {
		// The leader speaks of what was acknowledged before the damage, and here may be
		// entries again that had been replaced: only what it has shown since counts.
		commit = min(commit, n.agreed)
	}
	n.setCommit(max(n.hard.Commit, commit))
}

// stepSnapshot takes a snapshot whose chunks are all here.
func (n *Node) stepSnapshot(b *Snapshot) {
	if b.At.Index <= n.hard.Commit && !defect.On(defect.SnapshotOlderThanLog) {
		n.agree(n.hard.Commit)
		return
	}
	if n.log.has(b.At) && !defect.On(defect.SnapshotOlderThanLog) {
		// The log has it all: being committed is the only news.
		n.agree(b.At.Index)
		n.setCommit(b.At.Index)
		return
	}
	committed, former := n.hard.Commit, n.conf()
	n.log.reset(b.At, committed)
	n.hard.Commit, n.applying = b.At.Index, b.At.Index
	n.confs = append(n.confs[:0], PlacedConf{b.Conf, b.ConfIndex})
	if defect.On(defect.SnapshotConfIgnored) {
		n.confs[0].Conf = former
	}
	n.member = n.member || b.Conf.Has(n.cfg.ID)
	n.tell(Event{Kind: ConfChanged, Term: n.hard.Term, Index: b.ConfIndex})
	n.install = b
	n.agree(b.At.Index)
}

// noteRound notes the leader's read round; it is answered with the next Output.
func (n *Node) noteRound(round uint64) {
	if round > n.roundMet {
		n.roundMet, n.dirty = round, true
	}
}

// settleRound answers the latest round: once for all messages since the last
// Output, and never behind a sync, since it promises nothing that a crash could
// take back. A round that was answered is answered again only to a Heartbeat.
func (n *Node) settleRound() {
	if n.role == Follower && n.leader != 0 && (n.roundOwed || n.roundMet > n.roundAnswered) {
		n.roundOwed, n.roundAnswered = false, n.roundMet
		n.post(n.leader, &RoundReply{Round: n.roundMet})
	}
}

// settleAck owes the leader an AppendReply for what is agreed. synced says that
// the Output being made waits for a sync: then all of it will be durable when
// the answer leaves. Otherwise only what is durable now may be acknowledged; the
// rest follows when it is.
func (n *Node) settleAck(synced bool) {
	if n.role != Follower || n.leader == 0 || !n.ackOwed && n.acked >= n.agreed {
		return
	}
	if synced {
		n.acked, n.ackOwed = max(n.acked, n.agreed), false
		n.after = append(n.after, n.message(n.leader, &AppendReply{Match: n.agreed}))
		return
	}
	match := min(n.agreed, n.log.durable)
	if !n.hardSynced() || !n.ackOwed && match <= n.acked {
		return
	}
	n.acked, n.ackOwed = max(n.acked, match), false
	n.send = append(n.send, n.message(n.leader, &AppendReply{Match: match}))
}

// reply sends an answer once term and vote are on stable storage as they are.
func (n *Node) reply(m Message) {
	n.dirty = true
	if n.hardSynced() || defect.On(defect.VoteNotPersisted) {
		n.send = append(n.send, m)
		return
	}
	n.after, n.urgent = append(n.after, m), true
}
