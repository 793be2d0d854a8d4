package host

import (
	"errors"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// Machine is a group's replicated state, as the applier sees it. The body is
// state.Machine.
type Machine interface {
	// Mark is the position up to which the state has applied; it is written in
	// the batch of the effects (decision 3).
	Mark() raft.Position
	// Apply applies committed entries in order, commits one engine batch with the
	// mark, publishes the new view, and returns an outcome for each command. An
	// error means that this replica cannot go on (an unknown command, a damaged
	// or full disk).
	Apply(entries []raft.Entry) ([]command.Outcome, error)
	// Durable is the mark in the part of the store that survives a power loss;
	// StartFlush begins to move it on.
	Durable() (raft.Position, error)
	StartFlush() error
	// Turn does a bounded slice of the state's own work (removal of compacted
	// history, the store's housekeeping) between applies.
	env.Turner
}

// Snapshots is the part of a Machine that saves and loads whole states; it is
// asked for by a type assertion once a follower needs one.
type Snapshots interface {
	// Freeze takes a frozen copy of the state in the applier's turn. It flushes
	// what is not durable, and waits.
	Freeze() (Frozen, error)
	// Receive begins to take in a snapshot at a position, on disk beside the state.
	// conf is the configuration in effect there: it is kept with the mark, for
	// Loaded. It does not wait, and any stage or task may call it.
	Receive(at raft.Position, conf raft.PlacedConf) Receiving
	// Load replaces the state by a snapshot that was taken in to its last chunk, and
	// its mark, in one atomic, durable step.
	Load(from Receiving) error
	// Loaded says whether the mark is that of a loaded snapshot: nothing was applied
	// since. It is as durable as the mark, and so is the configuration that came
	// with it: a crash may come before the log has heard of either.
	Loaded() (conf raft.PlacedConf, ok bool)
}

// Frozen is a state saved at its mark, read in chunks elsewhere than in a turn.
type Frozen = interface {
	At() raft.Position
	// Next returns the next chunk; ok is false after the last one.
	Next(maxBytes int) (chunk []byte, ok bool, err error)
	Close() error
}

// Receiving is a snapshot on its way into the state, taken in elsewhere than in a
// turn, by one goroutine at a time.
type Receiving = interface {
	// Add takes the next chunk. After an error the snapshot can only be closed; the
	// state is as it was.
	Add(chunk []byte) error
	// Close gives up what was not loaded.
	Close() error
}

// Envelope is what travels between hosts: a message of raft, or of the hosts
// themselves. Exactly one of the pointers is set.
type Envelope struct {
	Group    id.Group
	From, To id.Member
	Raft     *raft.Message
	Forward  *Forward
	Refuse   *Refuse
	Snapshot *SnapshotChunk
	Receipt  *Receipt
}

// Forward carries proposals to the leader of Term, stamped with their origin.
type Forward struct {
	Term     id.Term
	Commands [][]byte
}

// Refuse says that the leader did not append these proposals of a Forward: it no
// longer leads in that term. It proves nothing about a proposal sent twice.
type Refuse struct {
	Term id.Term
	Boot id.Boot
	Seqs []id.Seq
}

// SnapshotChunk is a piece of a state at a position (rule 21). Seq numbers what the
// leader sends in Term, Number the chunks of it, from 0; the last one is empty.
type SnapshotChunk struct {
	At        raft.Position
	Conf      raft.Conf
	ConfIndex id.Index
	Term      id.Term
	Seq       id.Seq
	Number    int
	Last      bool
	Bytes     []byte
}

// Receipt answers a chunk of transfer Seq of Term.
type Receipt struct {
	Term id.Term
	Seq  id.Seq
	// Next: all chunks before it are taken in.
	Next    int
	Verdict Verdict
}

// Verdict is what a receiver says of a transfer.
type Verdict uint8

// The verdicts. Unknown says that nothing of the transfer is here, so that it must
// begin with its first chunk; Refused that it cannot be taken in now.
const (
	ReceiptTaken Verdict = iota
	ReceiptUnknown
	ReceiptRefused
	verdicts
)

// Transport carries envelopes to other members. Send never waits; what cannot be
// sent is lost. Any stage may call it at any time; the slice is the transport's
// to keep, what the envelopes point to is shared and read-only. The bodies are
// peer's and the simulator's.
type Transport interface {
	Send(envelopes []Envelope)
}

// Completions takes the results of calls. Push never waits and may be called
// from any stage. Bodies: a connection, a waiter, a test (rule 30).
type Completions interface {
	Push(Result)
}

// Call says who waits for a result and until when.
type Call struct {
	To Completions
	// Tag is given back in the Result.
	Tag uint64
	// Deadline ends the call with a time-out; the proposal itself goes on. Zero
	// is no deadline.
	Deadline env.Instant
}

// Result ends one call.
type Result struct {
	Tag uint64
	// Index is the applied index of the command, that of the change of the
	// configuration, or that of the read.
	Index id.Index
	// Response is that of command.Outcome; nil for reads. For a change it is that of
	// the outcome with its index and without an origin, if the machine gives one.
	Response any
	Err      error
}

// What a call can end with besides the state's refusals; the doors give them
// etcd's texts and codes.
var (
	ErrStopped = errors.New("host: stopped")
	// ErrNoSnapshots: the machine cannot be saved.
	ErrNoSnapshots     = errors.New("host: the machine has no snapshots")
	ErrTimeout         = errors.New("host: timed out")
	ErrTimeoutLeader   = errors.New("host: timed out after a leader failed")
	ErrNoLeader        = errors.New("host: no leader")
	ErrLeaderChanged   = errors.New("host: leader changed")
	ErrTooManyRequests = errors.New("host: too many requests")
	ErrTooLarge        = errors.New("host: command is too large")
	ErrNoData          = errors.New("host: there is no data to go on with")
	ErrDamaged         = errors.New("host: this member is damaged and has not been repaired: it cannot decide alone")
	ErrNoMember        = errors.New("host: this member is none of its cluster")
)

// Options are what a host is made of.
type Options struct {
	Member    id.Member
	Clock     env.Clock
	Rand      env.Rand
	Tasks     env.Tasks
	Log       *raftlog.Store
	Transport Transport
	// Election, Heartbeat and NoPreVote as in raft.Config.
	Election, Heartbeat time.Duration
	NoPreVote           bool
	// LoneWaits: who is the only voter of a group waits for an election time-out when the
	// group is opened, too, and does not lead at once.
	LoneWaits bool
	Limits    Limits
	// Events, when set, is told what happened in the groups: for logs and
	// metrics. It is called in the stepper's turn and must not wait.
	Events func(id.Group, raft.Event)
	// Trouble, when set, is told what went wrong and ends nothing: a snapshot that
	// could not be sent or taken in will be tried again. Any goroutine may call it; it
	// must not wait.
	Trouble func(id.Group, error)
	// SlowApply is how long a turn of the applier may take before it is counted as slow
	// and Slow, when set, is told, in that turn: it must not wait. 0 is for ever.
	SlowApply time.Duration
	Slow      func(id.Group, SlowApply)
	// Applied, when set, is told how long every turn of the applier with a machine took,
	// in that turn and before its results are pushed: it must not wait.
	Applied func(time.Duration)
	// Stalled, when set, is told when the disk does not get the log synced, what is
	// done about it, and when that is over. It is called in the stepper's turn and
	// must not wait.
	Stalled func(id.Group, Stall)
	// Snapshots, when set, is told when a state begins to be sent to a follower or to
	// be taken in, and when that is over. It is called in the stepper's turn and must
	// not wait.
	Snapshots func(id.Group, SnapshotNews)
	// Peers says that there are other members to be repaired from, even if the log
	// does not know them any more.
	Peers bool
	// Damaged says that this member was found damaged before and has not healed since:
	// its groups start damaged (rule 5). FoundDamage, when set, is told by Open why a
	// group starts damaged, before anything is written that might hide it; who is told
	// remembers it until the event Healed. An error of it ends Open.
	Damaged     bool
	FoundDamage func(id.Group, error) error
	// Replaying, when set, is told by Open how far the replay of a log has come:
	// after every slice of about 1 MB, up to the last committed index.
	Replaying func(group id.Group, at, last id.Index)
}

// SnapshotNews says how the transfer of a state goes.
type SnapshotNews struct {
	// Member is who receives the state when Sending is true, else who sends it.
	Member  id.Member
	Sending bool
	At      raft.Position
	Stage   SnapshotStage
	// Bytes were taken in by the receiver so far, in Took.
	Bytes int64
	Took  time.Duration
}

// SnapshotStage is where a transfer is.
type SnapshotStage uint8

// The stages of a transfer: it ends Complete or GivenUp.
const (
	SnapshotBegun SnapshotStage = iota + 1
	SnapshotComplete
	SnapshotGivenUp
)

// Limits bound what one host keeps in memory; zero values are the defaults.
type Limits struct {
	// BatchBytes cuts a batch entry of two or more commands (rule 16; 512 KB).
	BatchBytes int
	// WaitingCommands and WaitingBytes bound the proposals of a group taken here
	// and not yet ended (20,000 and 64 MB); beyond them calls end with
	// ErrTooManyRequests. Reads are bounded by the same number, apart.
	WaitingCommands, WaitingBytes int
	// Priority lets the ends of leases, which free space, go up to twice these bounds:
	// what is asked for meanwhile does not keep what is over from ending.
	Priority bool
	// FlushBytes of log since the durable mark start a flush (rule 7; 64 MB).
	FlushBytes int64
	// RetainBytes of log are kept for followers (rule 8; 1 GiB).
	RetainBytes int64
	// AppendBytes cut one message of entries to a follower (1 MB); one entry
	// always fits.
	AppendBytes int
	// ChunkBytes cut a state that is sent to a follower (256 KB): what a chunk costs is
	// a slice of work on both sides, and answers wait behind it.
	ChunkBytes int
	// CacheBytes of entries stay in memory for followers (16 MB).
	CacheBytes int
}

// Status is a look at one replica.
type Status struct {
	raft.Status
	Group id.Group
	// Waiting are the proposals taken here and not yet ended.
	Waiting int
}
