// Package watch is the fan-out of changes to those who watch them, once they are
// visible (rule 25, engine.md (e)).
//
// A Subscription is one cursor: the next revision that its client is owed. Nothing
// is queued for it. After each publication the Hub finds the groups of equal interest
// that the new events concern and marks their subscriptions; the sender of each
// Stream then pulls, from the ring of newest events or, where the cursor has fallen
// off it, from the history on disk. So a client that does not read costs its cursor,
// and what several clients want of the same revisions is put together once.
//
//	revision        7    8    9   10   11   12   13
//	                     |<- history ->|<---- ring ---->|
//	cursors         7: compacted meanwhile, cancelled
//	                          9: reads history up to 13 at most, then looks again
//	                                        12: reads the ring
//	                                                   14 = hi + 1: waits
//
// The highest revision of the ring, hi, is that of the view which it is part of: the
// one authority over what has happened. The Hub works off the ring up to hi in
// slices; done is how far it has come. A subscription that is not marked has been
// shown everything up to done, whatever its cursor says: its cursor is moved only
// when it is needed.
//
// Locks: Hub.mu before Stream.mu; group.building alone, or before the cache's. The
// applier takes none of them.
package watch

import (
	"sync"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// Options are what a Hub is made of.
type Options struct {
	// View returns the latest view published; any goroutine may call it.
	View func() *mvcc.View
	// Tasks runs the hub's own work.
	Tasks env.Tasks
	// Slowly runs a read of the history, a few at a time; nil runs it at once. Pause is
	// called between slices of it, some tens of microseconds each, so that others go
	// first; nil is none.
	Slowly func(read func())
	Pause  func()
	// FS is the disk and Dir a folder on it for history that is turned round for those
	// who are far behind; without FS none is. Room is how many bytes there are to spare;
	// nil: enough. Far says who is far behind; zero is the usual.
	FS   env.FS
	Dir  string
	Room func() int64
	Far  Far
	// Unturned is told that none is turned round any more, and why: it has failed once.
	// nil is nobody.
	Unturned func(error)
	// Rights returns what permissions depend on, as it is published: watches are judged
	// again when it is another one. nil: they are judged once.
	Rights func() any
	// FragmentBytes is the size from which on a response is split for those who asked
	// for it.
	FragmentBytes int
}

// Far is how history is turned round: for who is at least so many revisions behind, in
// piles of so many bytes, with so many bytes in memory. What is seen does not depend on it.
type Far struct {
	Revisions    id.Revision
	Pile, Memory int
}

// usualFar suits members; a pile of events is small beside the processor's caches.
var usualFar = Far{Revisions: 50_000, Pile: 1 << 20, Memory: 4 << 20}

// Hub finds those whom an event concerns.
type Hub struct {
	opts   Options
	limits limits
	// live counts the subscriptions in groups; with none there is nothing to do.
	live atomic.Int64
	// busy says that a task is under way.
	busy atomic.Bool
	// done is the revision up to which events have been matched.
	done   atomic.Int64
	closed atomic.Bool
	sent   atomic.Uint64 // events

	mu      sync.Mutex
	index   index
	touched []*group
	touch   func(*group) // bound once
	event   mvcc.Event   // in hand
	asking  []asking
	streams []*Stream // in no order that means anything
	runs    cache
	turns   turns
}

// asking is a stream to be woken when done has come to a revision.
type asking struct {
	stream *Stream
	target id.Revision
}

// New makes a hub. Its Published is to be called after every publication.
func New(opts Options) *Hub {
	h := &Hub{opts: opts, limits: usual}
	h.runs.ahead, h.runs.mean = h.limits.ahead, firstMean
	h.touch = h.touchGroup
	if opts.Far == (Far{}) {
		h.opts.Far = usualFar
	}
	if opts.Slowly == nil {
		h.opts.Slowly = func(read func()) { read() }
	}
	if opts.Pause == nil {
		h.opts.Pause = func() {}
	}
	return h
}

// group is the subscriptions of one interest.
type group struct {
	interest
	next  *group // of the same range, with other filters
	place int    // in index.groups

	subs []*Subscription // under Hub.mu
	// shared says that there is more than one: what is read for one is kept.
	shared atomic.Bool
	// first and last are the revisions of the group's events in the slice in hand.
	first, last id.Revision
	// building is held by whoever puts a run together, so that others wait for it
	// instead of doing the same.
	building sync.Mutex
	runs     []*run // under cache.mu
	// kept is how many runs there are.
	kept atomic.Int64
	// late is how many of subs are behind.
	late atomic.Int64
}

// Published tells the hub that a newer view can be had. It never waits, and does
// next to nothing while nobody watches.
func (h *Hub) Published() {
	if h.live.Load() > 0 && h.busy.CompareAndSwap(false, true) {
		h.opts.Tasks.Go("watch", h.step)
	}
}

// step is the hub's task: a slice of matching.
func (h *Hub) step() (done bool) {
	if h.match() {
		return false
	}
	h.busy.Store(false)
	// Who published before this found the hub busy, and counts on it.
	return !h.behind() || !h.busy.CompareAndSwap(false, true)
}

func (h *Hub) behind() bool {
	return h.live.Load() > 0 && int64(h.opts.View().Revision) > h.done.Load()
}

// Close ends all streams, those that are opened later too: their Next returns
// ErrClosed.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed.Store(true)
	for _, s := range h.streams {
		s.wake()
	}
}

// match marks those whom the next events concern; more says that there are others.
func (h *Hub) match() (more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	view := h.opts.View()
	from, upto := id.Revision(h.done.Load())+1, view.Revision
	if from > upto || h.live.Load() == 0 {
		return false
	}
	if walk, ok := view.Recent(from); ok {
		upto, more = h.matchRing(&walk, upto)
	} else { // it has gone by, or a snapshot came: anything may have happened
		for _, g := range h.index.groups {
			g.first, g.last = from, upto
		}
		h.touched = append(h.touched, h.index.groups...)
	}
	for i, g := range h.touched {
		mark(g.subs, g.first, g.last)
		g.first, g.last = 0, 0
		h.touched[i] = nil
	}
	h.touched = h.touched[:0]
	// After the marks: who reads done first and finds a subscription unmarked then
	// knows that it has seen everything up to there.
	h.done.Store(int64(upto))
	h.wakeAsking()
	return more
}

// matchRing matches a slice of whole revisions, and returns how far it came.
func (h *Hub) matchRing(walk *mvcc.Recent, hi id.Revision) (upto id.Revision, more bool) {
	e := &h.event
	var last id.Revision
	for n := 0; ; n++ {
		if !walk.Next(e) {
			*e = mvcc.Event{} // holds a piece of the ring
			return hi, false
		}
		if n >= h.limits.matches && e.Revision > last {
			last = e.Revision - 1
			*e = mvcc.Event{}
			return last, true
		}
		last = e.Revision
		h.index.visit(e.Key, h.touch)
	}
}

// touchGroup notes that the event in hand concerns a group.
func (h *Hub) touchGroup(g *group) {
	if !g.takes(&h.event) {
		return
	}
	if g.first == 0 {
		g.first = h.event.Revision
		h.touched = append(h.touched, g)
	}
	g.last = h.event.Revision
}

// wakeAsking wakes the streams that have waited for done to come where it is.
func (h *Hub) wakeAsking() {
	still := h.asking[:0]
	for _, a := range h.asking {
		if int64(a.target) > h.done.Load() {
			still = append(still, a)
		} else {
			a.stream.wake()
		}
	}
	clear(h.asking[len(still):])
	h.asking = still
}

// ask has a stream woken when done has come to a revision.
func (h *Hub) ask(s *Stream, target id.Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asking = append(h.asking, asking{s, target})
	h.wakeAsking()
}

// join puts a subscription into its group, and returns the view of that moment: all
// events after it will be marked. The caller holds mu.
func (h *Hub) join(s *Subscription) *mvcc.View {
	first := h.live.Add(1) == 1
	view := h.opts.View() // after live is seen: whoever publishes later calls the task
	if first {
		h.done.Store(int64(view.Revision))
	}
	g := h.index.find(&s.interest)
	if g == nil {
		g = &group{interest: s.interest}
		h.index.add(g)
	}
	s.group, s.place, s.joined = g, len(g.subs), true
	g.subs = append(g.subs, s)
	g.shared.Store(len(g.subs) > 1)
	return view
}

// leave takes a subscription out of its group; again is nothing. The caller holds
// mu and the stream's.
func (h *Hub) leave(s *Subscription) {
	g := s.group
	if !s.joined {
		return
	}
	s.joined = false
	s.keepUp()
	last := len(g.subs) - 1
	g.subs[s.place] = g.subs[last]
	g.subs[s.place].place = s.place
	g.subs[last] = nil
	g.subs = g.subs[:last]
	g.shared.Store(last > 1)
	if last == 0 {
		h.index.remove(g)
		h.runs.drop(g)
	}
	h.live.Add(-1)
}

// mark tells subscriptions that they are owed events from revisions first to last.
func mark(subs []*Subscription, first, last id.Revision) {
	var locked *Stream
	for _, sub := range subs {
		if sub.stream != locked {
			if locked != nil {
				locked.mu.Unlock()
			}
			locked = sub.stream
			locked.mu.Lock()
		}
		sub.owe(first, last)
	}
	if locked != nil {
		locked.mu.Unlock()
	}
}
