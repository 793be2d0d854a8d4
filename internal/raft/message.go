package raft

import "github.com/kvorum/kvorum/internal/id"

// Message is what one replica says to another of the same group.
type Message struct {
	From, To id.Member
	Term     id.Term
	Body     Body
}

// Body is one of the message bodies of this file.
type Body interface{ body() }

// VoteRequest asks for a vote, or whether one would be given (Pre; thesis 9.6).
type VoteRequest struct {
	Pre bool
	// Last is the end of the candidate's log.
	Last Position
	// Transfer says that the leader itself asked for this election: it is held
	// even by those who still hear that leader.
	Transfer bool
}

// VoteReply answers a VoteRequest.
type VoteReply struct {
	Pre     bool
	Granted bool
}

// Append replicates entries after Previous; without entries it probes.
type Append struct {
	Previous Position
	Entries  []Entry
	Commit   id.Index
	// Round is the latest read round of the leader (rule 11).
	Round uint64
}

// AppendReply answers an Append, or the installation of a snapshot.
type AppendReply struct {
	// Match is the last index that is the same as the leader's and durable here.
	// With Reject it is meaningless.
	Match id.Index
	// Reject says that the log has no entry at Previous; Previous repeats it, so
	// that a late answer is recognised, and Hint is the latest position at which
	// the follower's log could agree (thesis 3.4: skips whole terms).
	Reject   bool
	Previous id.Index
	Hint     Position
}

// Heartbeat keeps a follower from standing and carries rounds and commits.
type Heartbeat struct {
	// Commit is never beyond what the follower is known to match.
	Commit id.Index
	Round  uint64
}

// RoundReply says that the leader was heard as leader of its term after Round
// began. It never waits for a sync.
type RoundReply struct{ Round uint64 }

// Snapshot replaces a follower's state and log up to At. The chunks of the state
// travel beside raft; raft learns of it when all of them are there.
type Snapshot struct {
	At   Position
	Conf Conf
	// ConfIndex is where Conf stood in the log.
	ConfIndex id.Index
	// Handle is the host's name for the received chunks; raft only carries it.
	Handle uint64
}

// TimeoutNow tells its receiver to stand at once (thesis 3.10).
type TimeoutNow struct{}

// ReadRequest is a follower's linearizable read, asked of the leader.
type ReadRequest struct{ ID ReadID }

// ReadReply is the leader's answer: Index once it is confirmed, or Refused when
// it no longer leads.
type ReadReply struct {
	ID      ReadID
	Index   id.Index
	Refused bool
}

func (*VoteRequest) body() {}
func (*VoteReply) body()   {}
func (*Append) body()      {}
func (*AppendReply) body() {}
func (*Heartbeat) body()   {}
func (*RoundReply) body()  {}
func (*Snapshot) body()    {}
func (*TimeoutNow) body()  {}
func (*ReadRequest) body() {}
func (*ReadReply) body()   {}
