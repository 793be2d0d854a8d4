package mvcc_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
)

// benchStore is a store on Pebble in which keys were put so many times, in no order,
// as batches of 20.
func benchStore(b *testing.B, keys, bytes, rounds int) *store {
	db, err := pebbledb.Open(pebbledb.Options{FS: vfs.Default, Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	k := &store{t: b}
	k.use(db)
	r := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, bytes)
	for range rounds {
		order := r.Perm(keys)
		for len(order) > 0 {
			k.begin()
			for _, i := range order[:min(20, len(order))] {
				for at := range value {
					value[at] = byte(r.Uint32())
				}
				if _, err := k.command(&command.PutRequest{Key: benchKey(nil, i), Value: value}); err != nil {
					b.Fatal(err)
				}
			}
			k.commit()
			order = order[min(20, len(order)):]
		}
	}
	time.Sleep(2 * time.Second) // for compactions to end: they are not what is measured
	return k
}

func benchKey(dst []byte, i int) []byte { return fmt.Appendf(dst, "pods/%011d", i) }

// BenchmarkRanges compares answers that are copied into structs with answers that
// are appended.
func BenchmarkRanges(b *testing.B) {
	for _, c := range []struct {
		name                        string
		keys, bytes, versions, each int
	}{
		{"one of 100000 of 256 bytes", 100_000, 256, 2, 1},
		{"500 of 20000 of 1 KB", 20_000, 1 << 10, 2, 500},
		{"500 of 20000 of 256 bytes, the last of 12", 20_000, 256, 12, 500},
	} {
		k := benchStore(b, c.keys, c.bytes, c.versions)
		v := k.view.Load()
		r := &command.RangeRequest{}
		random := rand.New(rand.NewPCG(3, 4))
		draw := func() *command.RangeRequest {
			at := random.IntN(c.keys - c.each)
			r.Key = benchKey(r.Key[:0], at)
			if c.each > 1 {
				r.End = benchKey(r.End[:0], at+c.each)
			}
			return r
		}
		b.Run(c.name+"/structs", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, err := v.Range(draw()); err != nil || len(got.KVs) != c.each {
					b.Fatal(err)
				}
			}
		})
		appended := func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				out, got, err := v.AppendRange(dst[:0], draw(), mvcc.AppendLimits{})
				if dst = out; err != nil || got.Count != int64(c.each) {
					b.Fatal(err)
				}
			}
		}
		b.Run(c.name+"/appended", appended)
		k.s.KeepRows(40 << 20)
		k.publish()
		v = k.view.Load()
		if c.each == 1 {
			for range 4 * c.keys {
				if _, _, err := v.AppendRange(nil, draw(), mvcc.AppendLimits{}); err != nil {
					b.Fatal(err)
				}
			}
			b.Run(c.name+"/cached", appended)
		}
	}
}
