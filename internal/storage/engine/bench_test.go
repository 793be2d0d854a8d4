package engine_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
)

// benchBodies open stores as they are shipped: Pebble on the machine's disk.
func benchBodies(b *testing.B, run func(b *testing.B, db engine.DB)) {
	b.Run("pebble", func(b *testing.B) {
		db, err := pebbledb.Open(pebbledb.Options{FS: vfs.Default, Dir: b.TempDir()})
		must(b, err)
		run(b, db)
		must(b, db.Close())
	})
	b.Run("memory", func(b *testing.B) {
		db, err := memdb.Open(memdb.Options{FS: vfs.NewMem(), Dir: "store"})
		must(b, err)
		run(b, db)
		must(b, db.Close())
	})
}

// writer makes batches of puts of 256 B as an applier does: a version of one of a
// million user keys, its history row, and the mark.
type writer struct {
	db         engine.DB
	batch      engine.Batch
	key, value []byte
	revision   id.Revision
	rand       *rand.Rand
}

func newWriter(db engine.DB) *writer {
	return &writer{db: db, batch: db.NewBatch(), value: make([]byte, 256), rand: rand.New(rand.NewPCG(1, 2))}
}

func (w *writer) commit(b *testing.B, puts int) {
	var user [32]byte
	for range puts {
		w.revision++
		binary.LittleEndian.PutUint64(w.value, w.rand.Uint64())
		user := fmt.Appendf(user[:0], "/registry/pods/%08d", w.rand.IntN(1_000_000))
		w.key = keys.AppendVersion(w.key[:0], 1, user, w.revision, 0)
		w.batch.Set(w.key, w.value)
		w.key = keys.AppendHistory(w.key[:0], 1, w.revision, 0)
		w.batch.Set(w.key, user)
	}
	w.key = keys.AppendMeta(w.key[:0], 1, "applied")
	w.batch.Set(w.key, w.value[:16])
	must(b, w.db.Commit(w.batch))
	w.db.Turn(env.Instant(0))
}

func BenchmarkCommit(b *testing.B) {
	for _, puts := range []int{1, 20, 100} {
		b.Run(fmt.Sprint(puts), func(b *testing.B) {
			benchBodies(b, func(b *testing.B, db engine.DB) {
				w := newWriter(db)
				b.ReportAllocs()
				for b.Loop() {
					w.commit(b, puts)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*puts), "ns/put")
			})
		})
	}
}

// fill writes 200,000 puts and flushes them.
func fill(b *testing.B, db engine.DB) {
	w := newWriter(db)
	for range 2000 {
		w.commit(b, 100)
	}
	must(b, db.StartFlush())
}

// BenchmarkGet looks for the newest version of a key: of some that exist and of
// some that do not.
func BenchmarkGet(b *testing.B) {
	benchBodies(b, func(b *testing.B, db engine.DB) {
		fill(b, db)
		r := rand.New(rand.NewPCG(3, 4))
		var lower, upper, user []byte
		found := 0
		b.ReportAllocs()
		for b.Loop() {
			user = fmt.Appendf(user[:0], "/registry/pods/%08d", r.IntN(1_000_000))
			lower = keys.AppendAtOrBelow(lower[:0], 1, user, 1<<60)
			upper = keys.AppendAfterUserKey(upper[:0], 1, user)
			it, err := db.Iter(lower, upper)
			must(b, err)
			if it.SeekGE(lower) {
				found++
				_, err = it.Value()
				must(b, err)
			}
			must(b, it.Close())
		}
		b.ReportMetric(float64(found)/float64(b.N), "found/op")
	})
}

// BenchmarkGetMark reads one known row.
func BenchmarkGetMark(b *testing.B) {
	benchBodies(b, func(b *testing.B, db engine.DB) {
		fill(b, db)
		key := keys.AppendMeta(nil, 1, "applied")
		var buf []byte
		b.ReportAllocs()
		for b.Loop() {
			var err error
			buf, err = db.Get(key, buf[:0])
			must(b, err)
		}
	})
}

func BenchmarkIterate500(b *testing.B) {
	benchBodies(b, func(b *testing.B, db engine.DB) {
		fill(b, db)
		r := rand.New(rand.NewPCG(3, 4))
		var lower, upper, user []byte
		b.ReportAllocs()
		for b.Loop() {
			user = fmt.Appendf(user[:0], "/registry/pods/%08d", r.IntN(900_000))
			lower = keys.AppendUserKey(lower[:0], 1, user)
			upper = keys.AppendDataEnd(upper[:0], 1)
			it, err := db.Iter(lower, upper)
			must(b, err)
			for n := 0; n < 500 && it.Next(); n++ {
				_, err = it.Value()
				must(b, err)
			}
			must(b, it.Close())
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*500), "ns/row")
	})
}
