// Package defect plants the deliberate mistakes that the simulator must find. A
// checker that has never caught anything proves nothing; each mistake here is
// one that a rule of the design was paid for with.
//
// Without the build tag "defects" On is the constant false and the compiler
// removes every branch that asks it: no product binary carries a defect.
package defect

// Defect is one deliberate mistake.
type Defect int

// The mistakes, named after what goes wrong.
const (
	None Defect = iota
	// AckBeforeSync: an Output counts as persisted when it is written, not synced.
	AckBeforeSync
	// RecoverWithoutSync: recovery skips the data sync of rule 4.
	RecoverWithoutSync
	// PersistedByIndex: a persisted report names an index, not an Output (rule 9).
	PersistedByIndex
	// VoteNotPersisted: votes are given before they are on stable storage.
	VoteNotPersisted
	// CommitEarlierTermByCounting: figure 8 of the Raft paper.
	CommitEarlierTermByCounting
	// ReadByOneAck: a read index is confirmed by one acknowledgement (rule 11).
	ReadByOneAck
	// TornTakenForCorrupt: a torn last frame stops recovery (rule 2).
	TornTakenForCorrupt
	// CorruptTakenForTorn: a damaged frame is cut off as if it were torn (rule 2).
	CorruptTakenForTorn
	// MarkOutsideBatch: the applied mark is written in a batch of its own.
	MarkOutsideBatch
	// StartWithoutTermCheck: start-up does not compare the term at the mark (rule 12).
	StartWithoutTermCheck
	// NoDirectorySync: a new segment's directory entry is not synced.
	NoDirectorySync
	// CompactLate: the compact revision is published after the first deletion (rule 22).
	CompactLate
	// ResendWithoutWindow: a leader keeps no window of accepted proposals (rule 13).
	ResendWithoutWindow
	// ApplyBeforeDurable: committed entries are applied before they are durable here.
	ApplyBeforeDurable
	// DutyOutlivesTerm: a duty of a former term is obeyed (rule 14).
	DutyOutlivesTerm
	// ServeReadAtOnce: a linearizable read does not wait for its index to be applied.
	ServeReadAtOnce
	// LearnerVotes: a learner is counted as a voter.
	LearnerVotes
	// ChangeAtApply: a configuration takes effect when it is applied (rule 10).
	ChangeAtApply
	// JointOneHalf: the new half decides alone in a joint configuration.
	JointOneHalf
	// RemovedVotes: a removed member still votes, with those that have seen it do so.
	RemovedVotes
	// Count is the number of defects plus one.
	Count
)

var names = [Count]string{
	"none", "ack-before-sync", "recover-without-sync", "persisted-by-index", "vote-not-persisted",
	"commit-earlier-term-by-counting", "read-by-one-ack", "torn-taken-for-corrupt", "corrupt-taken-for-torn",
	"mark-outside-batch", "start-without-term-check", "no-directory-sync", "compact-late",
	"resend-without-window", "apply-before-durable", "duty-outlives-term", "serve-read-at-once",
	"learner-votes", "change-at-apply", "joint-one-half", "removed-votes",
}

// String names the defect as the simulator's flag does.
func (d Defect) String() string {
	if d < 0 || d >= Count {
		return "unknown"
	}
	return names[d]
}

// All lists every defect.
func All() []Defect {
	all := make([]Defect, 0, Count-1)
	for d := None + 1; d < Count; d++ {
		all = append(all, d)
	}
	return all
}
