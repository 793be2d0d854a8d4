package watch

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The index finds exactly those whose range has the key, whatever came and went.
func TestIndexFindsThoseConcerned(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		var x index
		var groups []*group
		word := func() string {
			b := make([]byte, 1+r.IntN(3))
			for i := range b {
				b[i] = byte('a' + r.IntN(4))
			}
			return string(b)
		}
		for range 300 {
			if len(groups) > 0 && r.IntN(3) == 0 {
				i := r.IntN(len(groups))
				x.remove(groups[i])
				groups = slices.Delete(groups, i, i+1)
			} else {
				want := interest{key: word(), prev: r.IntN(2) == 0, noPuts: r.IntN(2) == 0}
				switch r.IntN(3) {
				case 0:
					want.open = true
				case 1:
					if want.end = word(); want.end <= want.key {
						want.end = want.key + "\x00"
					}
				}
				if g := x.find(&want); g != nil {
					if g.interest != want || !slices.Contains(groups, g) {
						t.Fatalf("seed %d: found %+v for %+v", seed, g.interest, want)
					}
					continue
				}
				g := &group{interest: want}
				x.add(g)
				groups = append(groups, g)
			}
			key := []byte(word())
			count := make(map[*group]int)
			x.visit(key, func(g *group) { count[g]++ })
			for _, g := range groups {
				if want := g.covers(key); (count[g] == 1) != want || count[g] > 1 {
					t.Fatalf("seed %d: %q visited %+v %d times", seed, key, g.interest, count[g])
				}
				if x.find(&g.interest) != g {
					t.Fatalf("seed %d: lost %+v", seed, g.interest)
				}
			}
			for g := range count {
				if !slices.Contains(groups, g) {
					t.Fatalf("seed %d: %q visited %+v, which is gone", seed, key, g.interest)
				}
			}
		}
	}
}

// Ranges that begin in order make no list of the treap.
func TestIndexStaysShallow(t *testing.T) {
	var x index
	for i := range 1 << 14 {
		x.add(&group{interest: interest{key: string([]byte{byte(i >> 8), byte(i)}), open: true}})
	}
	var depth func(n *span) int
	depth = func(n *span) int {
		if n == nil {
			return 0
		}
		return 1 + max(depth(n.left), depth(n.right))
	}
	if d := depth(x.root); d > 60 {
		t.Errorf("%d levels", d)
	}
}
