package raft

import (
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
)

// Node is one replica of one group. It is not safe for concurrent use.
//
// now, in every method that takes it, is the instant at which the input
// arrived; it never moves backwards from one input to the next.
type Node struct{}

// New makes a node from what recovery found. It panics with an
// invariant.Violation when start contradicts itself.
func New(cfg Config, start Start, now env.Instant) *Node { panic("contract only") }

// Tick lets time pass: elections, heartbeats, quorum checks. It is due at Wake.
func (n *Node) Tick(now env.Instant) {}

// Wake is the instant of the next Tick; env.Never for a lone voter that leads.
func (n *Node) Wake() env.Instant { return 0 }

// Step takes a message from another replica. Messages for another member or
// from a term gone by are dropped or answered as the paper says.
func (n *Node) Step(now env.Instant, m Message) {}

// Propose appends an entry if this node leads in term and returns its index.
// Errors: ErrNotLeader, ErrTransferring.
func (n *Node) Propose(now env.Instant, term id.Term, data []byte) (id.Index, error) {
	return 0, nil
}

// ProposeConf appends a configuration change of one voter (rule 10). Errors:
// ErrNotLeader, ErrTransferring, ErrChangePending, ErrBadChange.
func (n *Node) ProposeConf(now env.Instant, conf Conf) (id.Index, error) { return 0, nil }

// Read asks for a linearizable read of this member; the answer is in the Reads
// of a later Output. Errors: ErrNoLeader.
func (n *Node) Read(now env.Instant, read ReadID) error { return nil }

// Transfer hands leadership to a voter, or to the best one when to is 0. It is
// given up after an election time-out. Errors: ErrNotLeader, ErrBadTransferee.
func (n *Node) Transfer(now env.Instant, to id.Member) error { return nil }

// Campaign stands for election at once (a lone voter at start; tests).
func (n *Node) Campaign(now env.Instant) {}

// LeaderUnreachable says that the connections to the leader are lost: a follower
// asks for pre-votes at once (rule 15).
func (n *Node) LeaderUnreachable(now env.Instant) {}

// PeerUnreachable says that messages to a follower were lost: the leader goes
// back to probing.
func (n *Node) PeerUnreachable(member id.Member) {}

// Persisted says that the Output of that number, and all before it, is on
// stable storage (rule 9).
func (n *Node) Persisted(now env.Instant, number uint64) {}

// Applied says that all entries up to index are in the state machine.
func (n *Node) Applied(index id.Index) {}

// Loaded answers a Load. An empty answer says that the entries are no longer in
// the log: the follower then needs a snapshot.
func (n *Node) Loaded(now env.Instant, load Load, entries []Entry) {}

// Trimmed says that the log dropped its entries up to and including base.
func (n *Node) Trimmed(base Position) {}

// SnapshotSent says that a follower in Saves was sent a snapshot at a position;
// SnapshotFailed that it was not and may ask again.
func (n *Node) SnapshotSent(now env.Instant, to id.Member, at id.Index) {}

// SnapshotFailed says that a snapshot in Saves could not be sent.
func (n *Node) SnapshotFailed(to id.Member) {}

// Output returns the next thing to do; ok is false when there is nothing.
func (n *Node) Output() (out Output, ok bool) { return Output{}, false }

// Status looks at the node.
func (n *Node) Status() Status { return Status{} }
