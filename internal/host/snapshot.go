package host

import (
	"errors"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
)

// A follower that the log can no longer serve is sent the whole state (rule 21):
//
//	leader    stepper asks, applier freezes, tasks read and send chunk after chunk,
//	          stepper paces them and tells raft when the last one has left
//	follower  stepper gathers the chunks and tells raft, applier loads the state,
//	          then the persister resets the log, then raft hears of it
//
// Chunks are numbered from 0; a receiver that misses one drops the whole, and the
// leader learns from the follower's next answer that another is needed.
const (
	chunkBytes = 1 << 20
	// chunkPause paces a sender to 200 MB/s, so that appends get through beside it.
	chunkPause = 5 * time.Millisecond
)

// outgoing is a state on its way to one follower. The stepper owns it, but for the
// time that the applier or a task has it.
type outgoing struct {
	to     id.Member
	term   id.Term
	frozen Frozen
	err    error
	number int
	last   bool
	// due is when the next chunk may be read; Never while somebody has it.
	due env.Instant
}

// beginSave has the state frozen for a follower.
func (s *stepper) beginSave(g *Group, to id.Member) {
	if _, ok := g.machine.(Snapshots); !ok {
		g.node.SnapshotFailed(to)
		return
	}
	o := &outgoing{to: to, term: g.step.leaderTerm, due: env.Never}
	g.step.outgoing = append(g.step.outgoing, o)
	s.h.applier.queue.push(toApply{g: g, freeze: o})
	s.h.mark(applyStage)
}

func (a *applier) freeze(g *Group, o *outgoing) {
	o.frozen, o.err = g.machine.(Snapshots).Freeze()
	a.h.stepper.inbox.report(report{kind: reportFrozen, g: g, more: o})
	a.h.mark(stepStage)
}

// takeOutgoing has a state back that was frozen, or whose next chunk was sent.
func (s *stepper) takeOutgoing(g *Group, o *outgoing) {
	switch {
	case o.err != nil:
		s.endOutgoing(g, o)
		g.node.SnapshotFailed(o.to)
	case o.last:
		s.endOutgoing(g, o)
		g.node.SnapshotSent(g.now, o.to, o.frozen.At().Index)
	case o.number == 0:
		o.due = g.now
	default:
		o.due = g.now.Add(chunkPause)
	}
}

// endOutgoing forgets a state; the last task that had it has closed it.
func (s *stepper) endOutgoing(g *Group, o *outgoing) {
	for i, x := range g.step.outgoing {
		if x == o {
			g.step.outgoing = append(g.step.outgoing[:i], g.step.outgoing[i+1:]...)
			return
		}
	}
}

// sendChunks starts the reading of the chunks that are due.
func (s *stepper) sendChunks(g *Group) {
	for _, o := range g.step.outgoing {
		if o.due > g.now {
			continue
		}
		o.due = env.Never
		at := o.frozen.At()
		conf := g.confAt(at.Index)
		e := Envelope{Group: g.id, From: s.h.opts.Member, To: o.to, Snapshot: &SnapshotChunk{
			At: at, Conf: conf.Conf, ConfIndex: conf.Index, Term: o.term, Number: o.number}}
		wanted := s.leads(g) && g.step.leaderTerm == o.term
		s.h.opts.Tasks.Go("send a snapshot", func() (done bool) {
			s.h.sendChunk(g, o, e, wanted)
			return true
		})
	}
}

// sendChunk reads and sends the next chunk; a state that is sent, broken or no
// longer wanted is closed.
func (h *Host) sendChunk(g *Group, o *outgoing, e Envelope, wanted bool) {
	chunk, ok, err := []byte(nil), false, ErrLeaderChanged
	if wanted {
		chunk, ok, err = o.frozen.Next(chunkBytes)
	}
	if err == nil {
		e.Snapshot.Bytes, e.Snapshot.Last = chunk, !ok
		h.opts.Transport.Send([]Envelope{e})
		o.number++
	}
	o.err, o.last = err, err == nil && !ok
	if o.err != nil || o.last {
		if closed := o.frozen.Close(); o.err == nil && closed != nil {
			o.err = closed
		}
	}
	h.stepper.inbox.report(report{kind: reportChunk, g: g, more: o})
	h.wake(stepStage)
}

func wakeOutgoing(g *Group) env.Instant {
	wake := env.Never
	for _, o := range g.step.outgoing {
		wake = min(wake, o.due)
	}
	return wake
}

// incoming gathers the chunks of the latest state that a leader sends.
type incoming struct {
	from   id.Member
	term   id.Term
	at     raft.Position
	chunks [][]byte
}

// received is a complete state that raft was told of under its handle.
type received struct {
	handle uint64
	at     raft.Position
	conf   raft.PlacedConf
	chunks [][]byte
}

// takeChunk gathers a chunk, and tells raft when all are there. Chunks that
// repeat are dropped; after a gap, or for another state, gathering begins anew.
func (s *stepper) takeChunk(g *Group, from id.Member, c *SnapshotChunk) {
	in := &g.step.incoming
	if in.from != from || in.term != c.Term || in.at != c.At || c.Number == 0 {
		*in = incoming{from: from, term: c.Term, at: c.At}
	}
	switch {
	case c.Number < len(in.chunks):
		return
	case c.Number > len(in.chunks):
		*in = incoming{}
		return
	}
	in.chunks = append(in.chunks, c.Bytes)
	if !c.Last {
		return
	}
	g.step.snapshots++
	handle := uint64(g.step.snapshots)
	// The last one is empty: it says that all others were there.
	g.step.received = append(g.step.received, received{handle, c.At,
		raft.PlacedConf{Conf: c.Conf, Index: c.ConfIndex}, in.chunks[:c.Number]})
	*in = incoming{}
	g.node.Step(g.now, raft.Message{From: from, To: s.h.opts.Member, Term: c.Term, Body: &raft.Snapshot{
		At: c.At, Conf: c.Conf, ConfIndex: c.ConfIndex, Handle: handle}})
}

// install hands a received state to the applier; the log is reset once it is in
// place.
func (s *stepper) install(g *Group, in *raft.Snapshot) {
	for i := range g.step.received {
		if r := &g.step.received[i]; r.handle == in.Handle {
			s.h.applier.queue.push(toApply{g: g, install: r})
			s.h.mark(applyStage)
			return
		}
	}
	invariant.Check(false, "no snapshot has the handle %d", in.Handle)
}

// install replaces the state by a received one. Nobody can say what became of the
// proposals that it may contain (rule 13).
func (a *applier) install(g *Group, r *received) {
	snapshots, ok := g.machine.(Snapshots)
	invariant.Check(ok, "group %d was sent a snapshot that its machine cannot load", g.id)
	chunks := r.chunks
	err := snapshots.Load(r.at, r.conf, func() (chunk []byte, ok bool) {
		if len(chunks) == 0 {
			return nil, false
		}
		chunk, chunks = chunks[0], chunks[1:]
		return chunk, true
	})
	if err != nil {
		a.h.fail(err)
		return
	}
	g.lastDone.Store(uint64(r.at.Index))
	g.apply.term = max(g.apply.term, r.at.Term)
	var count, bytes int
	a.results, count, bytes = g.pending.jump(a.results, r.at.Term)
	g.admitted(-count, -bytes)
	a.results = g.changes.end(a.results, func(x *confCall) (bool, error) { return x.index <= r.at.Index, ErrTimeoutLeader })
	a.h.persister.queue.push(toPersist{g: g, installed: true})
	a.h.mark(persistStage)
	a.visible(g, r.at.Index)
}

// closeOutgoing gives back the states that no task has any more.
func (g *Group) closeOutgoing() (err error) {
	for _, o := range g.step.outgoing {
		if o.frozen != nil && o.due != env.Never {
			err = errors.Join(err, o.frozen.Close())
		}
	}
	g.step.outgoing = nil
	return err
}
