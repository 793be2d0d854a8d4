package lease

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

// hung is a table, and beside it which keys hang on which lease.
type hung struct {
	t     *testing.T
	rnd   *rand.Rand
	db    engine.DB
	table *Table
	feed  *Feed
	// on are the keys of each lease, told the weights that were told last.
	on   map[id.Lease]map[string]bool
	told map[id.Lease]Weight
	// strayed are leases that lost a key that never hung on them.
	strayed map[id.Lease]bool
}

// key draws a key: of one cell, of several, of as many as there may be, of one more.
func (h *hung) key() string {
	size := []int{1, cellBytes, cellBytes + 1, 100, longestSole, longestSole + 1, 3000}[h.rnd.IntN(7)]
	return string(bytes.Repeat([]byte{byte('a' + h.rnd.IntN(4))}, size))
}

// step does one thing to a lease within a batch.
func (h *hung) step(name id.Lease) {
	keys, known := h.on[name]
	if !known {
		if err := h.table.Grant(&command.LeaseGrant{ID: name, TTL: 5}); err != nil {
			h.t.Fatal(err)
		}
		h.on[name] = map[string]bool{}
		return
	}
	key := h.key()
	switch n := h.rnd.IntN(16); {
	case n < 8 && !keys[key]:
		h.table.Attach([]byte(key), name)
		keys[key] = true
	case n < 12 && keys[key]:
		h.table.Detach([]byte(key), name)
		delete(keys, key)
	case n == 12 && !keys[key]: // of a lease of that ID which a backup did not have
		h.table.Detach([]byte(key), name)
		h.strayed[name] = true
	case n == 13:
		h.table.End(name, h.keysOf(name))
		h.table.Flush()
		delete(h.on, name)
		delete(h.strayed, name)
	}
}

// keysOf lists the keys of a lease, which must be those that hang on it.
func (h *hung) keysOf(name id.Lease) [][]byte {
	h.t.Helper()
	list, err := h.table.Keys(name)
	if err != nil {
		h.t.Fatal(err)
	}
	var got []string
	for _, key := range list {
		got = append(got, string(key))
	}
	if want := slices.Sorted(maps.Keys(h.on[name])); !slices.Equal(got, want) {
		h.t.Fatalf("lease %d has %.40q, want %.40q", name, got, want)
	}
	return list
}

// weigh holds what was told against what hangs on the leases.
func (h *hung) weigh() {
	h.t.Helper()
	for changes, anew, ok := h.feed.Next(); ok; changes, anew, ok = h.feed.Next() {
		if anew {
			clear(h.told)
		}
		for _, c := range changes {
			h.told[c.ID] = c.Weight
			if c.Gone {
				delete(h.told, c.ID)
			}
		}
	}
	if len(h.told) != len(h.on) {
		h.t.Fatalf("%d leases were told of, there are %d", len(h.told), len(h.on))
	}
	for name, keys := range h.on {
		size := 0
		for key := range keys {
			size += len(key)
		}
		most, mostBytes := h.told[name].Most()
		if h.strayed[name] {
			continue
		}
		if most < len(keys) || most > 2*(len(keys)+1) || mostBytes < size || mostBytes > max(2*size, lightBytes) {
			h.t.Fatalf("lease %d was told to have at most %d keys of %d bytes, it has %d of %d", name, most, mostBytes, len(keys), size)
		}
	}
}

// cells counts those that are in use, and checks that no other is lost.
func (h *hung) cells() {
	h.t.Helper()
	s, free, used := &h.table.soles, 0, 0
	for k := s.free; k != 0; k = s.at(k).next {
		free++
	}
	for _, f := range h.table.leases {
		for k := f.load.sole; k != 0; k = s.at(k).next {
			used++
		}
	}
	if free+used != s.made {
		h.t.Fatalf("%d cells are used, %d free, %d were made", used, free, s.made)
	}
}

// What is remembered of leases' keys is what their rows say, in the middle of a batch
// and after a restart, with room for all of them, for some, for none; and the clock is
// told of each lease about how many there are.
func TestKeysAreRememberedAsTheirRowsAre(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(seed, simenv.DiskOptions{}).Mount(), Dir: "db"})
			if err != nil {
				t.Fatal(err)
			}
			h := &hung{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), db: db, on: map[id.Lease]map[string]bool{}, told: map[id.Lease]Weight{}, strayed: map[id.Lease]bool{}}
			h.open()
			batch := db.NewBatch()
			for range 200 {
				h.table.Begin(batch)
				for range h.rnd.IntN(12) {
					name := id.Lease(h.rnd.IntN(6) - 2)
					if name != 0 {
						h.step(name)
						h.keysOf(name)
					}
				}
				if err := h.table.Finish(); err != nil {
					t.Fatal(err)
				}
				if err := db.Commit(batch); err != nil {
					t.Fatal(err)
				}
				h.table.Publish()
				switch h.rnd.IntN(20) {
				case 0:
					h.open()
				case 1:
					if err := h.table.Reload(); err != nil {
						t.Fatal(err)
					}
					clear(h.strayed)
				}
				for name := range h.on {
					h.keysOf(name)
				}
				h.weigh()
				h.cells()
			}
		})
	}
}

// open reads the table anew, with another budget.
func (h *hung) open() {
	h.t.Helper()
	var err error
	if h.table, err = Open(1, h.db); err != nil {
		h.t.Fatal(err)
	}
	if h.rnd.IntN(3) > 0 {
		h.table.KeepKeys([]int{0, cellsPerPage * (cellBytes + 4)}[h.rnd.IntN(2)])
	}
	h.feed = h.table.Follow()
	clear(h.strayed)
}

// The room for keys is bounded: what does not fit is not remembered, and what was
// given back is used again.
func TestTheRoomForKeysIsBounded(t *testing.T) {
	s := soles{budget: 2 * cellsPerPage * (cellBytes + 4)}
	key := bytes.Repeat([]byte("k"), 2*cellBytes)
	var kept []soleKey
	for k := s.keep(key); k != 0; k = s.keep(key) {
		kept = append(kept, k)
	}
	if len(kept) != cellsPerPage {
		t.Fatalf("%d keys of two cells are in two pages of %d", len(kept), cellsPerPage)
	}
	s.forget(kept[7])
	if k := s.keep(append(key, 'x')); k != 0 {
		t.Error("a key of three cells lies in two")
	}
	if k := s.keep(key); k == 0 || !bytes.Equal(s.append(nil, k, len(key)), key) {
		t.Error("the room of a key that was forgotten is lost")
	}
}
