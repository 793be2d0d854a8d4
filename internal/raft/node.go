package raft

import (
	"cmp"
	"slices"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft/progress"
	"github.com/kvorum/kvorum/internal/raft/quorum"
)

// Node is one replica of one group. It is not safe for concurrent use.
//
// now, in every method that takes it, is the instant at which the input
// arrived; it never moves backwards from one input to the next.
type Node struct {
	cfg Config
	now env.Instant

	role   Role
	leader id.Member
	hard   HardState
	log    log
	// confs are the configurations in the log: the first is committed, those
	// after it may still be undone. The last one is in effect (rule 10).
	confs []PlacedConf
	// member: a committed configuration had this replica, and it was not told of
	// its removal yet.
	member bool
	// applying is the last index handed out in an Apply, applied the last that the
	// host said is in the state machine.
	applying, applied id.Index
	// damaged: neither vote nor stand until an entry of a term above seen is
	// applied (rule 5); met says that a leader was met since the start.
	damaged, met bool
	seen         id.Term

	// deadline is when a replica that is not leader gives its leader up, or its
	// election; heard is when the leader was last heard, if it ever was.
	deadline, heard env.Instant
	everHeard       bool
	tally           quorum.Tally
	// eager: this pre-vote was asked for because connections were lost, so others
	// ask at the same moment; see grants.
	eager, transferred bool

	// What a follower knows of its leader, and owes it; see settleAck and
	// settleRound. agreed is up to where the logs are known to be the same, acked
	// how much of that an answer has said or will say.
	agreed, acked           id.Index
	ackOwed, roundOwed      bool
	roundMet, roundAnswered uint64
	// forwarded are reads that the leader was asked for, again at forwardRetry.
	forwarded    []ReadID
	forwardRetry env.Instant

	// What a leader knows; see replicate.go, read.go and transfer.go.
	followers        []progress.Follower
	termFirst        id.Index
	round, roundWant uint64
	reads            []pendingRead
	transferee       id.Member
	transferUntil    env.Instant
	transferSent     bool

	// What the next Output takes along. dirty says that there may be something,
	// hardDirty that term or vote changed, urgent that after must not wait for the
	// next thing to persist.
	dirty, hardDirty, urgent bool
	install                  *Snapshot
	send, after              []Message
	results                  []ReadResult
	loads                    []Load
	saves                    []id.Member
	events                   []Event
	// number is that of the last Output, hardNumber of the last one that changed
	// term or vote, persistedNumber of the last one that is persisted.
	number, hardNumber, persistedNumber uint64

	// Scratch space for majorities.
	indices  []id.Index
	rounds   []uint64
	instants []env.Instant
}

// New makes a node from what recovery found. It panics with an
// invariant.Violation when start contradicts itself.
func New(cfg Config, start Start, now env.Instant) *Node {
	invariant.Check(cfg.ID != 0 && cfg.Election > 0 && cfg.Heartbeat > 0 && cfg.Draw != nil && cfg.Sum != nil,
		"incomplete configuration of member %v", cfg.ID)
	invariant.Check(cfg.MaxAppendBytes > 0 && cfg.MaxInflightBytes > 0 && cfg.MaxInflightMessages > 0,
		"windows of %d, %d bytes and %d messages", cfg.MaxAppendBytes, cfg.MaxInflightBytes, cfg.MaxInflightMessages)
	n := &Node{cfg: cfg, now: now, hard: start.Hard, log: newLog(&start),
		applying: start.Applied, applied: start.Applied, damaged: start.Damaged}
	last := n.log.end()
	invariant.Check(start.Applied >= start.Base.Index && start.Applied <= last.Index,
		"applied %d is outside the log from %d to %d", start.Applied, start.Base.Index, last.Index)
	if start.Damaged {
		// What was lost may be what the commit hint speaks of.
		n.hard.Commit = min(n.hard.Commit, last.Index)
	}
	n.hard.Commit = max(n.hard.Commit, start.Applied)
	invariant.Check(n.hard.Commit <= last.Index, "commit %d is beyond the log's end %d", n.hard.Commit, last.Index)
	if last.Term > n.hard.Term {
		invariant.Check(start.Damaged, "the log has term %d, the hard state %d", last.Term, n.hard.Term)
		n.hard.Term, n.hard.Vote = last.Term, 0
	}
	n.seen = n.hard.Term
	n.startConfs(&start)
	n.restartTimer()
	n.dirty = n.hard.Commit > n.applying
	return n
}

// Step takes a message from another replica. Messages for another member or
// from a term gone by are dropped or answered as the paper says.
func (n *Node) Step(now env.Instant, m Message) {
	n.now = now
	if m.To != n.cfg.ID || m.From == n.cfg.ID {
		return
	}
	if m.Term < n.hard.Term {
		n.stepPast(m)
		return
	}
	if m.Term > n.hard.Term && !n.stepFuture(m) {
		return
	}
	switch b := m.Body.(type) {
	case *VoteRequest:
		n.stepVoteRequest(m, b)
	case *VoteReply:
		n.stepVoteReply(m, b)
	case *Append:
		n.follow(m.From)
		n.stepAppend(b)
	case *Heartbeat:
		n.follow(m.From)
		n.stepHeartbeat(b)
	case *Snapshot:
		n.follow(m.From)
		n.stepSnapshot(b)
	case *AppendReply:
		n.stepAppendReply(m.From, b)
	case *RoundReply:
		n.stepRoundReply(m.From, b)
	case *TimeoutNow:
		n.stepTimeoutNow()
	case *ReadRequest:
		n.stepReadRequest(m.From, b)
	case *ReadReply:
		n.stepReadReply(b)
	default:
		invariant.Check(false, "message of unknown body %T", m.Body)
	}
}

// stepPast answers a message of a term gone by. A leader that was deposed, or
// that a stickier majority follows at a lower term than this replica's, learns
// the term; a candidate is refused; the rest is old news.
func (n *Node) stepPast(m Message) {
	switch b := m.Body.(type) {
	case *VoteRequest:
		n.meetStranger(m.From)
		n.reply(n.message(m.From, &VoteReply{Pre: b.Pre}))
	case *Append:
		n.reply(n.message(m.From, &AppendReply{Reject: true, Previous: b.Previous.Index}))
	case *Heartbeat, *Snapshot:
		n.reply(n.message(m.From, &AppendReply{Reject: true}))
	}
}

// stepFuture moves to the term of a message of a later term and says whether the
// message is to be looked at any further.
func (n *Node) stepFuture(m Message) bool {
	switch b := m.Body.(type) {
	case *VoteRequest:
		if b.Pre {
			return true // asking is free: no term changes
		}
		if !b.Transfer && n.hearsLeader() {
			return false
		}
		n.becomeFollower(m.Term, 0)
	case *VoteReply:
		if b.Pre && b.Granted {
			return true // it repeats the term asked for, nobody is in it yet
		}
		n.becomeFollower(m.Term, 0)
	case *Append, *Heartbeat, *Snapshot, *TimeoutNow:
		n.becomeFollower(m.Term, m.From)
	default:
		n.becomeFollower(m.Term, 0)
	}
	return true
}

// Persisted says that the Output of that number, and all before it, is on
// stable storage (rule 9).
func (n *Node) Persisted(now env.Instant, number uint64) {
	n.now = now
	if number > n.number || number < n.persistedNumber {
		violated("persisted output %d after %d, of %d", number, n.persistedNumber, n.number)
	}
	n.persistedNumber = number
	n.log.persisted(number)
	switch n.role {
	case Candidate:
		n.countOwnVote()
	case Leader:
		n.advanceCommit()
	case Follower:
		n.dirty = n.dirty || n.ackOwed || n.acked < n.agreed
	}
	n.afterDurable()
}

// Applied says that all entries up to index are in the state machine.
func (n *Node) Applied(index id.Index) {
	if index > n.applying {
		violated("applied %d, but only %d was handed out", index, n.applying)
	}
	if index <= n.applied {
		return
	}
	n.applied = index
	n.healBy(index)
	n.appliedConfs()
	n.log.drop(n.cfg.CacheBytes, min(n.applied, n.log.durable))
}

// afterDurable looks at what more durable entries allow.
func (n *Node) afterDurable() {
	if n.applyLimit() > n.applying {
		n.dirty = true
	}
	n.log.drop(n.cfg.CacheBytes, min(n.applied, n.log.durable))
}

// Trimmed says that the log dropped its entries up to and including base.
func (n *Node) Trimmed(base Position) {
	invariant.Check(base.Index <= n.applied || base.Index <= n.log.base.Index,
		"trimmed to %d, applied is %d", base.Index, n.applied)
	n.log.trim(base)
}

// setCommit raises the commit index.
func (n *Node) setCommit(index id.Index) {
	if index < n.hard.Commit || index > n.log.last {
		violated("commit from %d to %d in a log up to %d", n.hard.Commit, index, n.log.last)
	}
	if index == n.hard.Commit {
		return
	}
	n.hard.Commit = index
	n.settleConfs()
	n.dirty = true
}

// message makes a message of the current term.
func (n *Node) message(to id.Member, body Body) Message {
	return Message{From: n.cfg.ID, To: to, Term: n.hard.Term, Body: body}
}

// post sends a message with the next Output, at once.
func (n *Node) post(to id.Member, body Body) {
	n.send = append(n.send, n.message(to, body))
	n.dirty = true
}

func (n *Node) tell(e Event) {
	n.events = append(n.events, e)
	n.dirty = true
}

// Status looks at the node.
func (n *Node) Status() Status {
	conf := n.effective()
	s := Status{ID: n.cfg.ID, Role: n.role, Leader: n.leader, Hard: n.hard, Last: n.log.end(),
		Durable: n.log.durable, Applied: n.applied, Damaged: n.damaged,
		Conf: conf.Conf.clone(), ConfIndex: conf.Index}
	if n.role != Leader {
		return s
	}
	s.Progress = append(s.Progress, Progress{Member: n.cfg.ID, Match: n.log.durable, Next: n.log.last + 1,
		Active: true, Leaving: !conf.Conf.Has(n.cfg.ID)})
	for i := range n.followers {
		f := &n.followers[i]
		s.Progress = append(s.Progress, Progress{Member: f.Member, Match: f.Match(), Next: f.Next(),
			Active: f.Active(n.now, n.cfg.Election), Snapshotting: f.State() == progress.Snapshot, Inflight: f.Inflight(),
			Learner: slices.Contains(conf.Conf.Learners, f.Member), Leaving: f.Leaving != 0})
	}
	slices.SortFunc(s.Progress, func(a, b Progress) int { return cmp.Compare(a.Member, b.Member) })
	return s
}
