package raft

import (
	"time"

	"github.com/kvorum/kvorum/internal/id"
)

// Kind says what an entry holds. The numbers are durable: they stand in the log.
type Kind uint8

// The kinds of entries.
const (
	// Batch holds one or more commands; raft does not look inside.
	Batch Kind = 1
	// Empty is the first entry of every leader's term (thesis 6.4, rule 11).
	Empty Kind = 2
	// Change holds what EncodeChange makes: a Conf, and a context that raft only
	// carries. The Conf takes effect when the entry is appended and is undone when
	// it is truncated (rule 10).
	Change Kind = 3
)

// Entry is one slot of a log. Data must not be modified once it is in an Entry.
type Entry struct {
	Term  id.Term
	Index id.Index
	Kind  Kind
	// Sum is the CRC32C of (group, kind, term, index, data), made once by the
	// leader and kept on disk, on the wire and in caches (rule 3).
	Sum  uint32
	Data []byte
}

// Position is an index with the term of its entry.
type Position struct {
	Index id.Index
	Term  id.Term
}

// HardState is what a replica must remember of the protocol besides its log.
type HardState struct {
	Term id.Term
	Vote id.Member
	// Commit is a hint: it is written along with the next frame and needs no
	// sync of its own.
	Commit id.Index
}

// Conf is the configuration of a group: who votes, and who only learns. Each list
// is sorted and without repetition.
type Conf struct {
	// Voters decide: elections, commits, read rounds and the leader's check of its
	// quorum need a majority of them.
	Voters []id.Member
	// Learners are sent everything and decide nothing; none of them is in the other
	// lists.
	Learners []id.Member
	// Outgoing, when it is not empty, are the voters of before: the configuration
	// is joint and every decision needs a majority of them too (Raft paper,
	// section 6). Members may be in both.
	Outgoing []id.Member
}

// PlacedConf is a configuration and the index of its entry; 0 is the first one
// of a group, which has no entry.
type PlacedConf struct {
	Conf  Conf
	Index id.Index
}

// TermRun says that entries from First on, up to the next run, have this Term.
type TermRun struct {
	First id.Index
	Term  id.Term
}

// Start is what a node begins with: what recovery found in the log. The zero
// value with a Conf is a new replica.
type Start struct {
	Hard HardState
	// Conf is the latest configuration in the log, committed or not, and where
	// it stands; Previous is the one before it (the same, if there is none), so
	// that a truncation can undo the latest.
	Conf          Conf
	ConfIndex     id.Index
	Previous      Conf
	PreviousIndex id.Index
	// Base is the position just before the first entry that the log still has:
	// zero for a log that was never trimmed.
	Base Position
	// Terms are the terms of the entries after Base up to Last, ascending.
	Terms []TermRun
	// Last is the last index in the log; Base.Index if there are no entries.
	Last id.Index
	// Tail are the last entries, kept in memory: at least all those after Applied.
	Tail []Entry
	// Applied is the index up to which the state machine has applied; at most
	// Hard.Commit after the host's replay.
	Applied id.Index
	// Damaged marks a replica whose log lost something (rule 5): it answers
	// appends but neither votes nor stands until it has applied an entry of a
	// term greater than every term that it has seen, that of the first leader it
	// meets included: such an entry was proposed after the damage, by a leader that
	// was elected without this replica. The event Healed tells when.
	Damaged bool
}

// Config is fixed for the life of a node.
type Config struct {
	ID    id.Member
	Group id.Group
	// Election is T: time-outs are drawn from [T, 1.3 T) (rule 15). Heartbeat is
	// the pause after which a leader with nothing to send sends all the same;
	// at most a fifth of T.
	Election, Heartbeat time.Duration
	// NoPreVote: whoever hears no leader stands at once, in a term of its own, and does
	// not ask first whether it could win. Replicas of one group may differ in it.
	NoPreVote bool
	// MaxAppendBytes limits the entries of one Append message (one entry always
	// fits); MaxInflightBytes and MaxInflightMessages limit what is sent to one
	// follower and not yet answered.
	MaxAppendBytes, MaxInflightBytes int
	MaxInflightMessages              int
	// CacheBytes limits the entries kept in memory for followers that lag a
	// little; entries not yet applied or durable are kept whatever they weigh.
	CacheBytes int
	// Draw returns a number in [0, n): the only randomness that a node has.
	Draw func(n int64) int64
	// Sum computes Entry.Sum for this group.
	Sum func(kind Kind, term id.Term, index id.Index, data []byte) uint32
}

// Role is what a replica is at the moment.
type Role uint8

// The roles.
const (
	Follower Role = iota
	PreCandidate
	Candidate
	Leader
)

// Output is what a node wants done. All slices are the receiver's to keep, the
// bytes inside entries are shared and read-only.
type Output struct {
	// Number counts the Outputs of this node in this process, from 1. It is what
	// Persisted takes (rule 9).
	Number uint64
	// Send goes out at once: nothing in it depends on what is being persisted.
	Send []Message
	// Hard, when MustSync or Entries or Install say so, is written with the
	// frame; it is always the complete current state.
	Hard HardState
	// MustSync says that Hard, Entries or Install must be on stable storage
	// before After is sent and Persisted is called. When it is false there is
	// nothing to persist and After is empty; Persisted must not be called.
	MustSync bool
	// Entries are appended to the log; whatever the log has from
	// Entries[0].Index on is replaced. Confs among them are the log's to store.
	Entries []Entry
	// Install, when set, comes before Entries: a snapshot to install. The state
	// is installed first, then the log is reset to its position (rule 21). A
	// snapshot given to Step that no Output installs was not news: its chunks may
	// be thrown away.
	Install *Snapshot
	// After goes out once all of this Output is persisted.
	After []Message
	// Apply are entries that are committed and locally durable, in order,
	// without gap, each exactly once (rule 12).
	Apply []Entry
	// Reads are linearizable reads whose fate is known.
	Reads []ReadResult
	// Loads are entries to be read back from the log for followers that lag;
	// they come back by Loaded.
	Loads []Load
	// Saves are followers that need a snapshot; the host answers with
	// SnapshotSent or SnapshotFailed once it has sent, or given up, one. The
	// Message with the Snapshot has the Term of this Output's Hard: by the time it
	// leaves, this node may lead no more, and must not pass for a later leader.
	Saves []id.Member
	// Events tell what happened, for logs and metrics.
	Events []Event
}

// ReadID names a linearizable read: an answer for another boot is dropped.
type ReadID struct {
	Member id.Member
	Boot   id.Boot
	Seq    id.Seq
}

// ReadResult ends a read that this node was asked for by Read.
type ReadResult struct {
	ID ReadID
	// Index is the index that must be applied before the read may look.
	Index id.Index
	// Err is nil, ErrLeaderChanged or ErrNoLeader.
	Err error
}

// Load asks for entries [Low, High] of the log, cut to about MaxBytes but at
// least one. Term is the leader's term that asked: Loaded drops a stale answer.
type Load struct {
	To        id.Member
	Term      id.Term
	Low, High id.Index
	MaxBytes  int
}

// EventKind says what an Event tells.
type EventKind uint8

// The events.
const (
	// BecameFollower, BecamePreCandidate, BecameCandidate and BecameLeader: the
	// role changed; Term is the new term, Member the leader if it is known.
	BecameFollower EventKind = iota + 1
	BecamePreCandidate
	BecameCandidate
	BecameLeader
	// LeaderKnown: Member was learnt to be the leader of Term; 0: it was lost.
	LeaderKnown
	// LostQuorum: a leader stepped down because it heard no quorum in time.
	LostQuorum
	// Truncated: entries from Index on were replaced.
	Truncated
	// ConfChanged: the configuration of Index took effect.
	ConfChanged
	// Healed: a damaged replica applied Index of Term and votes again (rule 5).
	Healed
	// Removed: this replica was a member and has applied the configuration of
	// Index, which does not have it any more. It comes once.
	Removed
)

// Event is one thing that happened inside a node.
type Event struct {
	Kind   EventKind
	Term   id.Term
	Member id.Member
	Index  id.Index
}

// Status is a look at a node.
type Status struct {
	ID      id.Member
	Role    Role
	Leader  id.Member
	Hard    HardState
	Last    Position
	Durable id.Index
	Applied id.Index
	// Conf is the configuration in effect, and ConfIndex where it stands.
	Conf      Conf
	ConfIndex id.Index
	Damaged   bool
	// Progress, of a leader, has one for each member, itself included, and for each
	// that is Leaving, sorted by member.
	Progress []Progress
}

// Progress is what a leader knows of one follower.
type Progress struct {
	Member id.Member
	// Match is the last index known to be durable there; Next the next to send.
	Match, Next id.Index
	// Active says that it was heard from within the last election time-out.
	Active bool
	// Snapshotting says that it waits for a snapshot.
	Snapshotting bool
	// Learner says that it is a learner of the configuration in effect; Leaving that
	// it is not in it any more, but is sent to until it knows, or is silent for an
	// election time-out.
	Learner, Leaving bool
	// Inflight are the bytes sent and not yet answered.
	Inflight int
}
