// Package measure is what the lower floors count with: histograms of atomic
// buckets, to be read at any time by whoever shows them. Observing costs two atomic
// additions and a look at a few numbers; it allocates nothing, takes no lock and
// asks no clock. Plain counts are atomic integers and need no package.
package measure

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/invariant"
)

// Histogram counts observations by size. A nil Histogram counts nothing.
type Histogram struct {
	bounds []int64
	counts []atomic.Uint64 // the last is of what is above all bounds
	sum    atomic.Int64
	// first is, by the length of a value in bits, the first bucket that it may be in: a
	// few steps from the right one where bounds grow as fast as numbers do.
	first [65]uint16
}

// New makes a histogram whose buckets end at bounds, which must ascend; each bound
// belongs to the bucket that it ends.
func New(bounds []int64) *Histogram {
	for i := 1; i < len(bounds); i++ {
		invariant.Check(bounds[i-1] < bounds[i], "bounds of a histogram: %v", bounds)
	}
	h := &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
	for length := range h.first {
		least := uint64(0)
		if length > 0 {
			least = 1 << (length - 1)
		}
		i := 0
		for i < len(bounds) && bounds[i] >= 0 && uint64(bounds[i]) < least {
			i++
		}
		h.first[length] = uint16(i)
	}
	return h
}

// Doubling are n bounds of which each is twice the one before.
func Doubling(first int64, n int) []int64 {
	bounds := make([]int64, n)
	for i := range bounds {
		bounds[i] = first << i
	}
	return bounds
}

// NewDurations is New for n durations that double.
func NewDurations(first time.Duration, n int) *Histogram { return New(Doubling(int64(first), n)) }

// Observe counts one value. Any goroutine may call it.
func (h *Histogram) Observe(v int64) {
	if h == nil {
		return
	}
	i := int(h.first[bits.Len64(uint64(max(v, 0)))])
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(v)
}

// Took counts a duration, in nanoseconds.
func (h *Histogram) Took(d time.Duration) { h.Observe(int64(d)) }

// Distribution is what a histogram has counted.
type Distribution struct {
	// Bounds end the buckets; Counts are of each alone, and of what is above all.
	Bounds []int64
	Counts []uint64
	Sum    int64
}

// Read looks at the counts. Observations made meanwhile may be in or not, and in the
// sum before they are in a bucket or after.
func (h *Histogram) Read() Distribution {
	if h == nil {
		return Distribution{Counts: make([]uint64, 1)}
	}
	d := Distribution{Bounds: h.bounds, Counts: make([]uint64, len(h.counts)), Sum: h.sum.Load()}
	for i := range h.counts {
		d.Counts[i] = h.counts[i].Load()
	}
	return d
}

// Count is how many observations there were.
func (d Distribution) Count() (n uint64) {
	for _, c := range d.Counts {
		n += c
	}
	return n
}

// Add adds what another histogram of the same bounds has counted.
func (d Distribution) Add(o Distribution) Distribution {
	invariant.Check(len(d.Counts) == len(o.Counts), "histograms of %d and %d buckets", len(d.Counts), len(o.Counts))
	sum := Distribution{Bounds: d.Bounds, Counts: make([]uint64, len(d.Counts)), Sum: d.Sum + o.Sum}
	for i := range sum.Counts {
		sum.Counts[i] = d.Counts[i] + o.Counts[i]
	}
	return sum
}

// UpTo counts the observations up to each of some bounds, every one of which must be
// one of the histogram's own.
func (d Distribution) UpTo(bounds []int64) []uint64 {
	counts := make([]uint64, len(bounds))
	var n uint64
	own := 0
	for i, b := range bounds {
		for own < len(d.Bounds) && d.Bounds[own] <= b {
			n += d.Counts[own]
			own++
		}
		invariant.Check(own > 0 && d.Bounds[own-1] == b, "%d is no bound of the histogram", b)
		counts[i] = n
	}
	return counts
}

// Peak remembers the largest value of the last second or two.
type Peak struct {
	second         atomic.Int64 // which one this is
	this, previous atomic.Int64 // the largest of it, and of the one before
}

// Note takes a value in at a time, in nanoseconds from any beginning. One goroutine
// at a time may call it.
func (p *Peak) Note(now, v int64) {
	p.turn(now)
	if v > p.this.Load() {
		p.this.Store(v)
	}
}

func (p *Peak) turn(now int64) {
	switch second := now / int64(time.Second); second - p.second.Load() {
	case 0:
	case 1:
		p.previous.Store(p.this.Swap(0))
		p.second.Store(second)
	default:
		p.previous.Store(0)
		p.this.Store(0)
		p.second.Store(second)
	}
}

// Lately is the largest value noted in the two seconds up to the last Note. Any
// goroutine may call it.
func (p *Peak) Lately() int64 { return max(p.this.Load(), p.previous.Load()) }
