package raft

import (
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft/progress"
)

// needSnapshot asks the host to bring a follower to where the log still reaches.
func (n *Node) needSnapshot(f *progress.Follower) {
	f.NeedSnapshot()
	n.saves = append(n.saves, f.Member)
	n.dirty = true
}

// Loaded answers a Load. An empty answer says that the entries are no longer in
// the log: the follower then needs a snapshot.
func (n *Node) Loaded(now env.Instant, load Load, entries []Entry) {
	n.now = now
	if n.role != Leader || load.Term != n.hard.Term {
		return
	}
	f := n.follower(load.To)
	if f == nil || !f.Loaded(load.Low) {
		return
	}
	n.dirty = true
	if len(entries) == 0 {
		n.needSnapshot(f)
		return
	}
	bytes := 0
	for i := range entries {
		e := &entries[i]
		bytes += weight(e)
		invariant.Check(e.Index == load.Low+id.Index(i) && (e.Index <= n.log.base.Index || n.log.has(Position{e.Index, e.Term})),
			"entry %d of term %d loaded for %d", e.Index, e.Term, load.Low+id.Index(i))
	}
	if load.Low <= n.log.base.Index {
		// Trimmed while it was read: the term before the first entry is gone.
		n.needSnapshot(f)
		return
	}
	n.sendAppend(f, load.Low-1, entries)
	f.Pipelined(entries[len(entries)-1].Index, bytes)
}

// Follows looks at a follower of this leader: the last index that it is known to
// have, and whether it waits for a snapshot. ok is false if there is none, and when
// this node does not lead.
func (n *Node) Follows(member id.Member) (match id.Index, snapshot, ok bool) {
	if n.role != Leader {
		return 0, false, false
	}
	f := n.follower(member)
	if f == nil {
		return 0, false, false
	}
	return f.Match(), f.State() == progress.Snapshot, true
}

// SnapshotSent says that a follower in Saves was sent a snapshot at a position;
// SnapshotFailed that it was not and may ask again.
func (n *Node) SnapshotSent(now env.Instant, to id.Member, at id.Index) {
	n.now = now
	n.snapshotDone(to, at)
}

// SnapshotFailed says that a snapshot in Saves could not be sent.
func (n *Node) SnapshotFailed(to id.Member) { n.snapshotDone(to, 0) }

func (n *Node) snapshotDone(to id.Member, at id.Index) {
	if n.role != Leader {
		return
	}
	if f := n.follower(to); f != nil {
		f.SnapshotDone(min(at, n.log.last))
	}
}
