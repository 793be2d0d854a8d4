package state_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
)

// stocked is a machine on Pebble with keys of 16 bytes and values of 256, in leaves
// of so many rows.
func stocked(b *testing.B, keyCount, rows int) *state.Machine {
	db, err := pebbledb.Open(pebbledb.Options{FS: vfs.Default, Dir: b.TempDir(), Trouble: func(text string) { println(text) }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	m, err := state.Open(id.DefaultGroup, db, "")
	if err != nil {
		b.Fatal(err)
	}
	m.KeepCounts(rows)
	for first := 0; first < keyCount; first += 1000 {
		e := raft.Entry{Index: id.Index(first/1000 + 1), Term: 1, Kind: raft.Batch}
		for i := first; i < min(first+1000, keyCount); i++ {
			put := &command.PutRequest{Key: numbered(i), Value: []byte(strings.Repeat("v", 256))}
			e.Data = command.AppendToBatch(e.Data, command.Encode(nil, command.Header{}, put))
		}
		if _, err := m.Apply([]raft.Entry{e}); err != nil {
			b.Fatal(err)
		}
	}
	return m
}

func numbered(i int) []byte { return fmt.Appendf(nil, "key-%012d", i) }

// BenchmarkCount counts nearly all of 1,000,000 keys, with fences and by a walk.
func BenchmarkCount(b *testing.B) {
	const keyCount = 1_000_000
	for _, rows := range []int{128, 0} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			m := stocked(b, keyCount, rows)
			for i := 0; b.Loop(); i++ {
				first, behind := i*37%1000, i*101%1000
				q := &command.RangeRequest{Key: numbered(first), End: numbered(keyCount - behind), CountOnly: true}
				resp, err := m.View().Range(q)
				if err != nil || resp.Count != int64(keyCount-behind-first) {
					b.Fatal(resp, err)
				}
			}
		})
	}
}

// BenchmarkPages lists 500,000 keys in pages of 10,000 at the revision of the first
// page. One operation is all of them.
func BenchmarkPages(b *testing.B) {
	const keyCount, page = 500_000, 10_000
	for _, rows := range []int{128, 0} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			m := stocked(b, keyCount, rows)
			for b.Loop() {
				q := &command.RangeRequest{Key: []byte("k"), End: []byte("l"), Limit: page, Revision: m.View().State().Revision}
				for got := 0; got < keyCount; got += page {
					resp, err := m.View().Range(q)
					if err != nil || len(resp.KVs) != page || resp.Count != int64(keyCount-got) || resp.More != (got+page < keyCount) {
						b.Fatal(got, resp.Count, err)
					}
					q.Key = append(resp.KVs[page-1].Key, 0)
				}
			}
		})
	}
}

// BenchmarkLimit reads 500 of 100,000 keys, from the first on.
func BenchmarkLimit(b *testing.B) {
	const keyCount = 100_000
	for _, rows := range []int{128, 0} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			m := stocked(b, keyCount, rows)
			q := &command.RangeRequest{Key: []byte("k"), End: []byte("l"), Limit: 500}
			for b.Loop() {
				if resp, err := m.View().Range(q); err != nil || len(resp.KVs) != 500 || resp.Count != keyCount {
					b.Fatal(resp.Count, err)
				}
			}
		})
	}
}

// BenchmarkApplyCreate puts keys that are not there yet, 100 to an entry. One
// operation is one put.
func BenchmarkApplyCreate(b *testing.B) {
	value := []byte(strings.Repeat("v", 256))
	for _, scattered := range []bool{false, true} {
		for _, rows := range []int{0, 128} {
			b.Run(fmt.Sprintf("scattered=%v/rows=%d", scattered, rows), func(b *testing.B) {
				m := stocked(b, 0, rows)
				e := raft.Entry{Term: 1, Kind: raft.Batch}
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					i := n
					if scattered {
						i = int(uint32(n) * 2654435761 >> 1)
					}
					put := &command.PutRequest{Key: numbered(i), Value: value}
					e.Data = command.AppendToBatch(e.Data, command.Encode(nil, command.Header{}, put))
					if n%100 < 99 {
						continue
					}
					e.Index++
					if _, err := m.Apply([]raft.Entry{e}); err != nil {
						b.Fatal(err)
					}
					e.Data = e.Data[:0]
				}
			})
		}
	}
}
