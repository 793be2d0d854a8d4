package state_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

func newHistory(t testing.TB, seed uint64) *history {
	rnd := rand.New(rand.NewPCG(seed, 1))
	return &history{replica: newReplica(t, seed), oracle: model.New(), gen: &model.Generator{Rand: rnd}, rnd: rnd}
}

// Random histories of every request, cut into random batches, with removal of
// history, flushes, crashes and snapshots between them, answer as the oracle
// does at every step; and the same log applied in another way gives the same
// answers and the same hash.
func TestHistoriesAnswerAsTheOracleDoes(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 25
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHistory(t, uint64(seed))
			h.gen.Keys = []int64{3, 8, 40}[seed%3]
			most := []int{1, 6, 40}[seed/3%3]
			if seed%2 == 0 {
				h.gen.Leases = []id.Lease{7, 1 << 62, -1, -5}
			}
			h.alarms = seed%5 == 4
			for range 60 {
				h.step(most)
				h.disturb()
			}
			h.settle()
			want := h.hash()
			h.reapply(1, want)
			h.reapply(7, want)
			h.reapply(len(h.log), want)
		})
	}
}

// disturb does one of the things that must not change what the state is.
func (h *history) disturb() {
	before := h.hash()
	switch h.rnd.IntN(10) {
	case 0:
		if err := h.m.StartFlush(); err != nil {
			h.t.Fatal(err)
		}
		h.settle()
		if at, err := h.m.Durable(); err != nil || at != h.m.Mark() {
			h.t.Fatalf("durable at %v after a flush at %v: %v", at, h.m.Mark(), err)
		}
	case 1:
		for range h.rnd.IntN(5) {
			h.turn()
		}
	case 2:
		h.crash([]simenv.Crash{simenv.PowerCrash, simenv.ProcessCrash}[h.rnd.IntN(2)])
		if durable, err := h.m.Durable(); err != nil || durable != h.m.Mark() {
			h.t.Fatalf("opened at %v, durable at %v: %v", h.m.Mark(), durable, err)
		}
		h.apply()
	case 3:
		h.moveBySnapshot()
	case 4:
		h.settle()
	}
	if after := h.hash(); after != before {
		h.t.Fatalf("hash %x became %x", before, after)
	}
	h.read()
}

// moveBySnapshot goes over to a new replica that is given a snapshot.
func (h *history) moveBySnapshot() {
	saved, err := h.m.Freeze()
	if err != nil {
		h.t.Fatal(err)
	}
	if saved.At() != h.m.Mark() {
		h.t.Fatalf("saved at %v, mark %v", saved.At(), h.m.Mark())
	}
	next := newReplica(h.t, h.rnd.Uint64())
	for range h.rnd.IntN(3) {
		next.put("something", "else") // to be replaced
	}
	next.log = h.log
	load(h.t, next.m, saved, 1+h.rnd.IntN(4000))
	next.now = h.now
	h.replica = next
}

// load moves a saved state into a machine.
func load(t testing.TB, into *state.Machine, saved state.Frozen, maxBytes int) {
	t.Helper()
	next := func() ([]byte, bool) {
		chunk, ok, err := saved.Next(maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		return chunk, ok
	}
	if err := receive(into, saved.At(), next); err != nil {
		t.Fatal(err)
	}
	if into.Mark() != saved.At() {
		t.Fatalf("loaded at %v, want %v", into.Mark(), saved.At())
	}
	if err := saved.Close(); err != nil {
		t.Fatal(err)
	}
}

// reapply applies the whole log to a new replica, n entries at a time.
func (h *history) reapply(n int, want uint64) {
	r := newReplica(h.t, 99)
	r.log = h.log
	var answers []string
	for rest := h.log; len(rest) > 0; {
		some := rest[:min(n, len(rest))]
		rest = rest[len(some):]
		outcomes, err := r.m.Apply(some)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, o := range outcomes {
			answers = append(answers, model.Text(o.Response)+fmt.Sprint(o.Err))
		}
	}
	if !reflect.DeepEqual(answers, h.answers) {
		h.t.Errorf("%d entries at a time: other answers", n)
	}
	if got := r.hash(); got != want {
		h.t.Errorf("%d entries at a time: hash %x, want %x", n, got, want)
	}
	// As one entry, too: the marks differ, the state does not.
	one := newReplica(h.t, 98)
	e := raft.Entry{Term: 1, Index: 1, Kind: raft.Batch}
	for _, entry := range h.log {
		e.Data = append(e.Data, entry.Data...)
	}
	if _, err := one.m.Apply([]raft.Entry{e}); err != nil {
		h.t.Fatal(err)
	}
	if got := one.hash(); got != want {
		h.t.Errorf("as one entry: hash %x, want %x", got, want)
	}
}
