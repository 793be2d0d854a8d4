package embed

import "testing"

// TestCachesDoNotCountTwice: what is kept for good is not kept again as garbage.
func TestCachesDoNotCountTwice(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{1 << 20, 100}, {24 << 20, 100}, {48 << 20, 50}, {160 << 20, 15}, {8 << 30, 12}} {
		if got := collectorPercent(c.live); got != c.want {
			t.Errorf("%d MB live: %d %%, want %d", c.live>>20, got, c.want)
		}
	}
}
