package watch

import (
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// readPast reads what a group is owed from disk: more than a run, since rows that are
// read in the order of keys cost the less the more they are. It returns the first run
// and keeps the others for whoever asks for them next.
func (h *Hub) readPast(g *group, view *mvcc.View, from, upto id.Revision) (*run, error) {
	allowance, events := h.runs.allowance(h.limits.bytes, h.limits.ahead)
	list, kept, bytes, err := h.load(g, view, from, min(upto, view.Revision), allowance, events)
	h.runs.readAhead(g, list, allowance, kept, bytes, h.limits.cache)
	if err != nil {
		return nil, err
	}
	list[0].complete()
	return list[0], nil
}

// load reads about so many events, and makes runs of them, at least one. It returns
// how many events it read, and what they take in memory.
func (h *Hub) load(g *group, view *mvcc.View, from, upto id.Revision, most, events int) (list []*run, kept, bytes int, err error) {
	if from < view.Compacted {
		return nil, 0, 0, command.ErrCompacted
	}
	if rows, end := h.sorted(g, from, upto); rows != nil {
		kept, bytes = rows.Kept(), rows.Memory()
		list, err = h.cut(g, view, rows, from, end)
		return list, kept, bytes, err
	}
	past, err := view.Past(from)
	if err != nil {
		return nil, 0, 0, err
	}
	defer past.Close()
	if upto, err = h.keep(g, past, from, upto, most, events); err != nil {
		return nil, 0, 0, err
	}
	kept = past.Kept()
	if err := past.Load(2*most, h.opts.Pause); err != nil {
		return nil, 0, 0, err
	}
	if past.Kept() < kept {
		upto = past.Upto()
	}
	list, err = h.cut(g, view, past, from, upto)
	return list, past.Kept(), past.Memory(), err
}

// keep has the walk keep about so many events that a group is to see, whole revisions
// and keys of about most bytes, and returns up to where they go.
func (h *Hub) keep(g *group, past *mvcc.Past, from, upto id.Revision, most, events int) (id.Revision, error) {
	var e mvcc.Event
	now := from - 1
	for rows := 0; ; rows++ {
		ok, err := past.Next(&e)
		if err != nil || !ok {
			return upto, err
		}
		if e.Revision > now {
			if e.Revision > upto || rows >= h.limits.pastRows || past.Kept() >= events || past.KeyBytes() >= most {
				return min(upto, e.Revision-1), nil
			}
			now = e.Revision
		}
		if g.covers(e.Key) && g.takes(&e) {
			past.Keep(&e)
		}
	}
}

// source is events that were read together: an mvcc.Past, or a pile.
type source interface {
	Kept() int
	Size(i int) (size int, main id.Revision)
	Event(i int, e *mvcc.Event) (ok bool)
	Memory() int
}

// cut makes runs of what was read, at least one.
func (h *Hub) cut(g *group, view *mvcc.View, past source, from, upto id.Revision) (list []*run, err error) {
	// What somebody else may be shown as well is put together once and for all; so is
	// what has to be looked up in the view of now.
	later := &batch{past: past}
	if g.prev || g.shared.Load() {
		later = nil
	}
	begin := func(from id.Revision, i int) *run {
		r := &run{group: g, from: from, upto: upto, hi: view.Revision, past: true, batch: later, first: i, end: past.Kept()}
		list = append(list, r)
		return r
	}
	r, now := begin(from, 0), from-1
	r.used = true // by the one who reads
	size, revisions := 0, 0
	for i := range past.Kept() {
		body, main := past.Size(i)
		if main > now {
			now = main
			if size >= h.limits.bytes || revisions >= h.limits.revisions {
				r.upto, r.end = now-1, i
				r, size, revisions = begin(now, i), 0, 0
			}
			revisions++
		}
		size += eventSize(body)
		r.size, r.places = size, revisions
	}
	if later != nil {
		later.bytes = past.Memory()
		later.unread.Store(int64(len(list)))
		return list, nil
	}
	defer release(past)
	for _, r := range list {
		if err := r.fill(past, view); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// batch is what runs read from disk together have in common until they are put
// together, each when it is asked for: to have all of them as they go to the client
// would take the memory twice.
type batch struct {
	past source
	// unread is how many of its runs were not put together yet.
	unread atomic.Int64
	// bytes that it takes as long as one of its runs is kept; so many are (both under
	// cache.mu, once there are runs).
	bytes, runs int
}

// complete puts a run together that was read from disk.
func (r *run) complete() {
	if r.batch != nil {
		r.once.Do(func() {
			_ = r.fill(r.batch.past, nil) // fails for previous values only
			if r.batch.unread.Add(-1) == 0 {
				release(r.batch.past)
			}
		})
	}
}

// fill puts together what lies between first and end of what was read. view is for
// previous values. Errors: mvcc.ErrReplaced, engine.ErrIterators, *mvcc.DamageError.
func (r *run) fill(past source, view *mvcc.View) (err error) {
	var e mvcc.Event
	var previous []byte
	r.events, r.revisions = make([]byte, 0, r.size), make([]placed, 0, r.places)
	for i := r.first; i < r.end; i++ {
		if !past.Event(i, &e) {
			continue
		}
		if r.group.prev {
			if previous, err = view.AppendPrevious(previous[:0], &e); err != nil {
				return err
			}
		}
		r.add(&e, previous)
	}
	return nil
}
