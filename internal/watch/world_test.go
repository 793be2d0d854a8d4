package watch_test

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/watch"
)

// fact is an event as the oracle knows it.
type fact struct {
	revision   id.Revision
	key, value string
	create     id.Revision
	version    int64
	deleted    bool
	// covered: the same revision has a later change of the key.
	covered bool
	// had is the key one revision before, nil if it was not there.
	had *pair
}

type pair struct {
	value   string
	mod     id.Revision
	create  id.Revision
	version int64
}

// world is a store, its hub, and what both must do.
type world struct {
	t     testing.TB
	disk  *simenv.Disk
	db    engine.DB
	store *mvcc.Store
	batch engine.Batch
	tasks simenv.Tasks
	view  atomic.Pointer[mvcc.View]
	loads uint64
	// compacted is what readers are told; during an installation away is one more
	// than loads.
	compacted id.Revision
	away      uint64
	hub       *watch.Hub
	unturned  []error

	facts []fact
	now   map[string]pair
}

func newWorld(t testing.TB, ring int, hub func(watch.Options) *watch.Hub) *world {
	t.Helper()
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	db, err := memdb.Open(memdb.Options{FS: disk.Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Crash(simenv.ProcessCrash) })
	w := &world{t: t, disk: disk, db: db, batch: db.NewBatch(), now: make(map[string]pair), compacted: -1}
	if w.store, err = mvcc.Open(id.DefaultGroup, db); err != nil {
		t.Fatal(err)
	}
	w.store.KeepEvents(ring)
	w.publish()
	w.hub = hub(watch.Options{View: w.view.Load, Tasks: &w.tasks, FragmentBytes: 300, FS: disk.Mount(), Dir: "saves",
		Unturned: func(err error) { w.unturned = append(w.unturned, err) }})
	return w
}

func (w *world) publish() {
	w.compacted = w.store.State().Compacted
	w.away = w.loads
	v := w.store.View(w.loads, func() mvcc.Horizon { return mvcc.Horizon{Compacted: w.compacted, Loads: w.away} })
	w.view.Store(&v)
	if w.hub != nil {
		w.hub.Published()
	}
}

func (w *world) hi() id.Revision { return w.view.Load().Revision }

// apply applies commands in one batch.
func (w *world) apply(requests ...any) {
	w.t.Helper()
	w.store.Begin(w.batch)
	for _, r := range requests {
		var err error
		before := w.store.State().Revision
		switch q := r.(type) {
		case *command.PutRequest:
			_, err = w.store.Put(q)
		case *command.DeleteRangeRequest:
			_, err = w.store.DeleteRange(q)
		case *command.TxnRequest:
			_, err = w.store.Txn(q)
		case *command.CompactRequest:
			_, err = w.store.Compact(q)
		}
		if err != nil {
			w.t.Fatalf("%+v: %v", r, err)
		}
		w.note(r, before+1)
		if got := w.store.State().Revision; len(w.facts) > 0 && got != max(before, w.facts[len(w.facts)-1].revision) {
			w.t.Fatalf("%+v: at %d, the oracle at %d", r, got, w.facts[len(w.facts)-1].revision)
		}
	}
	if err := w.store.Finish(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.db.Commit(w.batch); err != nil {
		w.t.Fatal(err)
	}
	w.publish()
}

// note tells the oracle of a command that makes a revision if it changes anything.
func (w *world) note(request any, revision id.Revision) {
	before := make(map[string]pair, len(w.now))
	for k, v := range w.now {
		before[k] = v
	}
	first := len(w.facts)
	add := func(f fact) {
		f.revision = revision
		if p, ok := before[f.key]; ok {
			f.had = &p
		}
		for i := first; i < len(w.facts); i++ {
			w.facts[i].covered = w.facts[i].covered || w.facts[i].key == f.key
		}
		w.facts = append(w.facts, f)
	}
	put := func(r *command.PutRequest) {
		p, ok := w.now[string(r.Key)]
		if !ok {
			p.create = revision
		}
		p = pair{value: string(r.Value), mod: revision, create: p.create, version: p.version + 1}
		w.now[string(r.Key)] = p
		add(fact{key: string(r.Key), value: p.value, create: p.create, version: p.version})
	}
	remove := func(r *command.DeleteRangeRequest) {
		var gone []string
		for k := range w.now {
			if inRange(k, string(r.Key), string(r.End)) {
				gone = append(gone, k)
			}
		}
		slices.Sort(gone)
		for _, k := range gone {
			delete(w.now, k)
			add(fact{key: k, deleted: true})
		}
	}
	switch q := request.(type) {
	case *command.PutRequest:
		put(q)
	case *command.DeleteRangeRequest:
		remove(q)
	case *command.TxnRequest:
		for _, o := range q.Success {
			if o.Put != nil {
				put(o.Put)
			} else {
				remove(o.Delete)
			}
		}
	}
}

func inRange(k, key, end string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	}
	return k >= key && k < end
}

// remove does all of the removal that is due.
func (w *world) remove() {
	w.t.Helper()
	for w.store.Freeing() {
		if err := w.store.Remove(w.batch, false); err != nil {
			w.t.Fatal(err)
		}
		if err := w.db.Commit(w.batch); err != nil {
			w.t.Fatal(err)
		}
		w.publish()
	}
}

// load replaces the state by itself, as a snapshot of the same revision would: the
// ring is empty afterwards.
func (w *world) load() {
	w.t.Helper()
	w.loads++
	if err := w.store.Reload(); err != nil {
		w.t.Fatal(err)
	}
	w.publish()
}

// run lets the hub do all that it has to.
func (w *world) run() {
	for w.tasks.Pending() > 0 {
		w.tasks.RunOne(0)
	}
}

// client is one stream.
type client struct {
	w      *world
	stream *watch.Stream
	woken  bool
}

func (w *world) client() *client {
	c := &client{w: w}
	c.stream = w.hub.Open(func() { c.woken = true })
	return c
}

// next takes the next response.
func (c *client) next() (*pb.WatchResponse, bool) {
	c.w.t.Helper()
	r, ok, err := c.stream.Next()
	if errors.Is(err, watch.ErrBusy) {
		return nil, false
	}
	if err != nil {
		c.w.t.Fatal(err)
	}
	if !ok {
		return nil, false
	}
	m := &pb.WatchResponse{}
	if err := proto.Unmarshal(r.Events, m); err != nil {
		c.w.t.Fatalf("events %x: %v", r.Events, err)
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		c.w.t.Fatalf("unknown fields in %x", r.Events)
	}
	for _, e := range m.Events {
		if len(e.ProtoReflect().GetUnknown())+len(e.Kv.ProtoReflect().GetUnknown()) > 0 {
			c.w.t.Fatalf("unknown fields in an event of %x", r.Events)
		}
	}
	m.Header = &pb.ResponseHeader{Revision: int64(r.Revision)}
	m.WatchId, m.Created, m.Canceled, m.Fragment = r.ID, r.Created, r.Canceled, r.Fragment
	m.CompactRevision = int64(r.Compacted)
	if r.Refused != nil {
		m.CancelReason = r.Refused.Error()
	}
	return m, true
}

// tell is a response in words.
func tell(m *pb.WatchResponse) string {
	s := fmt.Sprintf("%d@%d", m.WatchId, m.Header.Revision)
	if m.Created {
		s += " created"
	}
	if m.Canceled {
		s += " canceled"
	}
	if m.CancelReason != "" {
		s += " (" + m.CancelReason + ")"
	}
	if m.CompactRevision != 0 {
		s += fmt.Sprintf(" compacted %d", m.CompactRevision)
	}
	if m.Fragment {
		s += " fragment"
	}
	for _, e := range m.Events {
		s += fmt.Sprintf(" %s %s", e.Type, e.Kv.Key)
		if len(e.Kv.Value) > 0 && len(e.Kv.Value) < 10 {
			s += "=" + string(e.Kv.Value)
		}
		s += fmt.Sprintf(".%d", e.Kv.ModRevision)
		if e.PrevKv != nil {
			s += fmt.Sprintf("<%s.%d", e.PrevKv.Value, e.PrevKv.ModRevision)
		}
	}
	return s
}

// all lets the hub run and takes everything there is.
func (c *client) all() (list []string) {
	c.w.t.Helper()
	c.w.run()
	for {
		m, ok := c.next()
		if !ok {
			return list
		}
		list = append(list, tell(m))
	}
}

// want compares what comes with what must.
func (c *client) want(what string, want ...string) {
	c.w.t.Helper()
	if got := c.all(); !slices.Equal(got, want) {
		c.w.t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

func put(key, value string) *command.PutRequest {
	return &command.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func del(key, end string) *command.DeleteRangeRequest {
	return &command.DeleteRangeRequest{Key: []byte(key), End: []byte(end)}
}

func txn(requests ...any) *command.TxnRequest {
	t := &command.TxnRequest{}
	for _, r := range requests {
		switch q := r.(type) {
		case *command.PutRequest:
			t.Success = append(t.Success, command.Op{Put: q})
		case *command.DeleteRangeRequest:
			t.Success = append(t.Success, command.Op{Delete: q})
		}
	}
	return t
}

func compact(at id.Revision) *command.CompactRequest { return &command.CompactRequest{Revision: at} }
