package host

import (
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
)

// The window is compared with a plain set under random use.
func TestIntervalsAreASet(t *testing.T) {
	for seed := range uint64(200) {
		draw := rand.New(rand.NewPCG(seed, 1))
		span := 4 + draw.IntN(60)
		var in intervals
		want := map[id.Seq]bool{}
		for range 300 {
			seq := id.Seq(1 + draw.IntN(span))
			switch draw.IntN(3) {
			case 0:
				in.remove(seq)
				delete(want, seq)
			default:
				if fresh := in.add(seq); fresh == want[seq] {
					t.Fatalf("seed %d: adding %d said fresh=%v, it was in: %v", seed, seq, fresh, want[seq])
				}
				want[seq] = true
			}
			for s := id.Seq(0); s <= id.Seq(span)+1; s++ {
				if in.has(s) != want[s] {
					t.Fatalf("seed %d: %d is in: %v, want %v; runs %v", seed, s, in.has(s), want[s], in.runs)
				}
			}
			for i := 1; i < len(in.runs); i++ {
				if in.runs[i-1].high+1 >= in.runs[i].low {
					t.Fatalf("seed %d: runs %v touch", seed, in.runs)
				}
			}
		}
	}
}

// A term's window forgets the one before: sequences may come again.
func TestWindowBeginsAnewWithATerm(t *testing.T) {
	var w window
	s := sender{member: 2, boot: 9}
	if !w.of(5, s).add(1) || w.of(5, s).add(1) {
		t.Fatal("a repeat in one term was accepted, or a first one was not")
	}
	if !w.has(5, s, 1) || w.has(5, s, 2) || w.has(4, s, 1) || w.has(5, sender{3, 9}, 1) {
		t.Fatal("the window has what was not accepted, or has it not")
	}
	if !w.of(6, s).add(1) {
		t.Fatal("a later term dropped a proposal as a repeat of an earlier one's")
	}
	if !w.of(6, sender{2, 10}).add(1) {
		t.Fatal("another boot's proposal was dropped as a repeat")
	}
}
