package host

import (
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// outgoing is a state on its way to one follower. The stepper owns it, but for
// frozen and loan, which are the applier's until it has frozen the state.
type outgoing struct {
	to   id.Member
	term id.Term
	seq  id.Seq

	// startAt is when the state is to be frozen.
	startAt env.Instant
	begun   bool
	// floor is an index that the state is not behind.
	floor id.Index
	// ready says that frozen and all that follows is set.
	ready  bool
	frozen Frozen
	loan   *loan
	err    error
	at     raft.Position
	conf   raft.PlacedConf

	// window are the chunks from number acked on that were read; those before sent
	// have left. ended says that the last one has been read.
	window         []sentChunk
	acked, sent    int
	reading, ended bool
	resendAt       env.Instant
	bytes          int64 // with a receipt
	since          env.Instant
	// moved is when the follower last got on.
	moved env.Instant

	// caughtUp, once all chunks are taken in, is where the follower must be before
	// the log that it needs may go; match is where it is.
	arrived         bool
	caughtUp, match id.Index
}

func (o *outgoing) news(stage SnapshotStage, now env.Instant) SnapshotNews {
	return SnapshotNews{Member: o.to, Sending: true, At: o.at, Stage: stage, Bytes: o.bytes, Took: now.Sub(o.since)}
}

type sentChunk struct {
	bytes []byte
	last  bool
}

// readChunk is what a task has read.
type readChunk struct {
	o *outgoing
	sentChunk
	err  error
	took time.Duration
}

// beginSave has the state frozen for a follower.
func (s *stepper) beginSave(g *Group, to id.Member) {
	if _, ok := g.machine.(Snapshots); !ok {
		g.node.SnapshotFailed(to)
		return
	}
	t := &g.step.transfers
	t.numbered++
	o := &outgoing{to: to, term: g.step.leaderTerm, seq: t.numbered, startAt: g.now, moved: g.now}
	for i := range t.again {
		if a := &t.again[i]; a.member == to {
			o.startAt = max(o.startAt, a.at)
		}
	}
	t.outgoing = append(t.outgoing, o)
}

// failed ends a transfer: the follower may ask for another.
func (s *stepper) failed(g *Group, o *outgoing, wait bool) {
	t := &g.step.transfers
	o.term = 0 // nobody wants it any more
	g.node.SnapshotFailed(o.to)
	if !wait {
		return
	}
	keep := t.again[:0]
	for _, a := range t.again {
		if a.at > g.now && a.member != o.to {
			keep = append(keep, a)
		}
	}
	t.again = append(keep, againAt{o.to, g.now.Add(againPause)})
}

// wanted says whether a state is still to be sent, or waited for.
func (s *stepper) wanted(g *Group, o *outgoing) bool {
	if o.term != g.step.leaderTerm || !s.leads(g) {
		return false
	}
	_, snapshot, ok := g.node.Follows(o.to)
	return ok && (snapshot || o.arrived)
}

// drive does what is due for one state; false ends it.
func (s *stepper) drive(g *Group, o *outgoing) bool {
	switch {
	case !s.wanted(g, o):
		return false
	case !o.begun:
		if o.startAt <= g.now {
			o.begun, o.floor = true, g.Applied()
			s.hold(g) // before the state is frozen: the log behind it must not go
			s.h.applier.queue.push(toApply{g: g, freeze: s.h.frozenFor(g, o)})
			s.h.mark(applyStage)
		}
		return true
	case !o.ready:
		return true
	case o.arrived:
		if match, _, _ := g.node.Follows(o.to); match > o.match {
			o.match, o.moved = match, g.now
		}
		return o.match < o.caughtUp && g.now.Sub(o.moved) < transferPatience
	case g.now.Sub(o.moved) >= transferPatience:
		s.failed(g, o, false)
		return false
	}
	if o.sent > o.acked && o.resendAt <= g.now {
		o.sent = o.acked
	}
	if s.paced > g.now {
		return true
	}
	switch {
	case o.sent < o.acked+len(o.window):
		s.paced = g.now.Add(s.bulkPause(g))
		s.sendChunk(g, o)
	case o.mayRead():
		s.paced = g.now.Add(s.bulkPause(g))
		s.readChunk(g, o)
	}
	return true
}

func (o *outgoing) mayRead() bool { return !o.reading && !o.ended && len(o.window) < windowChunks }

// wake is when there is something to do; nothing is sent before paced.
func (o *outgoing) wake(paced env.Instant) env.Instant {
	switch {
	case !o.begun:
		return o.startAt
	case !o.ready:
		return env.Never
	}
	wake := o.moved.Add(transferPatience)
	if o.arrived {
		return wake
	}
	if o.sent > o.acked {
		wake = min(wake, o.resendAt)
	}
	if o.sent < o.acked+len(o.window) || o.mayRead() {
		wake = min(wake, paced)
	}
	return wake
}

// takeFrozen has a state back that the applier was to freeze.
func (s *stepper) takeFrozen(g *Group, o *outgoing) {
	switch {
	case o.err != nil:
		s.h.trouble(g, o.err)
		if s.wanted(g, o) {
			s.failed(g, o, true)
		}
	case !g.sends(o):
		s.giveUp(g, o.loan)
	default:
		o.at = o.frozen.At()
		o.conf = g.confAt(o.at.Index)
		if defect.On(defect.SnapshotConfOfNow) {
			o.conf = g.step.confs[len(g.step.confs)-1]
		}
		o.ready, o.moved, o.since = true, g.now, g.now
		s.h.news(g, o.news(SnapshotBegun, g.now))
	}
}

func (g *Group) sends(o *outgoing) bool {
	for _, x := range g.step.outgoing {
		if x == o {
			return true
		}
	}
	return false
}

// readChunk has a task read the next chunk.
func (s *stepper) readChunk(g *Group, o *outgoing) {
	o.reading = true
	h := s.h
	h.opts.Tasks.Go("read a saved state", func() (done bool) {
		if !o.loan.take() {
			return true
		}
		begun := h.opts.Clock.Now()
		bytes, ok, err := o.frozen.Next(h.opts.Limits.ChunkBytes)
		r := &readChunk{o: o, sentChunk: sentChunk{bytes, !ok}, err: err, took: h.opts.Clock.Now().Sub(begun)}
		h.trouble(g, o.loan.back())
		h.stepper.inbox.report(report{kind: reportRead, g: g, more: r})
		h.wake(stepStage)
		return true
	})
}

// takeRead has a chunk that was read, and sends it if it is the next.
func (s *stepper) takeRead(g *Group, r *readChunk) {
	o := r.o
	if !g.sends(o) {
		return
	}
	o.reading = false
	if r.err != nil {
		s.h.trouble(g, r.err)
		s.failed(g, o, true)
		return
	}
	o.window, o.ended = append(o.window, r.sentChunk), r.last
	if s.bulkPause(g) > 0 {
		s.paced = max(s.paced, g.now.Add(readShare*r.took))
	}
	if o.sent == o.acked+len(o.window)-1 {
		s.sendChunk(g, o)
	}
}

// sendChunk sends the next chunk of the window.
func (s *stepper) sendChunk(g *Group, o *outgoing) {
	if !s.wanted(g, o) {
		return
	}
	c := &o.window[o.sent-o.acked]
	s.send(Envelope{Group: g.id, To: o.to, Snapshot: &SnapshotChunk{At: o.at, Conf: o.conf.Conf, ConfIndex: o.conf.Index,
		Term: o.term, Seq: o.seq, Number: o.sent, Last: c.last, Bytes: c.bytes}})
	o.sent++
	o.resendAt = g.now.Add(s.h.resendPause())
}

// takeReceipt moves a window on.
func (s *stepper) takeReceipt(g *Group, from id.Member, r *Receipt) {
	for _, o := range g.step.outgoing {
		if o.to == from && o.term == r.Term && o.seq == r.Seq && o.ready && !o.arrived && s.wanted(g, o) {
			s.receipted(g, o, r)
			return
		}
	}
}

func (s *stepper) receipted(g *Group, o *outgoing, r *Receipt) {
	switch {
	case r.Verdict == ReceiptRefused:
		s.failed(g, o, true)
		return
	case r.Verdict == ReceiptUnknown && o.acked > 0 && g.now.Sub(o.moved) >= s.h.resendPause():
		// It has lost what it had, and the beginning is no longer here. (An answer to
		// a chunk that overtook the first one would be older.)
		s.failed(g, o, false)
		return
	case r.Verdict != ReceiptTaken, r.Next <= o.acked, r.Next > o.acked+len(o.window):
		return
	}
	taken := r.Next - o.acked
	for _, c := range o.window[:taken] {
		o.bytes += int64(len(c.bytes))
	}
	o.window = append(o.window[:0:0], o.window[taken:]...)
	o.acked, o.sent = r.Next, max(o.sent, r.Next)
	o.moved, o.resendAt = g.now, g.now.Add(s.h.resendPause())
	if !o.ended || len(o.window) > 0 {
		return
	}
	o.arrived, o.match, o.caughtUp = true, o.at.Index, g.node.Status().Last.Index
	s.h.news(g, o.news(SnapshotComplete, g.now))
	s.giveUp(g, o.loan)
	g.node.SnapshotSent(g.now, o.to, o.at.Index)
}

// hold tells the persister from where on the log is needed by those who are sent a
// state, whatever the retention; 0 is from nowhere.
func (s *stepper) hold(g *Group) {
	hold := id.Index(0)
	for _, o := range g.step.outgoing {
		if !o.begun {
			continue
		}
		from := max(o.floor, o.at.Index, o.match) + 1
		if hold == 0 || from < hold {
			hold = from
		}
	}
	g.held.Store(uint64(hold))
	if hold == 0 {
		g.hurry.Store(0)
	}
}
