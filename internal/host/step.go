package host

import (
	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// stepper is the first stage: proposals, reads, messages, reports and time go
// into the nodes, their Outputs go to the other stages and to the transport.
type stepper struct {
	h     *Host
	inbox inbox
	now   env.Instant
	// paced is before when no chunk of a state may be read or sent.
	paced env.Instant
	// readDue is when the next read of the log for a follower may begin.
	readDue env.Instant
	// work are the groups that this turn has touched; they stay locked to its end.
	work []*Group
	// more says that another turn would find something although nothing arrived.
	more bool

	// What leaves at the end of the turn, when no lock is held.
	out     []Envelope
	results []ended
	events  []groupEvent
	stalled []groupStall
	staged  []staged
}

type groupEvent struct {
	group id.Group
	event raft.Event
}

// stepState is what the stepper knows of one group besides the node.
type stepState struct {
	touched bool
	// leader leads leaderTerm since then; 0 is nobody.
	leader     id.Member
	leaderTerm id.Term
	since      env.Instant
	// bornTerm is the term that this run found in the log; see refuse.
	bornTerm id.Term
	window   window
	// What waits for the group's node within this turn.
	forwards []forwarded
	duties   []proposal
	confs    []raft.PlacedConf
	logEnd
	transfers
	disk progress
	wake env.Instant
}

// Turn implements env.Turner.
func (s *stepper) Turn(now env.Instant) (worked bool, wake env.Instant) {
	did, more, wake := s.turn(now)
	return did || more, wake
}

// turn does a turn: did says whether it found anything to do, more whether
// another one would although nothing arrives.
func (s *stepper) turn(now env.Instant) (did, more bool, wake env.Instant) {
	if s.h.failed() {
		return false, false, env.Never
	}
	s.now, s.more = max(s.now, now), false
	defer s.unlock()
	in := s.inbox.take()
	for i := range in.reports {
		s.takeReport(&in.reports[i])
	}
	for i := range in.envelopes {
		s.takeEnvelope(&in.envelopes[i])
	}
	for i := range in.proposals {
		s.takeProposal(&in.proposals[i])
	}
	for i := range in.questions {
		q := &in.questions[i]
		s.touch(q.g)
		q.g.reads.add(q.call)
	}
	s.inbox.give(in)
	for _, g := range s.h.groups {
		if g.step.wake <= s.now {
			s.touch(g)
		}
	}
	for _, g := range s.work {
		s.stepGroup(g)
	}
	did = len(s.work) > 0
	s.unlock()
	s.leave()
	wake = env.Never
	for _, g := range s.h.groups {
		wake = min(wake, g.step.wake)
	}
	return did, s.more, wake
}

// touch locks a group for the rest of the turn.
func (s *stepper) touch(g *Group) *raft.Node {
	if !g.step.touched {
		g.step.touched = true
		s.work = append(s.work, g)
		g.mu.Lock()
		g.now = max(g.now, s.now)
	}
	return g.node
}

func (s *stepper) unlock() {
	for _, g := range s.work {
		g.step.touched = false
		g.mu.Unlock()
	}
	s.work = s.work[:0]
}

// leave hands out what the turn has made, now that no lock is held: whoever is
// called may call back.
func (s *stepper) leave() {
	if len(s.out) > 0 {
		s.h.opts.Transport.Send(s.out)
		s.out = nil // the transport's now
	}
	push(s.results)
	s.results = recycle(s.results)
	if told := s.h.opts.Events; told != nil {
		for _, e := range s.events {
			told(e.group, e.event)
		}
	}
	s.events = recycle(s.events)
	for _, x := range s.stalled {
		s.h.opts.Stalled(x.group, x.stall)
	}
	s.stalled = s.stalled[:0]
}

func (s *stepper) send(e Envelope) {
	e.From = s.h.opts.Member
	s.out = append(s.out, e)
}

// takeReport feeds what the other stages say.
func (s *stepper) takeReport(r *report) {
	if r.kind == reportUnreachable {
		for _, g := range s.h.groups {
			node := s.touch(g)
			node.PeerUnreachable(r.member)
			if g.step.leader == r.member {
				node.LeaderUnreachable(g.now)
			}
		}
		return
	}
	g := r.g
	node := s.touch(g)
	switch r.kind {
	case reportPersisted:
		s.persisted(g, r.number)
		node.Persisted(g.now, r.number)
	case reportApplied:
		node.Applied(r.index)
	case reportTrimmed:
		node.Trimmed(r.base)
	case reportLoaded:
		l := r.more.(*loadedEntries)
		node.Loaded(g.now, l.load, l.entries)
	case reportFrozen:
		s.takeFrozen(g, r.more.(*outgoing))
	case reportRead:
		s.takeRead(g, r.more.(*readChunk))
	case reportAdded:
		s.takeAdded(g, r.more.(*addedChunk))
	case reportChange:
		s.proposeConf(g, r.more.(*confCall))
	case reportLook:
	default:
		invariant.Check(false, "report of kind %d", r.kind)
	}
}

// takeEnvelope feeds what another member says.
func (s *stepper) takeEnvelope(e *Envelope) {
	g := s.h.byID[e.Group]
	if g == nil || e.To != s.h.opts.Member || e.From == e.To {
		return
	}
	switch {
	case e.Raft != nil:
		if a, ok := e.Raft.Body.(*raft.Append); ok && len(a.Entries) > 0 && g.backlog.Load() > backlogBytes {
			return // to be sent again when the applier has caught up
		}
		if _, ok := e.Raft.Body.(*raft.TimeoutNow); ok && s.stalls(g) {
			return // its vote for itself would not become durable
		}
		s.touch(g).Step(g.now, *e.Raft)
	case e.Forward != nil:
		s.touch(g)
		g.step.forwards = append(g.step.forwards, forwarded{e.From, e.Forward})
	case e.Refuse != nil:
		s.touch(g)
		s.takeRefuse(g, e.Refuse)
	case e.Snapshot != nil:
		s.touch(g)
		s.takeChunk(g, e.From, e.Snapshot)
	case e.Receipt != nil:
		s.touch(g)
		s.takeReceipt(g, e.From, e.Receipt)
	}
}

// stepGroup lets time pass for a group that has taken its inputs, hands out what
// follows from them, proposes and asks what waits, and hands out the rest.
func (s *stepper) stepGroup(g *Group) {
	if g.node.Wake() <= g.now {
		g.node.Tick(g.now)
	}
	s.drain(g)
	s.expire(g)
	look := s.watchDisk(g)
	s.propose(g)
	s.askReads(g)
	s.drain(g)
	wake := min(s.turnTransfers(g), s.turnReads(g))
	s.drain(g)
	g.step.wake = min(g.node.Wake(), g.pending.wake(), g.reads.wake(), g.changes.wake(), wake, look)
}

// drain takes a node's Outputs to where they belong.
func (s *stepper) drain(g *Group) {
	for {
		out, ok := g.node.Output()
		if !ok {
			break
		}
		g.term.Store(uint64(out.Hard.Term))
		g.step.follow(&out, g.now)
		for _, e := range out.Events {
			s.note(g, e)
		}
		for i := range out.Send {
			s.send(Envelope{Group: g.id, To: out.Send[i].To, Raft: &out.Send[i]})
		}
		if out.MustSync {
			s.persist(g, &out)
		} else if len(out.After) > 0 || len(out.Entries) > 0 {
			invariant.Check(false, "output %d of group %d hides what is to be persisted", out.Number, g.id)
		}
		if len(out.Apply) > 0 {
			g.backlog.Add(int64(weightOf(out.Apply)))
			s.h.applier.queue.push(toApply{g: g, entries: out.Apply})
			s.h.mark(applyStage)
		}
		for _, r := range out.Reads {
			s.endRead(g, r)
		}
		for _, l := range out.Loads {
			s.load(g, l)
		}
		for _, to := range out.Saves {
			s.beginSave(g, to)
		}
	}
	s.dropReceived(g)
}

// persist hands what must be on stable storage to the persister.
func (s *stepper) persist(g *Group, out *raft.Output) {
	item := toPersist{g: g, number: out.Number, after: out.After,
		save: raftlog.Save{Group: g.id, Hard: out.Hard, Entries: out.Entries}}
	if in := out.Install; in != nil {
		item.save.Reset = &raftlog.Reset{At: in.At, Conf: in.Conf, ConfIndex: in.ConfIndex}
		s.install(g, in)
	}
	s.followConfs(g, out)
	g.step.disk.hand(out, g.now)
	s.h.persister.queue.push(item)
	s.h.mark(persistStage)
}

// note follows who leads and who votes.
func (s *stepper) note(g *Group, e raft.Event) {
	st := &g.step
	switch e.Kind {
	case raft.LeaderKnown:
		st.leader, st.leaderTerm = e.Member, e.Term
		if e.Member != 0 {
			if defect.On(defect.AgainAtLeaderChange) {
				s.end(g, func(to []ended) ([]ended, int, int) { to, n, b, _ := g.pending.lose(to, e.Term); return to, n, b })
			}
			st.since = g.now
			g.pending.lookResend(g.now)
		}
		g.leader.Store(uint64(e.Member))
	case raft.ConfChanged:
		g.setConf(g.node.Status().Conf)
	case raft.Healed:
		g.damaged.Store(false)
		s.h.mark(persistStage) // its log may go now
	default:
	}
	s.events = append(s.events, groupEvent{g.id, e})
}

// setConf notes whether this replica votes, and whether there is no other member.
func (g *Group) setConf(conf raft.Conf) {
	g.votes.Store(conf.Votes(g.h.opts.Member))
	g.alone.Store(conf.Alone(g.h.opts.Member) && len(conf.Learners) == 0)
}

// leads says whether this replica is known to lead.
func (s *stepper) leads(g *Group) bool { return g.step.leader == s.h.opts.Member }

// expire ends the calls whose deadline has passed.
func (s *stepper) expire(g *Group) {
	var count, bytes int
	s.results, count, bytes = g.pending.expire(s.results, g.now, g.step.since, 2*s.h.opts.Election)
	g.admitted(-count, -bytes)
	s.h.measured.FailedProposals.Add(uint64(count))
	s.results, count = g.reads.expire(s.results, g.now)
	s.h.measured.FailedReads.Add(uint64(count))
	g.questions.Add(-int64(count))
	s.results = g.changes.expire(s.results, g.now)
}

// askReads makes one read of raft of all that wait.
func (s *stepper) askReads(g *Group) {
	if g.step.leader == 0 {
		return
	}
	seq := g.reads.ask(g.now)
	if seq == 0 {
		return
	}
	if err := g.node.Read(g.now, raft.ReadID{Member: s.h.opts.Member, Boot: s.h.boot, Seq: seq}); err != nil {
		g.reads.again(seq)
	}
}

// endRead takes raft's answer to a read.
func (s *stepper) endRead(g *Group, r raft.ReadResult) {
	if r.ID.Boot != s.h.boot || r.ID.Member != s.h.opts.Member {
		return
	}
	if r.Err != nil {
		g.reads.again(r.ID.Seq)
		s.more = s.more || g.step.leader != 0
		return
	}
	var count int
	var since env.Instant
	s.results, count, since = g.reads.confirm(s.results, r.ID.Seq, r.Index, g.Applied)
	if g.now.Sub(since) >= slowRead {
		s.h.measured.SlowReads.Add(1)
	}
	g.questions.Add(-int64(count))
}
