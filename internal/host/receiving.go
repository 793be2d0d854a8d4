package host

import (
	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
)

// incoming is the latest state that a leader sends. The stepper owns it, but for
// into, which belongs to whoever has taken the loan.
type incoming struct {
	from   id.Member
	term   id.Term
	seq    id.Seq
	at     raft.Position
	conf   raft.PlacedConf
	handle uint64

	into Receiving
	loan *loan
	// next is the number of the chunk to come, taken how many are on disk; waiting
	// are those between that no task has yet, early has those that overtook next.
	next, taken int
	waiting     []sentChunk
	early       map[int]sentChunk
	adding      bool
	refused     bool
	moved       env.Instant
	bytes       int64 // taken in
	since       env.Instant
}

func (in *incoming) news(stage SnapshotStage, now env.Instant) SnapshotNews {
	return SnapshotNews{Member: in.from, At: in.at, Stage: stage, Bytes: in.bytes, Took: now.Sub(in.since)}
}

// addedChunk is what became of a chunk; done says that the task has ended.
type addedChunk struct {
	in         *incoming
	bytes      int
	last, done bool
	err        error
}

// takeChunk takes in a chunk of the latest transfer, or says in a receipt how far
// that is.
func (s *stepper) takeChunk(g *Group, from id.Member, c *SnapshotChunk) {
	snapshots, able := g.machine.(Snapshots)
	in := g.step.incoming
	newer := in == nil || c.Term > in.term || c.Term == in.term && c.Seq > in.seq
	switch {
	case c.Term < g.Term():
		return // its sender no longer leads
	case !able:
		s.receipt(g, from, c.Term, c.Seq, 0, ReceiptRefused)
		return
	case c.At.Index <= g.step.commit && !defect.On(defect.SnapshotOlderThanLog):
		// All of it is here: what the leader wants to know it hears from raft.
		s.receipt(g, from, c.Term, c.Seq, c.Number+1, ReceiptTaken)
		g.node.Step(g.now, raft.Message{From: from, To: s.h.opts.Member, Term: c.Term, Body: &raft.Snapshot{
			At: c.At, Conf: c.Conf, ConfIndex: c.ConfIndex}})
		return
	case newer && c.Number > 0:
		s.receipt(g, from, c.Term, c.Seq, 0, ReceiptUnknown)
		return
	case newer && g.step.bornTerm == 0 && g.step.disk.done == 0:
		// The log may not know the group yet. A store that is ahead of such a log cannot
		// be told from one whose log was lost, and a lost log may have held a vote.
		s.receipt(g, from, c.Term, c.Seq, 0, ReceiptRefused)
		return
	case newer:
		in = s.beginReceive(g, snapshots, from, c)
	case c.Term != in.term || c.Seq != in.seq || from != in.from:
		return // of a transfer that was given up
	}
	switch {
	case in.refused:
		s.receipt(g, from, c.Term, c.Seq, 0, ReceiptRefused)
	case c.Number < in.next:
		s.receipt(g, from, c.Term, c.Seq, in.taken, ReceiptTaken)
	case c.Number < in.taken+windowChunks: // no sender goes further
		in.moved = g.now
		in.early[c.Number] = sentChunk{c.Bytes, c.Last}
		for chunk, ok := in.early[in.next]; ok; chunk, ok = in.early[in.next] {
			delete(in.early, in.next)
			in.waiting = append(in.waiting, chunk)
			in.next++
		}
		s.addChunks(g, in)
	}
}

// beginReceive begins a transfer in the place of an older one.
func (s *stepper) beginReceive(g *Group, snapshots Snapshots, from id.Member, c *SnapshotChunk) *incoming {
	s.dropIncoming(g)
	in := &incoming{from: from, term: c.Term, seq: c.Seq, at: c.At, conf: raft.PlacedConf{Conf: c.Conf, Index: c.ConfIndex},
		early: map[int]sentChunk{}, moved: g.now, since: g.now}
	in.into = snapshots.Receive(in.at, in.conf)
	in.loan = &loan{close: in.into.Close}
	g.step.incoming = in
	s.h.news(g, in.news(SnapshotBegun, g.now))
	return in
}

func (s *stepper) receipt(g *Group, to id.Member, term id.Term, seq id.Seq, next int, v Verdict) {
	s.send(Envelope{Group: g.id, To: to, Receipt: &Receipt{Term: term, Seq: seq, Next: next, Verdict: v}})
}

// addChunks has a task write the chunks that wait, one in each step.
func (s *stepper) addChunks(g *Group, in *incoming) {
	if in.adding || len(in.waiting) == 0 {
		return
	}
	in.adding = true
	chunks := in.waiting
	in.waiting = nil
	h := s.h
	h.opts.Tasks.Go("take a snapshot in", func() (done bool) {
		if !in.loan.take() {
			return true
		}
		a := &addedChunk{in: in, bytes: len(chunks[0].bytes), last: chunks[0].last}
		if !a.last { // which is empty: it says that all others were there
			a.err = in.into.Add(chunks[0].bytes)
		}
		chunks[0] = sentChunk{}
		chunks = chunks[1:]
		a.done = a.err != nil || len(chunks) == 0
		h.trouble(g, in.loan.back())
		h.stepper.inbox.report(report{kind: reportAdded, g: g, more: a})
		h.wake(stepStage)
		return a.done
	})
}

// takeAdded gives a receipt for a chunk that is on disk, and tells raft after the
// last.
func (s *stepper) takeAdded(g *Group, a *addedChunk) {
	in := a.in
	if g.step.incoming != in {
		return
	}
	if a.done {
		in.adding = false
	}
	if a.err != nil {
		s.h.trouble(g, a.err)
		in.refused, in.waiting, in.early = true, nil, nil
		s.giveUp(g, in.loan)
		s.receipt(g, in.from, in.term, in.seq, 0, ReceiptRefused)
		return
	}
	in.taken++
	in.bytes += int64(a.bytes)
	s.receipt(g, in.from, in.term, in.seq, in.taken, ReceiptTaken)
	if !a.last {
		s.addChunks(g, in)
		return
	}
	s.h.news(g, in.news(SnapshotComplete, g.now))
	t := &g.step.transfers
	t.incoming = nil
	t.handles++
	in.handle = t.handles
	t.received = append(t.received, in)
	g.node.Step(g.now, raft.Message{From: in.from, To: s.h.opts.Member, Term: in.term, Body: &raft.Snapshot{
		At: in.at, Conf: in.conf.Conf, ConfIndex: in.conf.Index, Handle: in.handle}})
}

// dropStale drops a transfer that its leader no longer sends: another term has
// come, the log has gone beyond it, or nothing has come for long.
func (s *stepper) dropStale(g *Group) {
	in := g.step.incoming
	if in != nil && (in.term < g.Term() || in.at.Index <= g.step.commit && !defect.On(defect.SnapshotOlderThanLog) || g.now.Sub(in.moved) >= transferPatience) {
		s.dropIncoming(g)
	}
}

func (s *stepper) dropIncoming(g *Group) {
	if in := g.step.incoming; in != nil {
		s.h.news(g, in.news(SnapshotGivenUp, g.now))
		s.giveUp(g, in.loan)
		g.step.incoming = nil
	}
}

// install hands a received state to the applier; the log is reset once it is in
// place.
func (s *stepper) install(g *Group, in *raft.Snapshot) {
	for i, r := range g.step.received {
		if r.handle == in.Handle {
			g.step.received[i] = nil
			s.h.applier.queue.push(toApply{g: g, install: r})
			s.h.mark(applyStage)
			return
		}
	}
	invariant.Check(false, "no snapshot has the handle %d", in.Handle)
}

// dropReceived gives up what no Output has asked for: none ever will.
func (s *stepper) dropReceived(g *Group) {
	for _, in := range g.step.received {
		if in != nil {
			s.giveUp(g, in.loan)
		}
	}
	g.step.received = nil
}

// install replaces the state by a received one. Nobody can say what became of the
// proposals that it may contain (rule 13).
func (a *applier) install(g *Group, in *incoming) {
	if !in.loan.take() {
		return // the host is closed
	}
	err := g.machine.(Snapshots).Load(in.into)
	a.h.trouble(g, in.loan.end())
	a.h.trouble(g, in.loan.back())
	if err != nil {
		a.h.fail(err)
		return
	}
	g.lastDone.Store(uint64(in.at.Index))
	g.apply.term = max(g.apply.term, in.at.Term)
	var count, bytes int
	a.results, count, bytes = g.pending.jump(a.results, in.at.Term)
	a.h.measured.FailedProposals.Add(uint64(count))
	g.admitted(-count, -bytes)
	a.results = g.changes.end(a.results, func(x *confCall) (bool, error) { return x.index <= in.at.Index, ErrTimeoutLeader })
	a.h.persister.queue.push(toPersist{g: g, installed: true})
	a.h.mark(persistStage)
	a.visible(g, in.at.Index)
}
