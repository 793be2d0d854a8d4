package watch_test

import (
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
	"github.com/kvorum/kvorum/internal/watch"
)

// onPebble fills a store on Pebble with puts of 512 bytes, forty in a batch.
func onPebble(b *testing.B, puts, keys int) (*mvcc.Store, engine.DB, *mvcc.View) {
	b.Helper()
	db, err := pebbledb.Open(pebbledb.Options{FS: osenv.FS(), Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	store, err := mvcc.Open(id.DefaultGroup, db)
	if err != nil {
		b.Fatal(err)
	}
	batch, value := db.NewBatch(), string(make([]byte, 512))
	for i := 0; i < puts; {
		store.Begin(batch)
		for range 40 {
			if _, err := store.Put(put(fmt.Sprintf("key/%06d", i*7919%keys), value)); err != nil {
				b.Fatal(err)
			}
			i++
		}
		if err := store.Finish(); err != nil {
			b.Fatal(err)
		}
		if err := db.Commit(batch); err != nil {
			b.Fatal(err)
		}
	}
	v := store.View(0, func() mvcc.Horizon { return mvcc.Horizon{Compacted: -1} })
	return store, db, &v
}

// BenchmarkCatchUp reads events from history on disk, for one watch of all keys.
func BenchmarkCatchUp(b *testing.B) {
	store, _, view := onPebble(b, 400_000, 100_000)
	_ = store
	var tasks simenv.Tasks
	hub := watch.New(watch.Options{View: func() *mvcc.View { return view }, Tasks: &tasks, FragmentBytes: 2 << 20})
	edge := view.Revision // the ring has the last 32 MB
	for _, ok := view.Recent(edge); ok; _, ok = view.Recent(edge) {
		edge--
	}
	b.ResetTimer()
	for range b.N {
		s := hub.Open(func() {})
		s.Create(&watch.Request{End: []byte{0}, Start: 2})
		var at id.Revision
		for at < edge {
			r, ok, err := s.Next()
			if err != nil || !ok {
				b.Fatal(ok, err)
			}
			if len(r.Events) > 0 {
				at += id.Revision(len(r.Events) / 550)
			}
		}
		s.Close()
	}
	b.ReportMetric(float64(edge)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkFanOut delivers one put to a thousand watches of one prefix over a hundred
// streams, without a wire.
func BenchmarkFanOut(b *testing.B) {
	store, db, view := onPebble(b, 40, 40)
	var tasks simenv.Tasks
	hub := watch.New(watch.Options{View: func() *mvcc.View { return view }, Tasks: &tasks, FragmentBytes: 2 << 20})
	var all []*watch.Stream
	for range 100 {
		s := hub.Open(func() {})
		for range 10 {
			s.Create(&watch.Request{Key: []byte("key/"), End: []byte("key0")})
			s.Next()
		}
		all = append(all, s)
	}
	batch, value := db.NewBatch(), string(make([]byte, 512))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		store.Begin(batch)
		if _, err := store.Put(put("key/000001", value)); err != nil {
			b.Fatal(err)
		}
		if err := store.Finish(); err != nil {
			b.Fatal(err)
		}
		if err := db.Commit(batch); err != nil {
			b.Fatal(err)
		}
		v := store.View(0, func() mvcc.Horizon { return mvcc.Horizon{Compacted: -1} })
		view = &v
		hub.Published()
		for tasks.Pending() > 0 {
			tasks.RunOne(0)
		}
		for _, s := range all {
			for range 10 {
				if r, ok, err := s.Next(); !ok || err != nil || len(r.Events) == 0 {
					b.Fatal(ok, err)
				}
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}
