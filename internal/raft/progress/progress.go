// Package progress is what a leader knows of one follower: how far its log is
// known to agree, what to send it next, and how much is on its way.
//
//	Probe      the leader does not know where the logs agree: one Append at a
//	           time, until one is accepted
//	Replicate  it knows: Appends go out one after the other without waiting for
//	           answers, as far as the window of messages and bytes allows
//	Snapshot   the follower needs what the leader's log no longer has: nothing
//	           but heartbeats until a snapshot was sent
//
// A rejection, or the news that messages were lost, leads back to Probe.
package progress

import (
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

// State is how a leader treats a follower.
type State uint8

// The states.
const (
	Probe State = iota
	Replicate
	Snapshot
)

// String names a state.
func (s State) String() string { return [...]string{"probe", "replicate", "snapshot"}[s] }

// Follower is what a leader knows of one follower. Its plain fields belong to
// the leader; what must hold together is behind methods.
type Follower struct {
	Member id.Member
	// Heard is when a message of it last arrived, Sent when one last left for it.
	Heard, Sent env.Instant
	// RoundSent is the latest read round that left for it, at RoundAt; RoundHeard
	// the latest that it acknowledged.
	RoundSent, RoundHeard uint64
	RoundAt               env.Instant
	// Appended is when an Append last left, or when it was decided to wait as long
	// as if one had left.
	Appended env.Instant
	// CommitSent is the commit index that it was last told.
	CommitSent id.Index
	// Due says that it is to hear something now, whatever there is to say.
	Due bool
	// Leaving is the index of the change that removed it, 0 for a voter: it hears
	// of its own removal, but counts for nothing any more.
	Leaving id.Index

	state       State
	match, next id.Index
	// asked: in Probe, a probe is on its way; loading: in Replicate, entries are
	// being read back from the log. Both are false in the other states.
	asked, bare, loading bool
	window               window
}

// New is a follower of which nothing is known: the leader guesses that its log
// ends before next. It counts as heard at now, so that it has time to answer.
func New(member id.Member, next id.Index, messages, bytes int, now env.Instant) Follower {
	return Follower{Member: member, next: next, Heard: now, Sent: now, Appended: now,
		window: window{maxMessages: messages, maxBytes: bytes}}
}

// State returns how it is treated.
func (f *Follower) State() State { return f.state }

// Match is the last index known to be durable there and equal to the leader's.
func (f *Follower) Match() id.Index { return f.match }

// Next is the next index to send; always beyond Match.
func (f *Follower) Next() id.Index { return f.next }

// Inflight are the bytes that were sent and not yet answered.
func (f *Follower) Inflight() int { return f.window.bytes }

// Outstanding says that something was sent whose fate is not known.
func (f *Follower) Outstanding() bool { return f.next > f.match+1 }

// Awaited says that an answer to an Append decides how it goes on.
func (f *Follower) Awaited() bool {
	return f.state == Probe && f.asked || f.state == Replicate && f.Outstanding()
}

// Active says that it was heard from within the last d.
func (f *Follower) Active(now env.Instant, d time.Duration) bool { return now.Sub(f.Heard) < d }

// Probing says whether a probe may go now, and whether it should be bare of
// entries: after the first one of a kind went unanswered, entries would only be
// wasted on somebody who may be down.
func (f *Follower) Probing() (now, bare bool) { return f.state == Probe && !f.asked, f.bare }

// Asked notes that a probe left.
func (f *Follower) Asked() { f.asked = true }

// AskAgain allows another probe, a bare one, since the last was not answered.
func (f *Follower) AskAgain() {
	if f.state == Probe && f.asked {
		f.asked, f.bare = false, true
	}
}

// Room is how many bytes of entries may go now; 0 when none may. sole says that
// nothing is on its way, so that one entry may go whatever it weighs.
func (f *Follower) Room() (bytes int, sole bool) {
	if f.state != Replicate || f.loading {
		return 0, false
	}
	return f.window.room(), f.window.count == 0
}

// Pipelined notes that an Append with entries from Next to last left.
func (f *Follower) Pipelined(last id.Index, bytes int) {
	if f.state != Replicate || last < f.next {
		invariant.Check(false, "pipelined up to %d with next %d in state %d", last, f.next, f.state)
	}
	f.window.add(last, bytes)
	f.next = last + 1
}

// Loading notes that the entries from Next on are being read from the log.
func (f *Follower) Loading() { f.loading = true }

// Loaded says whether entries from low on were being waited for.
func (f *Follower) Loaded(low id.Index) bool {
	waited := f.loading && f.state == Replicate && low == f.next
	f.loading = false
	return waited
}

// Accepted takes a positive answer and says whether Match grew. The logs are
// now known to agree and Replicate follows, except when the entry after Match is
// trimmed from the leader's log: then the answer is older than the snapshot that
// is wanted or on its way.
func (f *Follower) Accepted(match, trimmed id.Index) (grew bool) {
	if match > f.match {
		f.match, grew = match, true
	}
	switch f.state {
	case Replicate:
		f.window.free(f.match)
	case Probe, Snapshot:
		if f.match >= trimmed {
			f.replicate()
		} else if f.next <= trimmed {
			f.asked = false // the place that was asked about is gone
		}
	}
	f.next = max(f.next, f.match+1)
	return grew
}

// Rejected takes a rejection of an Append that followed previous; agree is the
// last index at which the logs can agree, judged by the follower's hint. It
// says whether the answer was news.
//
// What follows Match in a pipeline can be rejected once for every message on
// its way: only the first one counts, the others no longer fit. A rejection of
// previous = Match itself takes back what the follower had acknowledged: it
// lost a part of its log (rule 5). What is left need not be the leader's: entries
// that had been replaced may have come back. So Match is nothing until the
// follower has accepted anew, which can only delay a commit.
func (f *Follower) Rejected(previous, agree id.Index) bool {
	switch {
	case previous == 0 || previous < f.match || f.state == Snapshot:
		return false
	case f.state == Probe && previous != f.next-1:
		return false
	case f.state == Replicate && previous >= f.next:
		return false
	}
	agree = min(agree, previous-1)
	if previous == f.match {
		f.match = 0
	}
	f.probe(max(agree, f.match) + 1)
	return true
}

// Lost says that messages to it may be lost: what was sent ahead is forgotten,
// and it is asked again at the next heartbeat.
func (f *Follower) Lost() {
	if f.state == Replicate {
		f.probe(f.match + 1)
		f.askLater()
	}
}

// NeedSnapshot notes that it can only go on from a snapshot.
func (f *Follower) NeedSnapshot() {
	f.state, f.asked, f.bare, f.loading = Snapshot, false, false, false
	f.next = f.match + 1
	f.window.clear()
}

// SnapshotDone ends Snapshot: one was sent at an index, or none (at is 0). It
// is asked at the next heartbeat where it stands.
func (f *Follower) SnapshotDone(at id.Index) {
	if f.state != Snapshot {
		return
	}
	f.probe(max(f.match, at) + 1)
	f.askLater()
}

// askLater is as if a probe had left with the last message, and got lost.
func (f *Follower) askLater() { f.asked, f.bare, f.Appended = true, true, f.Sent }

func (f *Follower) probe(next id.Index) {
	f.state, f.next = Probe, next
	f.asked, f.bare, f.loading = false, false, false
	f.window.clear()
}

func (f *Follower) replicate() {
	f.state, f.next = Replicate, f.match+1
	f.asked, f.bare, f.loading = false, false, false
	f.window.clear()
}
