package mvcc_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// herd is a store of many keys beside what it should have.
type herd struct {
	*store
	rnd *rand.Rand
	// lives are the keys of each revision that is remembered.
	lives map[id.Revision][]string
	now   map[string]bool
	rev   id.Revision
	rows  int
}

func newHerd(t testing.TB, seed uint64, rows int) *herd {
	h := &herd{store: newStore(t), rnd: rand.New(rand.NewPCG(seed, 7)), lives: map[id.Revision][]string{}, now: map[string]bool{}, rows: rows}
	h.s.KeepCounts(rows)
	h.publish()
	return h
}

func (h *herd) key() string { return fmt.Sprintf("k%04d", h.rnd.IntN(2000)) }

// change writes some keys by one txn: mostly new ones, or mostly fewer of them.
func (h *herd) change(growing bool) {
	txn := &command.TxnRequest{}
	used := map[string]bool{}
	for range 1 + h.rnd.IntN(40) {
		key := h.key()
		if used[key] {
			continue
		}
		used[key] = true
		if growing == (h.rnd.IntN(4) > 0) {
			h.now[key] = true
			txn.Success = append(txn.Success, command.Op{Put: &command.PutRequest{Key: []byte(key), Value: []byte(strings.Repeat("v", h.rnd.IntN(20)))}})
		} else {
			delete(h.now, key)
			txn.Success = append(txn.Success, command.Op{Delete: &command.DeleteRangeRequest{Key: []byte(key)}})
		}
	}
	resp, err := h.do(txn)
	if err != nil {
		h.t.Fatal(err)
	}
	h.rev = resp.(*command.TxnResponse).Revision
	var all []string
	for key := range h.now {
		all = append(all, key)
	}
	slices.Sort(all)
	h.lives[h.rev] = all
}

// ask counts random ranges at random revisions, with and without a limit.
func (h *herd) ask() {
	h.t.Helper()
	for range 4 {
		rev := h.rev - id.Revision(h.rnd.IntN(12))
		all, ok := h.lives[rev]
		if !ok {
			continue
		}
		a, b := h.key(), h.key()
		q := &command.RangeRequest{Key: []byte(min(a, b)), End: []byte(max(a, b)), Revision: rev, CountOnly: h.rnd.IntN(2) == 0}
		from, _ := slices.BinarySearch(all, min(a, b))
		to, _ := slices.BinarySearch(all, max(a, b))
		switch h.rnd.IntN(6) {
		case 0:
			q.Key, from = []byte{0}, 0
		case 1:
			q.End, to = []byte{0}, len(all)
		}
		if a == b && string(q.End) == b {
			continue
		}
		if h.rnd.IntN(2) == 0 {
			q.Limit = 1 + int64(h.rnd.IntN(30))
		}
		resp, err := h.view.Load().Range(q)
		if err != nil {
			h.t.Fatalf("%q to %q at %d of %d: %v", q.Key, q.End, rev, h.rev, err)
		}
		shown, want := to-from, int64(to-from)
		if q.Limit > 0 {
			shown = min(shown, int(q.Limit))
		}
		if q.CountOnly {
			shown = 0
		}
		if _, got, err := h.view.Load().AppendRange(nil, q, mvcc.AppendLimits{Rows: []int64{0, 50}[h.rnd.IntN(2)]}); err != nil && !errors.Is(err, mvcc.ErrLonger) ||
			err == nil && got != (mvcc.Appended{More: resp.More, Count: resp.Count}) {
			h.t.Fatalf("%q to %q, limit %d, at %d of %d: %+v, %v; there are %d", q.Key, q.End, q.Limit, rev, h.rev, got, err, want)
		}
		if resp.Count != want || len(resp.KVs) != shown || resp.More != (!q.CountOnly && int64(shown) < want) {
			h.t.Fatalf("%q to %q, limit %d, at %d of %d: count %d, %d rows, more %v; there are %d", q.Key, q.End, q.Limit, rev, h.rev,
				resp.Count, len(resp.KVs), resp.More, want)
		}
	}
}

// tally does slices until every key is counted, and looks at every leaf then.
func (h *herd) tally() (leaves int) {
	h.t.Helper()
	for {
		worked, err := h.s.Tally()
		if err != nil {
			h.t.Fatal(err)
		}
		h.publish()
		if !worked {
			break
		}
	}
	leaves, err := h.s.CheckFences()
	if err != nil {
		h.t.Fatal(err)
	}
	h.publish()
	return leaves
}

// Counts are right at every revision while keys come and go, history is removed,
// and the store is opened again: after a power loss on rows of the fences that are
// older than it, or on none.
func TestCountsAreThoseOfAWalk(t *testing.T) {
	seeds, steps := 6, 200
	if testing.Short() || invariant.Dear {
		seeds, steps = 4, 150
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHerd(t, uint64(seed), []int{1, 4, 16, 100}[seed%4])
			for step := range steps {
				h.change(step%100 < 70)
				h.ask()
				switch h.rnd.IntN(30) {
				case 0:
					h.tally()
				case 1:
					h.compactTo(h.rev - id.Revision(h.rnd.IntN(10)))
				case 2:
					h.again(h.rows)
				case 3:
					// A program that keeps no counts has the store for a while.
					h.again(0)
					for range 20 {
						h.change(true)
					}
					h.compactTo(h.rev - id.Revision(h.rnd.IntN(40)))
					h.again(h.rows)
				}
			}
			h.again(h.rows)
			if leaves := h.tally(); leaves < len(h.now)/h.rows/2 {
				t.Errorf("%d leaves for %d keys", leaves, len(h.now))
			}
		})
	}
}

// compactTo compacts, and removes some of the history.
func (h *herd) compactTo(rev id.Revision) {
	h.t.Helper()
	if _, err := h.do(&command.CompactRequest{Revision: rev}); err != nil {
		return
	}
	for old := range h.lives {
		if old < rev {
			delete(h.lives, old)
		}
	}
	for n := h.rnd.IntN(40); n > 0 && h.s.Freeing(); n-- {
		h.remove()
	}
}

// again opens the store anew, as a power loss left it after a flush.
func (h *herd) again(rows int) {
	h.t.Helper()
	h.flush()
	h.disk.Crash(simenv.PowerCrash)
	h.open()
	h.s.KeepCounts(rows)
	h.publish()
	h.ask()
	switch h.rnd.IntN(3) {
	case 0:
		h.tally()
	case 1:
		if _, err := h.s.Tally(); err != nil {
			h.t.Fatal(err)
		}
		h.compactTo(h.rev)
		h.change(true)
	}
	h.ask()
}

// What compaction leaves behind of keys that are gone does not stay among the
// fences: a queue that moves through its keys needs a few leaves only.
func TestFencesGoWithTheirKeys(t *testing.T) {
	h := newHerd(t, 1, 4)
	most := 0
	for i := range 2000 {
		if _, err := h.do(&command.PutRequest{Key: fmt.Appendf(nil, "job%06d", i)}); err != nil {
			t.Fatal(err)
		}
		if i >= 20 {
			if _, err := h.do(&command.DeleteRangeRequest{Key: fmt.Appendf(nil, "job%06d", i-20)}); err != nil {
				t.Fatal(err)
			}
		}
		if i%200 == 199 {
			h.compactTo(h.s.State().Revision)
			for h.s.Freeing() {
				h.remove()
			}
			most = max(most, h.tally())
		}
	}
	if most > 100 {
		t.Errorf("%d leaves", most)
	}
}

// What reads the row of a chunk takes nothing that is not written that way.
func FuzzFenceRow(f *testing.F) {
	f.Add(mvcc.AppendLeaves(nil, []string{"", "a", "ab", "b"}, []int32{3, 0, 2, 9}, []int32{3, 1, 7, 9}))
	f.Add(mvcc.AppendLeaves(nil, []string{"k0007"}, []int32{128}, []int32{128}))
	f.Add([]byte{1, 0, 0, 5, 0, 1, 1, 'a'})
	f.Fuzz(func(t *testing.T, row []byte) {
		lows, live, rows, err := mvcc.DecodeLeaves(row)
		if err != nil {
			return
		}
		if again := mvcc.AppendLeaves(nil, lows, live, rows); string(again) != string(row) {
			t.Fatalf("read %q %v %v from %x, which is written as %x", lows, live, rows, row, again)
		}
	})
}
