package mvcc

import (
	"slices"
	"sort"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
)

// ringBudget is how much memory the newest events may take (rule 35).
const ringBudget = 32 << 20

const (
	// Segments begin at leastSegment bytes of events and grow with the ring, so that
	// a small store has a small one.
	leastSegment = 4 << 10
	mostSegment  = 256 << 10
	// leastSegments is how many there are at least once the budget is used up.
	leastSegments = 8
	// placeShare is how many bytes of events there are for each place of a segment.
	placeShare = 128
	placeBytes = 48
)

// ring is the applier's side of the event ring (rule 25): the newest events as
// they go to clients, encoded once. It takes no lock. Views see what was in it when
// they were made: the applier writes behind what they see, and drops the oldest
// segments from its own list only.
type ring struct {
	budget   int
	segments []*segment // a new slice whenever one comes or goes
	n, used  int        // places and bytes taken of the last one
	bytes    int        // of all
	low      id.Revision
}

// segment is a piece of the ring of fixed size. n counts its places; it is written
// once, when the next segment is begun.
type segment struct {
	places []place
	data   []byte
	n      int
}

// place says where an event lies in its segment, and what a watch has to know of it
// before it looks at it.
type place struct {
	main, prevMain id.Revision
	sub, prevSub   uint32
	at, end        uint32 // of the event
	key, keyEnd    uint32
	dead           bool
}

func (s *segment) bytes() int { return len(s.data) + placeBytes*len(s.places) }

// reset forgets all events; the next one is of low.
func (r *ring) reset(low id.Revision) {
	r.segments, r.n, r.used, r.bytes, r.low = nil, 0, 0, 0, low
}

// add appends an event. row is that of the version as appendVersion makes it.
func (r *ring) add(key, row []byte, main id.Revision, sub uint32, c *change) {
	size := eventSize(len(key), row, c.dead)
	if len(r.segments) == 0 || r.n == len(r.last().places) || r.used+size > len(r.last().data) {
		r.grow(size)
	}
	s := r.last()
	at := r.used
	out, keyAt := appendEvent(s.data[:at:at+size], key, row, c.dead)
	s.places[r.n] = place{
		main: main, sub: sub, prevMain: c.prevMain, prevSub: c.prevSub, dead: c.dead,
		at: uint32(at), end: uint32(len(out)), key: uint32(keyAt), keyEnd: uint32(keyAt + len(key)),
	}
	r.n++
	r.used = len(out)
}

func (r *ring) last() *segment { return r.segments[len(r.segments)-1] }

// grow begins a segment that has room for an event of size bytes, and drops those
// that are beyond the budget.
func (r *ring) grow(size int) {
	room := max(min(max(r.bytes, leastSegment), mostSegment, r.budget/leastSegments), size)
	s := &segment{data: make([]byte, room), places: make([]place, max(room/placeShare, 1))}
	keep := r.segments
	if len(keep) > 0 {
		r.last().n = r.n
	}
	r.bytes += s.bytes()
	for len(keep) > 0 && r.bytes > r.budget {
		oldest := keep[0]
		r.low = max(r.low, oldest.places[oldest.n-1].main+1)
		r.bytes -= oldest.bytes()
		keep = keep[1:]
	}
	r.segments = append(slices.Clone(keep), s)
	r.n, r.used = 0, 0
}

// ringView is the ring as a view sees it.
type ringView struct {
	segments []*segment
	n        int // places of the last one
	low      id.Revision
}

func (r *ring) view() ringView { return ringView{r.segments, r.n, r.low} }

// count is how many places of a segment are seen.
func (r *ringView) count(segment int) int {
	if segment == len(r.segments)-1 {
		return r.n
	}
	return r.segments[segment].n
}

// seek finds the first event at or after (main, sub); at == count(segment) if there
// is none.
func (r *ringView) seek(main id.Revision, sub uint32) (segment, at int) {
	before := func(p *place) bool { return p.main < main || p.main == main && p.sub < sub }
	segment = sort.Search(len(r.segments), func(i int) bool {
		n := r.count(i)
		return n == 0 || !before(&r.segments[i].places[n-1])
	})
	if segment == len(r.segments) {
		return segment, 0
	}
	places := r.segments[segment].places
	return segment, sort.Search(r.count(segment), func(i int) bool { return !before(&places[i]) })
}

// Recent walks the newest events from memory, in order.
type Recent struct {
	ringView
	segment, at int
}

// Recent starts a walk at a revision; ok is false if the ring no longer has all of
// the events from there on, or never had them. The walk ends with the view's
// revision.
func (v *View) Recent(from id.Revision) (walk Recent, ok bool) {
	if from < v.ring.low && !(defect.On(defect.RingEdgeSkipped) && from+1 == v.ring.low) {
		return Recent{}, false
	}
	segment, at := v.ring.seek(from, 0)
	return Recent{v.ring, segment, at}, true
}

// Oldest is the first revision of which the ring has the events.
func (v *View) Oldest() id.Revision { return v.ring.low }

// Next moves to the next event; ok is false after the last. What e refers to is
// never changed, and must not be held for long: it keeps a piece of the ring alive.
func (w *Recent) Next(e *Event) (ok bool) {
	for w.segment < len(w.segments) {
		if w.at < w.count(w.segment) {
			s := w.segments[w.segment]
			s.event(&s.places[w.at], e)
			w.at++
			return true
		}
		w.segment++
		w.at = 0
	}
	return false
}

func (s *segment) event(p *place, e *Event) {
	*e = Event{
		Revision: p.main, Sub: p.sub, Deleted: p.dead, Key: s.data[p.key:p.keyEnd:p.keyEnd],
		Body: s.data[p.at:p.end:p.end], prevMain: p.prevMain, prevSub: p.prevSub,
	}
}

// find returns the body of one event, nil if the ring does not have it.
func (r *ringView) find(main id.Revision, sub uint32) []byte {
	segment, at := r.seek(main, sub)
	if segment == len(r.segments) || at == r.count(segment) {
		return nil
	}
	s := r.segments[segment]
	if p := &s.places[at]; p.main == main && p.sub == sub {
		return s.data[p.at:p.end:p.end]
	}
	return nil
}
