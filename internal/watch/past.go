package watch

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// readPast reads what a group is owed from disk: more than a run, since rows that are
// read in the order of keys cost the less the more they are. It returns the first run
// and keeps the others for whoever asks for them next.
func (h *Hub) readPast(g *group, view *mvcc.View, from, upto id.Revision) (*run, error) {
	allowance, events := h.runs.allowance(h.limits.bytes, h.limits.ahead)
	list, kept, err := h.load(g, view, from, min(upto, view.Revision), allowance, events)
	h.runs.readAhead(g, list, allowance, kept, h.limits.cache)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// load reads about so many events, and makes runs of them, at least one.
func (h *Hub) load(g *group, view *mvcc.View, from, upto id.Revision, most, events int) (list []*run, kept int, err error) {
	past, err := view.Past(from)
	if err != nil {
		return nil, 0, err
	}
	defer past.Close()
	if upto, err = h.keep(g, past, from, upto, most, events); err != nil {
		return nil, 0, err
	}
	kept = past.Kept()
	if err := past.Load(min(kept*(most/events+1), most), 2*most, h.opts.Pause); err != nil {
		return nil, 0, err
	}
	if past.Kept() < kept {
		upto = past.Upto()
	}
	list, err = h.cut(g, view, past, from, upto)
	return list, past.Kept(), err
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

// cut makes runs of what was kept and loaded, at least one.
func (h *Hub) cut(g *group, view *mvcc.View, past *mvcc.Past, from, upto id.Revision) (list []*run, err error) {
	begin := func(from id.Revision) *run {
		r := &run{group: g, from: from, upto: upto, hi: view.Revision, past: true}
		list = append(list, r)
		return r
	}
	var e mvcc.Event
	var previous []byte
	r, now := begin(from), from-1
	r.used = true // by the one who reads
	room := past.Bytes()/max(past.Kept(), 1) + 16
	for i := range past.Kept() {
		ok := past.Event(i, &e)
		if e.Revision > now {
			if now = e.Revision; r.full(&h.limits) {
				r.upto = now - 1
				r = begin(now)
			}
		}
		if !ok {
			continue
		}
		if g.prev {
			if previous, err = view.AppendPrevious(previous[:0], &e); err != nil {
				return nil, err
			}
		}
		if r.events == nil {
			r.events = make([]byte, 0, min(h.limits.bytes+h.limits.bytes/8, (past.Kept()-i)*room))
		}
		r.add(&e, previous)
	}
	return list, nil
}
