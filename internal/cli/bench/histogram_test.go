package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// A bucket's middle stands for every duration in it to within 1 %.
func TestEveryDurationIsKeptToOnePercent(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	check := func(d time.Duration) {
		t.Helper()
		got := middle(bucket(d))
		if off := math.Abs(float64(got - d)); off > float64(d)/100 {
			t.Fatalf("%d ns is kept as %d ns", d, got)
		}
	}
	for d := range time.Duration(4096) {
		check(d)
	}
	for range 200_000 {
		check(time.Duration(math.Exp2(draw.Float64() * 41.99)))
	}
	for shift := range 42 {
		for _, d := range []time.Duration{1<<shift - 1, 1 << shift, 1<<shift + 1} {
			check(d)
		}
	}
}

func TestBucketsGrowWithTheDuration(t *testing.T) {
	last := -1
	for d := time.Duration(1); d < longest; d += d/200 + 1 {
		b := bucket(d)
		if b < last || b > last+2 {
			t.Fatalf("%d ns is in bucket %d, a little less in %d", d, b, last)
		}
		last = b
	}
	for _, d := range []time.Duration{-1, 0, longest, math.MaxInt64} {
		if b := bucket(d); b < 0 || b >= buckets {
			t.Errorf("%d ns is in bucket %d of %d", d, b, buckets)
		}
	}
}

func TestQuantilesAreThoseOfTheSortedDurations(t *testing.T) {
	draw := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 2, 99, 100, 101, 5000} {
		var h histogram
		all := make([]time.Duration, n)
		for i := range all {
			all[i] = time.Duration(draw.ExpFloat64() * float64(time.Millisecond))
			h.add(all[i])
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.99, 0.999, 1} {
			want := all[max(int(math.Ceil(q*float64(n)))-1, 0)]
			if got := h.quantile(q); math.Abs(float64(got-want)) > float64(want)/100 {
				t.Errorf("of %d durations the quantile %g is %s, not %s", n, q, got, want)
			}
		}
		if got := time.Duration(h.max.Load()); got != all[n-1] {
			t.Errorf("the longest of %d is %s, not %s", n, got, all[n-1])
		}
	}
}

func TestAnEmptyHistogramHasNoQuantile(t *testing.T) {
	var h histogram
	if h.total() != 0 || h.quantile(0.99) != 0 {
		t.Errorf("%d durations, quantile %s", h.total(), h.quantile(0.99))
	}
}

func TestNoDurationIsLostAmongManyClients(t *testing.T) {
	const clients, each = 8, 10_000
	var (
		h  histogram
		wg sync.WaitGroup
	)
	for i := range clients {
		wg.Go(func() {
			for k := range each {
				h.add(time.Duration(i*each + k))
			}
		})
	}
	wg.Wait()
	if h.total() != clients*each || h.max.Load() != clients*each-1 {
		t.Errorf("%d durations, the longest %d", h.total(), h.max.Load())
	}
}

// Two windows joined tell what one that saw all would.
func TestWindowsAreJoined(t *testing.T) {
	one, other, all := new(histogram), new(histogram), new(histogram)
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		all.add(d)
		if i%3 == 0 {
			one.add(d)
		} else {
			other.add(d)
		}
	}
	r := joined(Result{Calls: one.total(), Rate: 30, took: one, Errors: map[string]int64{"a": 1}},
		Result{Calls: other.total(), Rate: 60, took: other, Errors: map[string]int64{"a": 2, "b": 1}})
	if r.Calls != 1000 || r.P50 != all.quantile(0.5) || r.P99 != all.quantile(0.99) || r.P999 != all.quantile(0.999) || int64(r.Max) != all.max.Load() {
		t.Errorf("%+v", r)
	}
	if r.Rate < 49 || r.Rate > 51 || r.Errors["a"] != 3 || r.Errors["b"] != 1 {
		t.Errorf("%+v", r)
	}
}
