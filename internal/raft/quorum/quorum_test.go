package quorum

import (
	"slices"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"pgregory.net/rapid"
)

// A committed index is the greatest one that a majority holds: asked of every
// candidate in turn, as a reader would with a pencil.
func TestReachedIsTheGreatestValueOfAMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Uint64Range(0, 9), 1, 9).Draw(t, "matches")
		holders := func(v uint64) (n int) {
			for _, have := range values {
				if have >= v {
					n++
				}
			}
			return n
		}
		var want uint64
		for v := uint64(0); v <= 10; v++ {
			if holders(v) > len(values)/2 {
				want = v
			}
		}
		if got := Reached(slices.Clone(values)); got != want {
			t.Fatalf("Reached(%v) = %d, want %d", values, got, want)
		}
	})
}

func TestReachedOfNobodyIsNothing(t *testing.T) {
	if got := Reached([]id.Index{}); got != 0 {
		t.Fatalf("nobody reached %d", got)
	}
}

// Any two majorities of a set share a voter, and so do majorities of sets that
// differ by one voter: the reason why one-at-a-time changes are safe.
func TestMajoritiesOfNeighbouringSetsMeet(t *testing.T) {
	for n := 1; n <= 9; n++ {
		if 2*Size(n) <= n {
			t.Errorf("two majorities of %d voters need not meet", n)
		}
		if Size(n)+Size(n+1) <= n+1 {
			t.Errorf("majorities of %d and %d voters need not meet", n, n+1)
		}
		if Size(n) > n {
			t.Errorf("%d voters can never decide", n)
		}
	}
}

// An election is won when the yeses are a majority, lost when they can no longer
// become one, and open otherwise; strangers and second answers change nothing.
func TestTallyAgainstCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "voters")
		var voters []id.Member
		for i := 1; i <= n; i++ {
			voters = append(voters, id.Member(i))
		}
		var tally Tally
		first := map[id.Member]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "answers") {
			who := id.Member(rapid.IntRange(1, 9).Draw(t, "who"))
			yes := rapid.Bool().Draw(t, "yes")
			if _, known := first[who]; !known {
				first[who] = yes
			}
			tally.Record(who, yes)
		}
		yes, no := 0, 0
		for who, granted := range first {
			if int(who) > n {
				continue
			}
			if granted {
				yes++
			} else {
				no++
			}
		}
		want := Open
		if yes > n/2 {
			want = Won
		} else if n-no <= n/2 {
			want = Lost
		}
		if got := tally.Outcome(voters); got != want {
			t.Fatalf("%d yes, %d no of %d: %v, want %v", yes, no, n, got, want)
		}
		tally.Reset()
		if got := tally.Outcome(voters); got != Open {
			t.Fatalf("a new election is %v", got)
		}
	})
}

func TestNobodyElectsNobody(t *testing.T) {
	var tally Tally
	tally.Record(1, true)
	if got := tally.Outcome(nil); got != Lost {
		t.Fatalf("an election without voters is %v", got)
	}
}
