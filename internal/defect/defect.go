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
	// SnapshotOlderThanLog: a snapshot older than the log is installed.
	SnapshotOlderThanLog
	// ResetBeforeInstall: the log is reset before the snapshot is in the state (rule 21).
	ResetBeforeInstall
	// InstallTakenForLoss: a crash between install and log reset is taken for a lost log (rule 12).
	InstallTakenForLoss
	// PendingOverJump: proposals are kept, and made again, over a snapshot jump (rule 13).
	PendingOverJump
	// RefusalTakenForFate: a refusal proves what became of a proposal that was sent twice (rule 13).
	RefusalTakenForFate
	// ForwardOfAnyTerm: a leader appends what was forwarded to it in another term (rule 13).
	ForwardOfAnyTerm
	// AgainAtLeaderChange: proposals are made again as soon as another leads (rule 13).
	AgainAtLeaderChange
	// DutyProposedAgain: a duty is proposed again in a later term (rule 14).
	DutyProposedAgain
	// DamagedVotes: a member whose log is damaged votes and stands (rule 5).
	DamagedVotes
	// TrimPastDurable: the log is trimmed to what is applied, not to what is durable (rule 7).
	TrimPastDurable
	// ReadOfAnotherBoot: a read is answered for another boot of its member (rule 11).
	ReadOfAnotherBoot
	// ReadBeforeTerm: a leader answers reads before an entry of its term is committed (rule 11).
	ReadBeforeTerm
	// ReadByEarlierRound: a read is confirmed by a round that left before it came (rule 11).
	ReadByEarlierRound
	// FollowerReadsAlone: a follower answers linearizable reads by itself.
	FollowerReadsAlone
	// VoteForShorterLog: votes are given without a look at the log.
	VoteForShorterLog
	// TransferSkipsLog: leadership is handed to whoever, whatever its log has.
	TransferSkipsLog
	// AppendAnywhere: entries are appended after an entry of another term.
	AppendAnywhere
	// CommitBeyondMatch: a follower commits entries that its leader did not speak of.
	CommitBeyondMatch
	// HeartbeatCommitsAll: heartbeats commit more than is known to agree.
	HeartbeatCommitsAll
	// LeaderCountsUnsynced: a leader counts its own entries before they are durable.
	LeaderCountsUnsynced
	// ConfKeptOnTruncation: a configuration outlives its entry (rule 10).
	ConfKeptOnTruncation
	// SnapshotConfOfNow: a snapshot carries the latest configuration, not that of its index.
	SnapshotConfOfNow
	// SnapshotConfIgnored: the configuration of a snapshot is ignored.
	SnapshotConfIgnored
	// CountForgetsDelete: a deletion that is not the first change of its command is
	// not counted (rule 24).
	CountForgetsDelete
	// FencesOutliveLoad: the counts of the former state outlive a snapshot's installation.
	FencesOutliveLoad
	// RemovalPassesFences: history is removed that the fences still have to read (rule 24).
	RemovalPassesFences
	// RingEdgeSkipped: the ring is read by a cursor that is one revision before it (rule 25).
	RingEdgeSkipped
	// HistoryOverlapsRing: the last revision that was read from history is read again
	// from the ring.
	HistoryOverlapsRing
	// RingOutlivesLoad: a snapshot's installation does not empty the ring (rule 25).
	RingOutlivesLoad
	// BookmarkOfTheView: progress is the view's revision, whatever is owed (rule 25).
	BookmarkOfTheView
	// FilterStopsBookmarks: a watch with a filter is given no bookmarks.
	FilterStopsBookmarks
	// CompactedWatchHangs: a watch that compaction has passed is not told so.
	CompactedWatchHangs
	// CompactionEatsDelete: deletions of the compact revision are not shown.
	CompactionEatsDelete
	// ResumeRepeats: a watch that begins in the past begins one revision earlier.
	ResumeRepeats
	// FutureWatchAtOnce: a watch that begins in the future begins now.
	FutureWatchAtOnce
	// EventBeforeView: events are shown before readers see what they tell.
	EventBeforeView
	// PreviousOfNow: a previous value is that of now.
	PreviousOfNow
	// GroupSkipsAhead: what was read for one of a group is taken by others who are behind it.
	GroupSkipsAhead
	// PileEndSkipped: who reads history that was turned round goes on one revision too late.
	PileEndSkipped
	// ExpireOutlivesTerm: the end of a lease is proposed like a client's command (rule 14).
	ExpireOutlivesTerm
	// RenewUnconfirmed: a leader renews leases without making sure that it still leads.
	RenewUnconfirmed
	// RenewedWhileEnding: a lease whose end is proposed is still renewed.
	RenewedWhileEnding
	// DeadlineOfFollower: a new leader goes by when it heard of a lease (rule 26).
	DeadlineOfFollower
	// CheckpointIgnored: a new leader gives leases all of their time again, though less
	// was checkpointed (rule 26).
	CheckpointIgnored
	// CheckpointKept: a renewal does not take the checkpoint back.
	CheckpointKept
	// LeaseEndsTwice: the keys of a lease are deleted in two revisions.
	LeaseEndsTwice
	// DetachedKeyDeleted: a key that was put again without its lease ends with it.
	DetachedKeyDeleted
	// LoadNotTold: the clock of the leases does not hear of a snapshot.
	LoadNotTold
	// LostEndLeaks: a lease whose end was lost in the log never ends.
	LostEndLeaks
	// RightsOutliveLoad: users and roles of the former state outlive a snapshot's
	// installation.
	RightsOutliveLoad
	// RightsOfBefore: who has a role is not told that it allows something else.
	RightsOfBefore
	// RightsOfTheView: the commands of an entry are judged by what was before all of them.
	RightsOfTheView
	// RefusedAtOnce: a member that lags refuses by what it knows.
	RefusedAtOnce
	// TokenOfNobody: tokens outlive their user.
	TokenOfNobody
	// TokenOutlivesDisable: tokens outlive that permissions are not checked for a while.
	TokenOutlivesDisable
	// TokenTooEarly: a token that is not applied yet is unknown.
	TokenTooEarly
	// PasswordRaced: a token is given for a password that was changed meanwhile.
	PasswordRaced
	// RoleRowsForgotten: who had a role that was deleted has it again after a restart.
	RoleRowsForgotten
	// QuotaForgotten: a member admits growth beyond its quota (rule 17).
	QuotaForgotten
	// ReserveSpent: a member admits growth though its disk is below the reserve.
	ReserveSpent
	// FullUntold: who is refused for want of space finds no alarm.
	FullUntold
	// RefusedYetProposed: what is refused for want of space is proposed all the same.
	RefusedYetProposed
	// AlarmUnasked: commands that an alarm stops are proposed, and refused where they are applied.
	AlarmUnasked
	// AlarmUnobeyed: where a command is applied no alarm stops it.
	AlarmUnobeyed
	// AlarmReturns: an alarm that was disarmed comes back though nothing has grown.
	AlarmReturns
	// AlarmsAfterRights: where a command is applied, users and roles are asked before alarms.
	AlarmsAfterRights
	// AlarmKept: with back-pressure the alarm does not end by itself.
	AlarmKept
	// SignatureUnread: a signed token is believed whatever its signature is.
	SignatureUnread
	// SignedForGood: a signed token does not end.
	SignedForGood
	// SignedBefore: a signed token is of the auth revision before.
	SignedBefore
	// SignedTooEarly: a signed token is judged by a member that has not applied what it
	// was given after.
	SignedTooEarly
	// Count is the number of defects plus one.
	Count
)

var names = [Count]string{
	"none", "ack-before-sync", "recover-without-sync", "persisted-by-index", "vote-not-persisted",
	"commit-earlier-term-by-counting", "read-by-one-ack", "torn-taken-for-corrupt", "corrupt-taken-for-torn",
	"mark-outside-batch", "start-without-term-check", "no-directory-sync", "compact-late",
	"resend-without-window", "apply-before-durable", "duty-outlives-term", "serve-read-at-once",
	"learner-votes", "change-at-apply", "joint-one-half", "removed-votes",
	"snapshot-older-than-log", "reset-before-install", "install-taken-for-loss", "pending-over-jump",
	"refusal-taken-for-fate", "forward-of-any-term", "again-at-leader-change", "duty-proposed-again",
	"damaged-votes", "trim-past-durable", "read-of-another-boot", "read-before-term", "read-by-earlier-round",
	"follower-reads-alone", "vote-for-shorter-log", "transfer-skips-log", "append-anywhere",
	"commit-beyond-match", "heartbeat-commits-all", "leader-counts-unsynced", "conf-kept-on-truncation",
	"snapshot-conf-of-now", "snapshot-conf-ignored",
	"count-forgets-delete", "fences-outlive-load", "removal-passes-fences",
	"ring-edge-skipped", "history-overlaps-ring", "ring-outlives-load", "bookmark-of-the-view", "filter-stops-bookmarks",
	"compacted-watch-hangs", "compaction-eats-delete", "resume-repeats", "future-watch-at-once", "event-before-view",
	"previous-of-now", "group-skips-ahead", "pile-end-skipped",
	"expire-outlives-term", "renew-unconfirmed", "renewed-while-ending", "deadline-of-follower", "checkpoint-ignored",
	"checkpoint-kept", "lease-ends-twice", "detached-key-deleted", "load-not-told", "lost-end-leaks",
	"rights-outlive-load", "rights-of-before", "rights-of-the-view", "refused-at-once", "token-of-nobody", "token-outlives-disable",
	"token-too-early", "password-raced", "role-rows-forgotten",
	"quota-forgotten", "reserve-spent", "full-untold", "refused-yet-proposed", "alarm-unasked", "alarm-unobeyed",
	"alarm-returns", "alarms-after-rights", "alarm-kept",
	"signature-unread", "signed-for-good", "signed-before", "signed-too-early",
}

// String names the defect as the simulator's flag does.
func (d Defect) String() string {
	if d >= NestedTxnUnchecked && d < endOfPermissions {
		return permissions[d-NestedTxnUnchecked]
	}
	if d >= FullRefusesAll && d < endOfSpace {
		return space[d-FullRefusesAll]
	}
	if d < 0 || d >= Count {
		return "unknown"
	}
	return names[d]
}

// All lists every defect that the simulator must find.
func All() []Defect {
	all := make([]Defect, 0, Count-1)
	for d := None + 1; d < Count; d++ {
		all = append(all, d)
	}
	return all
}
