package measure

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func TestAHistogramCountsUpToItsBounds(t *testing.T) {
	h := New([]int64{1, 2, 4, 8})
	for _, v := range []int64{0, 1, 2, 3, 4, 5, 8, 9, 1000} {
		h.Observe(v)
	}
	d := h.Read()
	if want := []uint64{2, 1, 2, 2, 2}; !slices.Equal(d.Counts, want) || d.Sum != 1032 || d.Count() != 9 {
		t.Errorf("%+v, want %v", d, want)
	}
	if got := d.UpTo([]int64{2, 8}); !slices.Equal(got, []uint64{3, 7}) {
		t.Errorf("up to 2 and 8: %v", got)
	}
	twice := d.Add(d)
	if twice.Count() != 18 || twice.Sum != 2064 || d.Count() != 9 {
		t.Errorf("twice: %+v", twice)
	}
	defer func() {
		if recover() == nil {
			t.Error("3 is no bound of it")
		}
	}()
	d.UpTo([]int64{3})
}

// Every value is in the bucket that its bounds say, whatever the bounds.
func TestBucketsOfAllSizes(t *testing.T) {
	for _, bounds := range [][]int64{nil, {0}, {-5, 0, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9}, {1000}, Doubling(1, 62), {7, 8, 9, 1 << 40}} {
		values := []int64{-10, -5, -1, 0, 1 << 62, 1<<63 - 1}
		for _, b := range bounds {
			values = append(values, b-1, b, b+1)
		}
		for _, v := range values {
			h := New(bounds)
			h.Observe(v)
			want := 0
			for want < len(bounds) && v > bounds[want] {
				want++
			}
			if d := h.Read(); d.Counts[want] != 1 || d.Sum != v {
				t.Errorf("%d in %v: %v, want one in %d", v, bounds, d.Counts, want)
			}
		}
	}
}

func TestBoundsThatDouble(t *testing.T) {
	want := []int64{1e6, 2e6, 4e6}
	if got := NewDurations(time.Millisecond, 3).Read().Bounds; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestNobodyLosesAnObservation(t *testing.T) {
	h := NewDurations(1, 10)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				h.Took(time.Duration(i))
			}
		})
	}
	wg.Wait()
	if d := h.Read(); d.Count() != 4000 || d.Sum != 4*499500 {
		t.Errorf("%+v", d)
	}
	var none *Histogram
	none.Observe(1)
	if none.Read().Count() != 0 {
		t.Error("none has counted")
	}
}

func TestAPeakIsForgotten(t *testing.T) {
	var p Peak
	second := int64(time.Second)
	for _, step := range []struct{ at, v, want int64 }{
		{10 * second, 5, 5}, {10*second + 1, 3, 5}, {11 * second, 4, 5}, {12 * second, 1, 4}, {13 * second, 2, 2}, {20 * second, 1, 1},
	} {
		p.Note(step.at, step.v)
		if got := p.Lately(); got != step.want {
			t.Errorf("at %d: %d, want %d", step.at, got, step.want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	h := NewDurations(time.Millisecond, 40)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		h.Observe(i << 12)
	}
}
