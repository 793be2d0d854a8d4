package watch_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/watch"
)

// promise is what a watch is owed, kept beside the product's cursor.
type promise struct {
	id         int64
	request    watch.Request
	created    bool
	next       id.Revision // the first revision not yet seen whole
	header     int64
	fragmented []*mvccpb.Event
	stuck      bool
}

// audience is a client of the random test.
type audience struct {
	*client
	promises map[int64]*promise
	// asked are the requests whose answers have not come, in order.
	asked []*promise
	// slow clients seldom read.
	slow bool
}

// expected are the facts of a revision that a watch is owed, in order.
func (w *world) expected(p *promise, revision id.Revision) (list []fact) {
	for i := range w.facts {
		f := &w.facts[i]
		if f.revision == revision && inRange(f.key, string(p.request.Key), string(p.request.End)) &&
			!(f.deleted && p.request.NoDeletes) && !(!f.deleted && p.request.NoPuts) {
			list = append(list, *f)
		}
	}
	return list
}

// judge compares events with what is owed: everything from the cursor to the last
// event, whole revisions, once, in order.
func (w *world) judge(p *promise, events []*mvccpb.Event) {
	w.t.Helper()
	last := id.Revision(events[len(events)-1].Kv.ModRevision)
	for ; p.next <= last; p.next++ {
		for _, f := range w.expected(p, p.next) {
			if len(events) > 0 && matches(&f, events[0]) {
				w.judgePrevious(p, &f, events[0])
				events = events[1:]
				continue
			}
			if f.covered && f.revision <= w.compacted {
				continue
			}
			w.t.Fatalf("watch %d of %q-%q: %+v is missing before %v", p.id, p.request.Key, p.request.End, f, events)
		}
	}
	if len(events) > 0 {
		w.t.Fatalf("watch %d of %q-%q: events that it is not owed: %v", p.id, p.request.Key, p.request.End, events)
	}
}

func matches(f *fact, e *mvccpb.Event) bool {
	if string(e.Kv.Key) != f.key || id.Revision(e.Kv.ModRevision) != f.revision || (e.Type == mvccpb.Event_DELETE) != f.deleted {
		return false
	}
	return f.deleted && e.Kv.Version == 0 && e.Kv.CreateRevision == 0 && len(e.Kv.Value) == 0 ||
		!f.deleted && string(e.Kv.Value) == f.value && e.Kv.Version == f.version && id.Revision(e.Kv.CreateRevision) == f.create
}

func (w *world) judgePrevious(p *promise, f *fact, e *mvccpb.Event) {
	w.t.Helper()
	got := e.PrevKv
	switch {
	case got == nil && (f.had == nil || !p.request.PrevKV || f.revision-1 < w.compacted):
	case got == nil, f.had == nil, !p.request.PrevKV:
		w.t.Fatalf("watch %d: %v of %+v, compacted %d", p.id, e, f, w.compacted)
	case string(got.Value) != f.had.value || id.Revision(got.ModRevision) != f.had.mod ||
		id.Revision(got.CreateRevision) != f.had.create || got.Version != f.had.version || string(got.Key) != f.key:
		w.t.Fatalf("watch %d: %v before %+v, not %+v", p.id, got, f, f.had)
	}
}

// bookmark checks that everything up to a revision has been seen.
func (w *world) bookmark(p *promise, at id.Revision) {
	w.t.Helper()
	for r := p.next; r <= at; r++ {
		for _, f := range w.expected(p, r) {
			w.t.Fatalf("watch %d was told %d and has not seen %+v", p.id, at, f)
		}
	}
}

// read takes one response and judges it.
func (a *audience) read() bool {
	w := a.w
	w.t.Helper()
	m, ok := a.next()
	if !ok {
		return false
	}
	if m.Header.Revision > int64(w.hi()) {
		w.t.Fatalf("%s: of the future", tell(m))
	}
	p := a.promises[m.WatchId]
	switch {
	case m.Created:
		a.create(m)
	case m.WatchId == watch.NoID && p == nil:
		if len(a.promises) == 0 {
			w.t.Fatalf("%s without a watch", tell(m))
		}
		for _, p := range a.promises {
			w.bookmark(p, id.Revision(m.Header.Revision))
		}
	case p == nil:
		w.t.Fatalf("%s for no watch", tell(m))
	case m.CompactRevision > 0:
		if p.next >= w.compacted || m.Header.Revision != 0 || p.stuck {
			w.t.Fatalf("%s, is owed %d", tell(m), p.next)
		}
		p.stuck = true
	case m.Canceled:
		delete(a.promises, m.WatchId)
	default:
		a.events(p, m)
	}
	return true
}

func (a *audience) create(m *pb.WatchResponse) {
	p := a.asked[0]
	a.asked = a.asked[1:]
	if m.Canceled {
		if p.created = false; m.WatchId != watch.NoID {
			a.w.t.Fatalf("refused with %s", tell(m))
		}
		return
	}
	if p.request.ID != 0 && m.WatchId != p.request.ID || a.promises[m.WatchId] != nil {
		a.w.t.Fatalf("%s, asked for %d", tell(m), p.request.ID)
	}
	p.id, p.created = m.WatchId, true
	if p.next = p.request.Start; p.next == 0 {
		p.next = id.Revision(m.Header.Revision) + 1
	}
	a.promises[p.id] = p
}

func (a *audience) events(p *promise, m *pb.WatchResponse) {
	w := a.w
	switch {
	case p.stuck:
		w.t.Fatalf("%s after its end", tell(m))
	case m.Header.Revision < p.header:
		w.t.Fatalf("%s after header %d", tell(m), p.header)
	}
	p.header = m.Header.Revision
	p.fragmented = append(p.fragmented, m.Events...)
	switch {
	case m.Fragment:
	case len(p.fragmented) == 0:
		if !p.request.Progress {
			w.t.Fatalf("%s, asked for none", tell(m))
		}
		w.bookmark(p, id.Revision(m.Header.Revision))
		if at := id.Revision(m.Header.Revision) + 1; at < p.next && p.next > p.request.Start {
			w.t.Fatalf("%s goes back behind %d", tell(m), p.next)
		}
	default:
		w.judge(p, p.fragmented)
		if m.Header.Revision < p.fragmented[len(p.fragmented)-1].Kv.ModRevision {
			w.t.Fatalf("%s: header behind its events", tell(m))
		}
		p.fragmented = nil
	}
}

// Every watch sees every event of its range once, in order and in whole revisions,
// whatever happens around it: slow clients, small rings, compactions, snapshots.
func TestEveryWatchSeesEverything(t *testing.T) {
	worlds, steps := 150, 400
	if n, err := strconv.Atoi(os.Getenv("KVORUM_WATCH_WORLDS")); err == nil {
		worlds = n
	}
	for seed := range worlds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { playWorld(t, uint64(seed), steps) })
	}
}

func playWorld(t *testing.T, seed uint64, steps int) {
	r := rand.New(rand.NewPCG(seed, 7))
	ring := []int{1, 3000, 20_000, 1 << 20}[r.IntN(4)]
	w := newWorld(t, ring, func(o watch.Options) *watch.Hub {
		if r.IntN(4) > 0 {
			o.Far = watch.Far{Revisions: id.Revision(1 + r.IntN(60)), Pile: 1 + r.IntN(600), Memory: r.IntN(3000)}
		}
		if r.IntN(4) == 0 {
			return watch.New(o)
		}
		return watch.NewSmall(o, 1+r.IntN(5), 1+r.IntN(400), 1+r.IntN(5), 1+r.IntN(20), r.IntN(2000))
	})
	var all []*audience
	for range 1 + r.IntN(4) {
		all = append(all, &audience{client: w.client(), promises: make(map[int64]*promise), slow: r.IntN(3) == 0})
	}
	for range steps {
		a := all[r.IntN(len(all))]
		switch n := r.IntN(100); {
		case n < 30:
			w.change(r)
		case n < 45:
			if w.tasks.Pending() > 0 {
				w.tasks.RunOne(r.IntN(w.tasks.Pending()))
			}
		case n < 52:
			a.ask(r)
		case n < 55:
			a.stream.Cancel(int64(r.IntN(6) - 2))
		case n < 60:
			a.stream.Progress()
		case n < 65:
			a.stream.Tick()
		case n < 67:
			if at := w.compacted + id.Revision(r.IntN(20)); at > w.compacted && at <= w.hi() {
				w.apply(compact(at))
			}
		case n < 70:
			w.remove()
		case n < 71:
			w.load()
		case n < 73: // an installation begins: nothing can be read until its end
			w.away++
			a.read()
			w.load()
		case n < 74 && len(all) > 1 && a.slow:
			a.stream.Close()
			a.promises, a.asked = make(map[int64]*promise), nil
			a.client = w.client()
		case !a.slow || n > 97:
			for range r.IntN(4) {
				a.read()
			}
		}
	}
	for _, a := range all {
		w.run()
		for a.read() {
		}
		for _, p := range a.promises {
			if !p.stuck {
				w.bookmark(p, w.hi())
			}
		}
		if len(a.asked) > 0 {
			t.Fatalf("%d watches were not answered", len(a.asked))
		}
		a.stream.Close()
	}
	if n := w.hub.Groups(); n > 0 {
		t.Fatalf("%d groups are left of nobody", n)
	}
}

// change applies a few random commands.
func (w *world) change(r *rand.Rand) {
	key := func() string { return string(rune('a' + r.IntN(8))) }
	one := func() any {
		switch r.IntN(6) {
		case 0:
			return del(key(), []string{"", "\x00", key()}[r.IntN(3)])
		case 1:
			var ops []any
			for range 1 + r.IntN(5) {
				if r.IntN(3) == 0 {
					ops = append(ops, del(key(), ""))
				} else {
					ops = append(ops, put(key(), fmt.Sprint(r.IntN(1000))))
				}
			}
			return txn(ops...)
		}
		return put(key(), string(make([]byte, r.IntN(60)))+"v")
	}
	var list []any
	for range 1 + r.IntN(4) {
		list = append(list, one())
	}
	w.apply(list...)
}

// ask asks for a random watch.
func (a *audience) ask(r *rand.Rand) {
	q := watch.Request{
		Key: []byte{byte('a' + r.IntN(8))}, Progress: r.IntN(2) == 0, PrevKV: r.IntN(2) == 0, Fragment: r.IntN(2) == 0,
		NoPuts: r.IntN(8) == 0, NoDeletes: r.IntN(8) == 0,
	}
	switch r.IntN(4) {
	case 0:
		q.End = []byte{0}
	case 1:
		q.End = []byte{byte('a' + r.IntN(10))}
	case 2:
		q.Key, q.End = []byte{0}, []byte{0}
	}
	if r.IntN(3) == 0 {
		q.ID = int64(r.IntN(6) - 3)
		if q.ID == watch.NoID { // legal, and not to be told from the stream's own
			q.ID = 7
		}
	}
	if r.IntN(2) == 0 {
		q.Start = id.Revision(r.IntN(int(a.w.hi())+4) - 1)
	}
	p := &promise{request: q}
	p.request.Key, p.request.End = slices.Clone(q.Key), slices.Clone(q.End)
	a.asked = append(a.asked, p)
	a.stream.Create(&q)
}
