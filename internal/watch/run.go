package watch

import (
	"encoding/binary"
	"sort"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// run is what a group sees of a stretch of revisions, as it goes to its clients.
type run struct {
	group      *group
	from, upto id.Revision
	// revisions are those that have events, in order.
	revisions []placed
	// events is the field events of pb.WatchResponse, once for each.
	events []byte
	count  uint64
	// hi is the newest revision there was.
	hi id.Revision
	// past says that it was read from disk, used that somebody has asked for it (under
	// cache.mu).
	past, used bool

	// Of one that was read from disk: events first to end-1 of batch, about size bytes, of
	// so many revisions. revisions, events and count are there once it is complete.
	batch                    *batch
	once                     sync.Once
	first, end, size, places int
}

// placed says where the events of a revision begin.
type placed struct {
	revision id.Revision
	at       int
	before   uint64 // events of the run before it
}

// limits bound slices of the hub's work; each ends with a revision.
type limits struct {
	// matches are the events matched in one go.
	matches int
	// A run is of so many bytes and revisions, out of so many events looked at. What a
	// stalled client holds in memory is about two or three runs.
	bytes, revisions, rows int
	// What is read from disk in one go is of so many bytes, about, out of so many
	// events looked at.
	ahead, pastRows int
	// So many bytes of history are turned round at a time, about, and so many rows swept
	// over between two pauses.
	turned, swept int
	// cache is how many bytes are kept of runs that several may want, or that were
	// read ahead.
	cache int
}

// usual are the limits of every hub. A run with its last event and the header stays
// below 32 KB as long as values are small: the buffer that a message is put together
// in is of 32 KB then, and of 1 MB if it is larger (grpc-go's pool).
var usual = limits{matches: 4096, bytes: 31 << 10, revisions: 1000, rows: 8192,
	ahead: 16 << 20, pastRows: 128 << 10, cache: 24 << 20, turned: 256 << 20, swept: 2048}

// tagEvents is that of WatchResponse.events, tagPrevious that of Event.prev_kv.
const (
	tagEvents   = 11<<3 | 2
	tagPrevious = 3<<3 | 2
)

// read returns what a group is owed from a revision on: up to upto, or to where a
// run ends, or to where another has been put together that begins at or before it.
// Errors: command.ErrCompacted, mvcc.ErrReplaced, engine.ErrIterators,
// *mvcc.DamageError.
func (h *Hub) read(g *group, from, upto id.Revision) (*run, error) {
	shared := g.shared.Load()
	if !shared && g.kept.Load() == 0 {
		return h.build(g, from, upto)
	}
	if shared {
		g.building.Lock()
		defer g.building.Unlock()
	}
	if r := h.runs.find(g, from, !shared); r != nil {
		r.complete()
		return r, nil
	}
	return h.build(g, from, upto)
}

// build puts a run together.
func (h *Hub) build(g *group, from, upto id.Revision) (r *run, err error) {
	view := h.opts.View()
	if ring, ok := view.Recent(from); ok {
		if r, err = h.collect(g, view, &ring, from, upto); err == nil && g.shared.Load() {
			h.runs.add(r, h.limits.cache)
		}
		return r, err
	}
	if err := h.prepare(g, from); err != nil {
		return nil, err
	}
	h.opts.Slowly(func() {
		// The ring may have been refilled by now, and what was the newest is not.
		r, err = h.readPast(g, h.opts.View(), from, upto)
	})
	return r, err
}

// collect gathers whole revisions from the ring.
func (h *Hub) collect(g *group, view *mvcc.View, from *mvcc.Recent, first, upto id.Revision) (*run, error) {
	r := &run{group: g, from: first, hi: view.Revision, upto: min(upto, view.Revision)}
	var e mvcc.Event
	var previous []byte
	var now id.Revision
	for rows := 0; from.Next(&e); rows++ {
		if e.Revision > now {
			if e.Revision > r.upto || rows >= h.limits.rows || r.full(&h.limits) {
				r.upto = min(r.upto, e.Revision-1)
				return r, nil
			}
			now = e.Revision
		}
		if !g.covers(e.Key) || !g.takes(&e) {
			continue
		}
		if g.prev {
			var err error
			if previous, err = view.AppendPrevious(previous[:0], &e); err != nil {
				return nil, err
			}
		}
		r.add(&e, previous)
	}
	return r, nil
}

// full says that a run is to have no more revisions.
func (r *run) full(l *limits) bool {
	return len(r.revisions) >= l.revisions || len(r.events) >= l.bytes
}

func (r *run) add(e *mvcc.Event, previous []byte) {
	if n := len(r.revisions); n == 0 || r.revisions[n-1].revision < e.Revision {
		r.revisions = append(r.revisions, placed{e.Revision, len(r.events), r.count})
	}
	r.count++
	size := len(e.Body)
	if len(previous) > 0 {
		size += 1 + protowire.SizeBytes(len(previous))
	}
	if r.events == nil {
		r.events = make([]byte, 0, eventSize(size))
	}
	r.events = binary.AppendUvarint(append(r.events, tagEvents), uint64(size))
	r.events = append(r.events, e.Body...)
	if len(previous) > 0 {
		r.events = binary.AppendUvarint(append(r.events, tagPrevious), uint64(len(previous)))
		r.events = append(r.events, previous...)
	}
}

// eventSize is how long the field of an event is in a response.
func eventSize(body int) int { return 1 + protowire.SizeBytes(body) }

// since returns the events from a revision on, how many those are, and the revision
// of the last.
func (r *run) since(from id.Revision) (events []byte, count uint64, last id.Revision) {
	n := len(r.revisions)
	i := sort.Search(n, func(i int) bool { return r.revisions[i].revision >= from })
	if i == n {
		return nil, 0, 0
	}
	return r.events[r.revisions[i].at:], r.count - r.revisions[i].before, r.revisions[n-1].revision
}
