package server

import (
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
)

func TestWhoIsAccused(t *testing.T) {
	of := func(sums ...uint32) (all []Sum) {
		for i, s := range sums {
			one := Sum{Member: id.Member(i + 1)}
			one.Sum = s
			all = append(all, one)
		}
		return all
	}
	for _, c := range []struct {
		sums []uint32
		size int
		want []id.Member
	}{
		{[]uint32{5}, 3, nil},
		{[]uint32{5, 5, 5}, 3, nil},
		{[]uint32{5, 5, 6}, 3, []id.Member{3}},
		{[]uint32{6, 5, 5}, 3, []id.Member{1}},
		{[]uint32{5, 6}, 3, []id.Member{0}},
		{[]uint32{5, 5, 6}, 5, []id.Member{0}},
		{[]uint32{5, 6, 7, 5, 5}, 5, []id.Member{2, 3}},
		{[]uint32{5, 6}, 2, []id.Member{0}},
	} {
		if got := accuse(of(c.sums...), c.size); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v of %d: %v, want %v", c.sums, c.size, got, c.want)
		}
	}
}
