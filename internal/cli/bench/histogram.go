package bench

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram has 1<<subBits buckets for each power of two, so that the middle
// of a bucket is within 1/(2<<subBits), 0.4 %, of every duration in it.
const (
	subBits = 7
	// longest is the first duration, 73 minutes, that counts as one just below it.
	longest = 1 << 42
	buckets = (42 - subBits + 1) << subBits
)

// histogram counts durations in a fixed number of buckets, so that a long
// measurement needs no more memory than a short one. Many clients may add at a
// time.
type histogram struct {
	counts [buckets]atomic.Int64
	max    atomic.Int64
}

// bucket is the place of a duration: below 1<<subBits each nanosecond has its
// own, above it the first subBits+1 binary digits decide.
func bucket(d time.Duration) int {
	v := uint64(min(max(d, 0), longest-1))
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// middle is the duration that stands for a bucket.
func middle(b int) time.Duration {
	shift := max(b>>subBits-1, 0)
	low := (b - shift<<subBits) << shift
	return time.Duration(low + 1<<shift/2)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(d)].Add(1)
	for {
		was := h.max.Load()
		if int64(d) <= was || h.max.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

// total is how many durations were added.
func (h *histogram) total() int64 {
	var n int64
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// quantile is the least duration that at least the share q of all does not
// exceed, within 0.4 %; 0 when there is none.
func (h *histogram) quantile(q float64) time.Duration {
	left := max(int64(math.Ceil(q*float64(h.total()))), 1)
	for i := range h.counts {
		if left -= h.counts[i].Load(); left <= 0 {
			return min(middle(i), time.Duration(h.max.Load()))
		}
	}
	return 0
}

// join adds all that another histogram counted, when nobody adds to it any more.
func (h *histogram) join(other *histogram) {
	for i := range other.counts {
		h.counts[i].Add(other.counts[i].Load())
	}
	h.max.Store(max(h.max.Load(), other.max.Load()))
}
