package state_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
)

// bodies are the engines that benchmarks run on.
var bodies = []struct {
	name string
	open func(b *testing.B) engine.DB
}{
	{"none", func(*testing.B) engine.DB { return new(nothing) }},
	{"memdb", func(b *testing.B) engine.DB {
		db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), Dir: "db"})
		if err != nil {
			b.Fatal(err)
		}
		return db
	}},
	{"pebbledb", func(b *testing.B) engine.DB {
		db, err := pebbledb.Open(pebbledb.Options{FS: vfs.Default, Dir: b.TempDir(), Trouble: func(text string) { println(text) }})
		if err != nil {
			b.Fatal(err)
		}
		return db
	}},
}

// nothing is an engine that forgets everything: what is left is our own cost.
type nothing struct{ engine.DB }

type noBatch struct{}

func (*nothing) Get([]byte, []byte) ([]byte, error)                { return nil, engine.ErrNotFound }
func (*nothing) Iter(lower, upper []byte) (engine.Iterator, error) { return noRows{}, nil }
func (*nothing) NewBatch() engine.Batch                            { return noBatch{} }
func (*nothing) Commit(engine.Batch) error                         { return nil }
func (*nothing) Close() error                                      { return nil }
func (noBatch) Set(key, value []byte)                              {}
func (noBatch) Delete(key []byte)                                  {}
func (noBatch) Bytes() int                                         { return 0 }
func (noBatch) Reset()                                             {}
func (noBatch) Close()                                             {}

type noRows struct{}

func (noRows) SeekGE([]byte) bool     { return false }
func (noRows) SeekLT([]byte) bool     { return false }
func (noRows) Bound(_, _ []byte)      {}
func (noRows) Next() bool             { return false }
func (noRows) Prev() bool             { return false }
func (noRows) NextPrefix() bool       { return false }
func (noRows) Valid() bool            { return false }
func (noRows) Key() []byte            { return nil }
func (noRows) Value() ([]byte, error) { return nil, nil }
func (noRows) Err() error             { return nil }
func (noRows) Close() error           { return nil }

// BenchmarkApplyPut applies puts of 256 bytes to keys that are mostly there, so
// many to an entry and an Apply. One operation is one put.
func BenchmarkApplyPut(b *testing.B) {
	const keyCount = 20_000
	value := []byte(strings.Repeat("v", 256))
	for _, body := range bodies {
		for _, batch := range []int{1, 20, 100} {
			b.Run(fmt.Sprintf("%s/batch=%d", body.name, batch), func(b *testing.B) {
				db := body.open(b)
				defer db.Close()
				m, err := state.Open(id.DefaultGroup, db, "")
				if err != nil {
					b.Fatal(err)
				}
				// Entries are made before, as the host has made them.
				entries := make([]raft.Entry, 64)
				n := 0
				for i := range entries {
					for range batch {
						n += 7919
						put := &command.PutRequest{Key: fmt.Appendf(nil, "key-%08d", n%keyCount), Value: value}
						entries[i].Data = command.AppendToBatch(entries[i].Data, command.Encode(nil, command.Header{}, put))
					}
				}
				index := id.Index(0)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if i%batch != 0 {
						continue
					}
					e := entries[i/batch%len(entries)]
					index++
					e.Index, e.Term, e.Kind = index, 1, raft.Batch
					if _, err := m.Apply([]raft.Entry{e}); err != nil {
						b.Fatal(err)
					}
					if index%256 == 0 && body.name == "memdb" {
						m.Turn(0)
					}
				}
			})
		}
	}
}

// BenchmarkRange reads 500 of 10,000 keys with values of 100 bytes.
func BenchmarkRange(b *testing.B) {
	for _, body := range bodies[1:] {
		b.Run(body.name, func(b *testing.B) {
			db := body.open(b)
			defer db.Close()
			m, err := state.Open(id.DefaultGroup, db, "")
			if err != nil {
				b.Fatal(err)
			}
			e := raft.Entry{Index: 1, Term: 1, Kind: raft.Batch}
			for i := range 10_000 {
				put := &command.PutRequest{Key: fmt.Appendf(nil, "key-%08d", i), Value: []byte(strings.Repeat("v", 100))}
				e.Data = command.AppendToBatch(e.Data, command.Encode(nil, command.Header{}, put))
			}
			if _, err := m.Apply([]raft.Entry{e}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				first := i * 37 % 9000
				q := &command.RangeRequest{Key: fmt.Appendf(nil, "key-%08d", first), End: fmt.Appendf(nil, "key-%08d", first+500)}
				resp, err := m.View().Range(q)
				if err != nil || len(resp.KVs) != 500 {
					b.Fatal(len(resp.KVs), err)
				}
			}
		})
	}
}

// BenchmarkGet reads one key.
func BenchmarkGet(b *testing.B) {
	for _, body := range bodies[1:] {
		b.Run(body.name, func(b *testing.B) {
			db := body.open(b)
			defer db.Close()
			m, err := state.Open(id.DefaultGroup, db, "")
			if err != nil {
				b.Fatal(err)
			}
			e := raft.Entry{Index: 1, Term: 1, Kind: raft.Batch}
			for i := range 10_000 {
				put := &command.PutRequest{Key: fmt.Appendf(nil, "key-%08d", i), Value: []byte(strings.Repeat("v", 100))}
				e.Data = command.AppendToBatch(e.Data, command.Encode(nil, command.Header{}, put))
			}
			if _, err := m.Apply([]raft.Entry{e}); err != nil {
				b.Fatal(err)
			}
			q := &command.RangeRequest{Key: []byte("key-00004711")}
			b.ReportAllocs()
			for b.Loop() {
				if resp, err := m.View().Range(q); err != nil || len(resp.KVs) != 1 {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkExpire ends leases with a key each, 64 to an entry and an Apply, out of
// many more; in the order of their IDs, as the leader proposes them, and in none.
// One operation is one lease.
func BenchmarkExpire(b *testing.B) {
	const count, atOnce = 100_000, 64
	for _, order := range []string{"by ID", "none"} {
		b.Run(order, func(b *testing.B) {
			db := bodies[2].open(b)
			defer db.Close()
			m, err := state.Open(id.DefaultGroup, db, "")
			if err != nil {
				b.Fatal(err)
			}
			m.KeepTips(16 << 20)
			index := id.Index(0)
			apply := func(header command.Header, list ...command.Body) {
				index++
				e := raft.Entry{Index: index, Term: 1, Kind: raft.Batch}
				for _, body := range list {
					e.Data = command.AppendToBatch(e.Data, command.Encode(nil, header, body))
				}
				if _, err := m.Apply([]raft.Entry{e}); err != nil {
					b.Fatal(err)
				}
			}
			done, names := 0, []command.LeaseName(nil)
			feed := m.FollowLeases()
			for b.Loop() {
				if done == len(names) {
					b.StopTimer()
					done, names = 0, names[:0]
					draw := rand.New(rand.NewPCG(uint64(index), 1))
					for range count / 50 {
						var list []command.Body
						for range 50 {
							name := id.Lease(draw.Uint64() >> 1)
							list = append(list, &command.LeaseGrant{ID: name, TTL: 60},
								&command.PutRequest{Key: fmt.Appendf(nil, "lease-end/%08d", draw.IntN(1e8)), Lease: name})
						}
						apply(command.Header{}, list...)
					}
					for changes, _, ok := feed.Next(); ok; changes, _, ok = feed.Next() {
						for _, c := range changes {
							if !c.Gone {
								names = append(names, c.LeaseName)
							}
						}
					}
					if order == "by ID" {
						slices.SortFunc(names, func(a, b command.LeaseName) int { return cmp.Compare(a.ID, b.ID) })
					}
					b.StartTimer()
				}
				if done++; done%atOnce == 0 || done == len(names) {
					first := (done - 1) / atOnce * atOnce
					apply(command.Header{Class: command.Duty, Term: 1}, &command.LeaseExpire{Leases: names[first:done]})
				}
			}
		})
	}
}
