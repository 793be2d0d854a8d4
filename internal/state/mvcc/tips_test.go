package mvcc

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
)

// A table is held against a map: what it knows of a key is what was put last, whatever
// it has forgotten, and however few bits of a hash its slots have. While it is complete
// it knows every key.
func TestTipsKnowWhatWasPutLast(t *testing.T) {
	for _, tagBits := range []int{0, 1, 4, 20} {
		draw := rand.New(rand.NewPCG(uint64(tagBits), 1))
		tips := newTips(2 * 100 * tipBytes)
		tips.complete, tips.young, tips.old = true, newGeneration(tips.most), newGeneration(tips.most)
		tips.young.number = 1<<(32-tagBits) - 1
		tips.old.number = tips.young.number
		last := map[string]id.Revision{}
		known, forgotten := 0, 0
		for rev := id.Revision(2); rev < 6000; rev++ {
			key := fmt.Appendf(nil, "key-%d", draw.IntN(int(rev)/10+1))
			got, put := tips.get(key), last[string(key)]
			switch {
			case got == nil && put != 0 && tips.complete:
				t.Fatalf("%d bits: %s is forgotten, and the table complete", tagBits, key)
			case got == nil && put != 0:
				forgotten++
			case got != nil && got.mod != put:
				t.Fatalf("%d bits: %s is of %d, not of %d", tagBits, key, got.mod, put)
			case got != nil:
				known++
			}
			if draw.IntN(2) == 0 {
				continue
			}
			tips.put(key, &version{create: rev, mod: rev, number: 1})
			last[string(key)] = rev
			if e := tips.get(key); e == nil || e.mod != rev {
				t.Fatalf("%d bits: %s is %+v just after its put at %d", tagBits, key, e, rev)
			}
		}
		if known < 500 || forgotten < 500 || tips.complete {
			t.Errorf("%d bits: %d were known and %d forgotten, complete: %v", tagBits, known, forgotten, tips.complete)
		}
	}
	if g := newGeneration(100); bits.Len32(g.number) != 7 {
		t.Errorf("a hundred entries are numbered by %b", g.number)
	}
}
