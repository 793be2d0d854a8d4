package watch

import (
	"encoding/binary"
	"slices"
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
	// hi is the newest revision there was.
	hi id.Revision
	// past says that it was read from disk.
	past bool
}

// placed says where the events of a revision begin.
type placed struct {
	revision id.Revision
	at       int
}

// limits bound slices of the hub's work; each ends with a revision.
type limits struct {
	// matches are the events matched in one go.
	matches int
	// A run is of so many bytes and revisions, out of so many events looked at. What a
	// stalled client holds in memory is about one run.
	bytes, revisions, rows int
	// cache is how many bytes are kept of runs that several may want.
	cache int
}

// usual are the limits of every hub.
var usual = limits{matches: 4096, bytes: 128 << 10, revisions: 1000, rows: 8192, cache: 8 << 20}

// tagEvents is that of WatchResponse.events, tagPrevious that of Event.prev_kv.
const (
	tagEvents   = 11<<3 | 2
	tagPrevious = 3<<3 | 2
)

// walk is the events from a revision on, from the ring or from disk.
type walk interface {
	Next(*mvcc.Event) (ok bool, err error)
	Load(*mvcc.Event) (ok bool, err error)
	Close()
}

// read returns what a group is owed from a revision on: up to upto, or to where a
// run ends, or to where another has been put together that begins at or before it.
// Errors: command.ErrCompacted, mvcc.ErrReplaced, engine.ErrIterators,
// *mvcc.DamageError.
func (h *Hub) read(g *group, from, upto id.Revision) (*run, error) {
	if !g.shared.Load() {
		return h.build(g, from, upto)
	}
	g.building.Lock()
	defer g.building.Unlock()
	if r := h.runs.find(g, from); r != nil {
		return r, nil
	}
	r, err := h.build(g, from, upto)
	if err == nil {
		h.runs.add(r, h.limits.cache)
	}
	return r, err
}

// build puts a run together.
func (h *Hub) build(g *group, from, upto id.Revision) (r *run, err error) {
	view := h.opts.View()
	if ring, ok := view.Recent(from); ok {
		return h.collect(g, view, &ring, from, upto)
	}
	h.opts.Slowly(func() {
		// The ring may have been refilled by now, and what was the newest is not.
		view = h.opts.View()
		var past *mvcc.Past
		if past, err = view.Past(from); err != nil {
			return
		}
		defer past.Close()
		if r, err = h.collect(g, view, past, from, upto); err == nil {
			r.past = true
		}
	})
	return r, err
}

// collect gathers whole revisions.
func (h *Hub) collect(g *group, view *mvcc.View, from walk, first, upto id.Revision) (*run, error) {
	r := &run{group: g, from: first, hi: view.Revision, upto: min(upto, view.Revision)}
	var e mvcc.Event
	var previous []byte
	var now id.Revision
	for rows := 0; ; rows++ {
		ok, err := from.Next(&e)
		if err != nil {
			return nil, err
		}
		if !ok {
			return r, nil
		}
		if e.Revision > now {
			full := rows >= h.limits.rows || len(r.revisions) >= h.limits.revisions || len(r.events) >= h.limits.bytes
			if e.Revision > r.upto || full {
				r.upto = min(r.upto, e.Revision-1)
				return r, nil
			}
			now = e.Revision
		}
		if !g.covers(e.Key) || !g.takes(&e) {
			continue
		}
		if ok, err = from.Load(&e); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		if g.prev {
			if previous, err = view.AppendPrevious(previous[:0], &e); err != nil {
				return nil, err
			}
		}
		r.add(&e, previous)
	}
}

func (r *run) add(e *mvcc.Event, previous []byte) {
	if n := len(r.revisions); n == 0 || r.revisions[n-1].revision < e.Revision {
		r.revisions = append(r.revisions, placed{e.Revision, len(r.events)})
	}
	size := len(e.Body)
	if len(previous) > 0 {
		size += 1 + protowire.SizeBytes(len(previous))
	}
	if r.events == nil {
		r.events = make([]byte, 0, size+8)
	}
	r.events = binary.AppendUvarint(append(r.events, tagEvents), uint64(size))
	r.events = append(r.events, e.Body...)
	if len(previous) > 0 {
		r.events = binary.AppendUvarint(append(r.events, tagPrevious), uint64(len(previous)))
		r.events = append(r.events, previous...)
	}
}

// since returns the events from a revision on, and the revision of the last.
func (r *run) since(from id.Revision) (events []byte, last id.Revision) {
	n := len(r.revisions)
	i := sort.Search(n, func(i int) bool { return r.revisions[i].revision >= from })
	if i == n {
		return nil, 0
	}
	return r.events[r.revisions[i].at:], r.revisions[n-1].revision
}

// cache keeps the latest runs of groups that have several subscriptions.
type cache struct {
	mu    sync.Mutex
	queue []*run // oldest first
	bytes int
}

func (c *cache) find(g *group, from id.Revision) *run {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(g.runs) - 1; i >= 0; i-- {
		if r := g.runs[i]; r.from <= from && from <= r.upto {
			return r
		}
	}
	return nil
}

func (r *run) bytes() int { return 128 + len(r.revisions)*16 + cap(r.events) }

func (c *cache) add(r *run, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.group.runs = append(r.group.runs, r)
	c.queue = append(c.queue, r)
	c.bytes += r.bytes()
	for c.bytes > most && len(c.queue) > 0 {
		oldest := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.bytes -= oldest.bytes()
		oldest.group.forget(oldest)
	}
}

// forget takes a run off its group; it is among the oldest ones.
func (g *group) forget(r *run) {
	if i := slices.Index(g.runs, r); i >= 0 {
		g.runs = slices.Delete(g.runs, i, i+1)
	}
}

// drop forgets a group that has no subscription any more. Its runs go when their
// turn in the queue comes.
func (c *cache) drop(g *group) {
	c.mu.Lock()
	g.runs = nil
	c.mu.Unlock()
}
