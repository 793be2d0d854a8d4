package osenv

import (
	"testing"
	"time"
)

// Syncs are the ring's as long as those of callers are slow, but for every 64th,
// which measures.
func TestThePaceOfSyncs(t *testing.T) {
	var p pace
	of := func(took time.Duration) (slow int) {
		for range 10 * measuredSync {
			if p.slow() {
				slow++
			} else {
				p.took(took)
			}
		}
		return slow
	}
	if n := of(slowSync - 1); n != 0 {
		t.Errorf("%d quick syncs are slow", n)
	}
	if n := of(slowSync); n < 9*(measuredSync-1) || n > 10*(measuredSync-1) {
		t.Errorf("%d of %d slow syncs are", n, 10*measuredSync)
	}
	if n := of(slowSync - 1); n >= measuredSync {
		t.Errorf("%d syncs are slow after the disk has become quick", n)
	}
}
