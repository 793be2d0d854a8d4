package raft

import (
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft/quorum"
)

// Tick lets time pass: elections, heartbeats, quorum checks. It is due at Wake.
func (n *Node) Tick(now env.Instant) {
	n.now = now
	if n.role == Leader {
		n.tickLeader()
		return
	}
	if now >= n.forwardRetry && len(n.forwarded) > 0 {
		n.forwardAgain()
	}
	if now < n.deadline {
		return
	}
	n.everHeard, n.eager = false, false
	switch {
	case n.role == Candidate && !n.hardSynced():
		// The disk has not even taken its own vote; asking anew cannot help.
		n.restartTimer()
	case n.mayStand():
		n.campaign(false)
	default:
		n.setLeader(0)
		n.deadline = env.Never
	}
}

// Wake is the instant of the next Tick; env.Never for a lone voter that leads.
func (n *Node) Wake() env.Instant {
	if n.role == Leader {
		return n.wakeLeader()
	}
	if len(n.forwarded) > 0 {
		return min(n.deadline, n.forwardRetry)
	}
	return n.deadline
}

// restartTimer draws an election time-out from [T, 1.3 T) (rule 15).
func (n *Node) restartTimer() {
	spread := max(1, int64(n.cfg.Election)*3/10)
	n.deadline = n.now.Add(n.cfg.Election + time.Duration(n.cfg.Draw(spread)))
}

// mayStand says whether this replica may ask for votes: its log lost nothing
// (rule 5) and it is a voter, or was one until a change that may still be
// undone. Only it may have that change; without it the others could be stuck
// (thesis 4.2.2). Its own vote does not count then.
func (n *Node) mayStand() bool {
	return (!n.damaged || defect.On(defect.DamagedVotes)) && slices.ContainsFunc(n.confs, func(c PlacedConf) bool { return c.Conf.Votes(n.cfg.ID) })
}

// alone says that this replica is all that it takes to decide.
func (n *Node) alone() bool { return n.conf().Alone(n.cfg.ID) }

// Campaign stands for election at once, without waiting for a time-out (a lone
// voter at start; tests). With other voters the pre-vote, if there is one, still
// comes first, so that nobody who is well led is disturbed.
func (n *Node) Campaign(now env.Instant) {
	n.now = now
	if n.role != Leader && n.mayStand() {
		n.eager = false
		n.campaign(false)
	}
}

// LeaderUnreachable says that the connections to the leader are lost: a follower
// asks for pre-votes at once (rule 15). Without pre-votes it waits for its time-out,
// since all followers would begin terms of their own in the same moment; it only does
// not refuse others any more.
func (n *Node) LeaderUnreachable(now env.Instant) {
	n.now = now
	if n.role != Follower || n.leader == 0 {
		return
	}
	n.everHeard = false
	if !n.mayStand() {
		n.setLeader(0)
		return
	}
	if n.cfg.NoPreVote {
		return
	}
	n.eager = true
	n.campaign(false)
}

func (n *Node) stepTimeoutNow() {
	if n.role != Leader && n.mayStand() {
		n.campaign(true)
	}
}

// campaign begins an election: with a pre-vote, except when the leader itself
// asked for it, nobody else votes, or there are none.
func (n *Node) campaign(transferred bool) {
	n.transferred = transferred
	n.setLeader(0)
	n.everHeard = false
	n.restartTimer()
	n.tally.Reset()
	if !transferred && !n.alone() && !n.cfg.NoPreVote {
		n.become(PreCandidate)
		n.tally.Record(n.cfg.ID, true)
		n.ask(true)
		return
	}
	n.stand()
}

// stand enters the next term and votes for itself. The requests leave only when
// that, and every entry that they boast of, is on stable storage: otherwise a
// crash would let old answers elect a shorter log. Its own vote counts from then
// on, too (see Persisted): a lone voter leads as soon as its vote is durable.
func (n *Node) stand() {
	n.setTerm(n.hard.Term+1, n.cfg.ID)
	n.become(Candidate)
	n.restartTimer()
	n.tally.Reset()
	n.ask(false)
}

func (n *Node) ask(pre bool) {
	for _, m := range n.electors() {
		if m == n.cfg.ID {
			continue
		}
		request := n.message(m, &VoteRequest{Pre: pre, Last: n.log.end(), Transfer: n.transferred && !pre})
		if pre {
			request.Term++
			n.send = append(n.send, request)
		} else {
			n.after = append(n.after, request)
		}
	}
	n.dirty = true
}

// hearsLeader says that this replica has no reason to want another leader: it
// leads with a quorum behind it, or heard its leader within T (thesis 9.6, 4.2.3).
func (n *Node) hearsLeader() bool {
	if n.role == Leader {
		return n.now.Sub(n.quorumHeard()) < n.cfg.Election
	}
	return n.leader != 0 && n.everHeard && n.now.Sub(n.heard) < n.cfg.Election
}

func (n *Node) stepVoteRequest(m Message, b *VoteRequest) {
	n.meetStranger(m.From)
	granted := n.grants(m, b)
	reply := n.message(m.From, &VoteReply{Pre: b.Pre, Granted: granted})
	if b.Pre {
		if granted {
			reply.Term = m.Term
		}
		n.send = append(n.send, reply)
		n.dirty = true
		if !granted && n.outbids(m, b) {
			n.tally.Reset()
			n.tally.Record(n.cfg.ID, true)
			n.ask(true)
		}
		return
	}
	if granted {
		n.setTerm(n.hard.Term, m.From)
		n.become(Follower)
		n.restartTimer()
	}
	n.reply(reply)
}

// outbids says whether a pre-vote that was refused is a reason to ask for pre-votes
// again: who asks has lost the leader too, but may have said before that it heard
// it, and has the lesser claim, so that nobody else would ask before a time-out.
// Claims are ordered, so this comes to an end.
func (n *Node) outbids(m Message, b *VoteRequest) bool {
	last := n.log.end()
	better := last.Term > b.Last.Term || last.Term == b.Last.Term && last.Index > b.Last.Index
	return n.role == PreCandidate && m.Term == n.hard.Term+1 && (better || last == b.Last && n.cfg.ID > m.From)
}

// grants decides on a vote or a pre-vote of a term at least the current one. It
// does not ask who is a voter: whose votes count is for the candidate's
// configuration to say, which is the newer one if the vote matters. A learner
// that was promoted may be the last to hear of it, and the vote of a new voter
// may be what it takes to get a leader who can tell it.
func (n *Node) grants(m Message, b *VoteRequest) bool {
	last := n.log.end()
	current := b.Last.Term > last.Term || b.Last.Term == last.Term && b.Last.Index >= last.Index
	current = current || defect.On(defect.VoteForShorterLog) || b.Transfer && defect.On(defect.TransferSkipsLog)
	switch {
	case n.damaged && !defect.On(defect.DamagedVotes) || !current || !b.Transfer && n.hearsLeader():
		return false
	case b.Pre && m.Term > n.hard.Term:
		// When connections to a dead leader break, all its followers ask in the
		// same moment. So that they do not split the vote, one who asks for that
		// reason itself yields only to a better log or a greater name.
		return !(n.role == PreCandidate && n.eager && b.Last == last && m.From < n.cfg.ID)
	default:
		return n.hard.Vote == m.From || n.hard.Vote == 0 && n.leader == 0
	}
}

func (n *Node) stepVoteReply(m Message, b *VoteReply) {
	switch {
	case b.Pre && n.role == PreCandidate && (m.Term == n.hard.Term+1 || !b.Granted):
	case !b.Pre && n.role == Candidate && m.Term == n.hard.Term:
	default:
		return
	}
	n.tally.Record(m.From, b.Granted)
	n.decide()
}

// countOwnVote counts the candidate's own vote once it is durable.
func (n *Node) countOwnVote() {
	if n.hardSynced() {
		n.tally.Record(n.cfg.ID, true)
		n.decide()
	}
}

func (n *Node) decide() {
	switch n.outcome() {
	case quorum.Won:
		if n.role == PreCandidate {
			n.stand()
		} else {
			n.lead()
		}
	case quorum.Lost:
		if n.role == PreCandidate && n.eager {
			return // the others may lose the leader in a moment: see outbids
		}
		n.become(Follower)
	case quorum.Open:
	}
}

// follow notes a message of the leader of the current term.
func (n *Node) follow(leader id.Member) {
	if n.leader != 0 && n.leader != leader {
		violated("%v and %v lead term %d", n.leader, leader, n.hard.Term)
	}
	n.become(Follower)
	n.setLeader(leader)
	n.heard, n.everHeard = n.now, true
	n.restartTimer()
	if n.damaged && !n.met {
		n.met, n.seen = true, max(n.seen, n.hard.Term)
	}
}

// becomeFollower enters a later term.
func (n *Node) becomeFollower(term id.Term, leader id.Member) {
	n.setTerm(term, 0)
	n.retire()
	n.become(Follower)
	n.setLeader(leader)
}

// retire ends what only a leader has.
func (n *Node) retire() {
	if n.role != Leader {
		return
	}
	n.endReads()
	n.followers, n.transferee = nil, 0
	n.loads, n.saves = nil, nil // not asked yet, and nobody would use them
	n.restartTimer()
}

// setTerm changes term or vote; both become durable with the next Output.
func (n *Node) setTerm(term id.Term, vote id.Member) {
	old := n.hard
	if term == old.Term && vote == old.Vote {
		return
	}
	invariant.Check(term > old.Term || term == old.Term && old.Vote == 0,
		"from term %d and vote %v to term %d and vote %v", old.Term, old.Vote, term, vote)
	n.hard.Term, n.hard.Vote = term, vote
	n.hardDirty, n.dirty = true, true
	if term > old.Term {
		n.setLeader(0)
		n.agreed, n.acked, n.ackOwed = 0, 0, false
		n.roundOwed, n.roundMet, n.roundAnswered = false, 0, 0
	}
}

// hardSynced says that term and vote are on stable storage as they are.
func (n *Node) hardSynced() bool { return !n.hardDirty && n.hardNumber <= n.persistedNumber }

// setLeader notes who leads; whoever waits for another leader's answer is told.
func (n *Node) setLeader(leader id.Member) {
	if leader == n.leader {
		return
	}
	n.leader = leader
	n.endForwarded()
	n.tell(Event{Kind: LeaderKnown, Term: n.hard.Term, Member: leader})
}

func (n *Node) become(role Role) {
	if role == n.role {
		return
	}
	n.role = role
	kind := [...]EventKind{Follower: BecameFollower, PreCandidate: BecamePreCandidate,
		Candidate: BecameCandidate, Leader: BecameLeader}[role]
	n.tell(Event{Kind: kind, Term: n.hard.Term, Member: n.leader})
}

// healBy ends the damage of rule 5: an entry of a term that began after this
// replica came back is applied, so it holds everything that a majority without
// it could have committed.
func (n *Node) healBy(applied id.Index) {
	if !n.damaged {
		return
	}
	if t, ok := n.log.term(applied); ok && n.met && t > n.seen {
		n.damaged = false
		if n.deadline == env.Never {
			n.restartTimer()
		}
		n.tell(Event{Kind: Healed, Term: t, Index: applied})
	}
}
