package model

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// A store that was emptied and compacted answers like one that is made so.
func TestAnEmptiedStoreIsOneThatWasEmptied(t *testing.T) {
	for seed := range uint64(30) {
		g := &Generator{Rand: rand.New(rand.NewPCG(seed, 3))}
		old := New()
		for range 30 {
			_, _ = old.Do(g.Request(old.Revision()))
		}
		must[*command.PutResponse](t, old, put("a", "1"))
		must[*command.DeleteRangeResponse](t, old, remove("\x00", "\x00"))
		must[*command.CompactResponse](t, old, &command.CompactRequest{Revision: old.Revision()})
		begun := Emptied(old.Revision())
		for range 60 {
			request := g.Edge(old.Revision(), old.Compacted())
			a, errA := old.Do(request)
			b, errB := begun.Do(request)
			if Text(a) != Text(b) || errA != errB {
				t.Fatalf("seed %d: %s\nemptied %s %v\nmade so %s %v", seed, Text(request), Text(a), errA, Text(b), errB)
			}
		}
		if a, b := old.HashKV(old.Revision(), old.Compacted()), begun.HashKV(old.Revision(), old.Compacted()); a != b {
			t.Fatalf("seed %d: sums %x and %x", seed, a, b)
		}
	}
}

// Numbers at their ends are numbers like others.
func TestNumbersAtTheirEnds(t *testing.T) {
	s := New()
	must[*command.PutResponse](t, s, put("a", "2"))
	must[*command.PutResponse](t, s, put("b", "1"))
	for _, limit := range []int64{math.MaxInt64, math.MinInt64, math.MaxInt64 - 1, -1} {
		r := get("\x00", "\x00")
		r.Limit, r.Target = limit, command.SortByValue
		if got := must[*command.RangeResponse](t, s, r); keys(got) != "b a " || got.More {
			t.Errorf("limit %d: %s %v", limit, keys(got), got.More)
		}
	}
	late, early := get("a", ""), get("a", "")
	late.Revision, early.Revision = math.MaxInt64, math.MinInt64
	refused(t, s, late, command.ErrFutureRevision)
	if got := must[*command.RangeResponse](t, s, early); got.Count != 1 {
		t.Errorf("the least revision is the newest: %+v", got)
	}
	refused(t, s, &command.TxnRequest{Success: []command.Op{{Range: early}}}, command.ErrCompacted)
	refused(t, s, &command.CompactRequest{Revision: id.Revision(math.MinInt64)}, command.ErrCompacted)
}

// Of a put that lacks its lease and its key, the lease is missed alone, the key in
// a txn.
func TestWhatIsMissedFirst(t *testing.T) {
	s, r := New(), &command.PutRequest{Key: []byte("a"), Lease: 7, IgnoreValue: true}
	refused(t, s, r, command.ErrLeaseNotFound)
	refused(t, s, &command.TxnRequest{Success: []command.Op{{Put: r}}}, command.ErrKeyNotFound)
}
