package watch_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/watch"
)

// On goroutines of their own, an applier that never waits for anybody and many
// senders: each sees everything, and what a view shows does not change under it.
func TestManySendersBesideOneApplier(t *testing.T) {
	const streams, perStream, puts, keys = 12, 4, 4000, 5
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	defer disk.Crash(simenv.ProcessCrash)
	db, err := memdb.Open(memdb.Options{FS: disk.Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	store, err := mvcc.Open(id.DefaultGroup, db)
	if err != nil {
		t.Fatal(err)
	}
	store.KeepEvents(20_000)
	var view atomic.Pointer[mvcc.View]
	publish := func() {
		v := store.View(0, func() mvcc.Horizon { return mvcc.Horizon{Compacted: -1} })
		view.Store(&v)
	}
	publish()
	tasks := osenv.NewTasks()
	defer tasks.Stop()
	hub := watch.New(watch.Options{View: view.Load, Tasks: tasks, FragmentBytes: 1 << 20})
	var all sync.WaitGroup
	var ticked []*watch.Stream
	var finished atomic.Bool
	for n := range streams {
		wake := make(chan struct{}, 1)
		s := hub.Open(func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		if n < 3 {
			ticked = append(ticked, s)
		}
		for i := range perStream {
			r := everything()
			r.Progress = true
			switch i {
			case 1:
				r = key(fmt.Sprintf("k%d", n%keys))
			case 2:
				r.PrevKV = true
			}
			s.Create(r)
		}
		all.Go(func() {
			defer s.Close()
			owed := perStream * puts
			for i := range perStream {
				if i == 1 {
					owed -= puts - puts/keys
				}
			}
			last := make(map[int64]int64)
			for owed > 0 {
				r, ok, err := s.Next()
				if err != nil {
					t.Error(err)
					return
				}
				if !ok {
					<-wake
					continue
				}
				m := &pb.WatchResponse{}
				if seen := last[r.ID]; r.ID == 0 && !r.Created && len(r.Events) == 0 && int64(r.Revision) > max(seen, 1) {
					t.Errorf("told %d after %d", r.Revision, seen)
					return
				}
				if err := proto.Unmarshal(r.Events, m); err != nil {
					t.Error(err)
					return
				}
				for _, e := range m.Events {
					step := int64(1)
					if r.ID == 1 {
						step = keys
					}
					if before := last[r.ID]; before > 0 && e.Kv.ModRevision != before+step ||
						r.ID == 2 && e.Kv.Version > 1 && e.PrevKv.GetModRevision() != e.Kv.ModRevision-keys {
						t.Errorf("watch %d: %v after %d", r.ID, e, before)
						return
					}
					last[r.ID] = e.Kv.ModRevision
					owed--
				}
			}
		})
	}
	for n, s := range ticked { // bookmarks meanwhile
		all.Go(func() {
			for !finished.Load() {
				if s.Tick(); n%2 == 0 {
					s.Progress()
				}
				runtime.Gosched()
			}
		})
	}
	batch := db.NewBatch()
	for i := range puts {
		store.Begin(batch)
		if _, err := store.Put(put(fmt.Sprintf("k%d", i%keys), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if err := store.Finish(); err != nil {
			t.Fatal(err)
		}
		if err := db.Commit(batch); err != nil {
			t.Fatal(err)
		}
		publish()
		hub.Published()
	}
	finished.Store(true)
	all.Wait()
}
