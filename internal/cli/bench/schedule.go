package bench

import (
	"fmt"
	"time"
)

// Arrivals is how the calls of an open loop follow each other.
type Arrivals string

const (
	// Poisson arrivals come at random, as from many clients that know nothing of each other.
	Poisson Arrivals = "poisson"
	// Even arrivals come at equal distances.
	Even Arrivals = "even"
)

func (a Arrivals) check() error {
	if a != Poisson && a != Even {
		return fmt.Errorf("arrivals are %q or %q, not %q", Poisson, Even, a)
	}
	return nil
}

// schedule says when the calls of an open loop should start. It never waits for
// the server.
type schedule struct {
	mean     time.Duration
	arrivals Arrivals
	draw     source
	nap      func(time.Duration) // sleeps at most that long, exactly
}

// newSchedule of a number of calls a second; nil, a closed loop, when it is 0.
func newSchedule(rate float64, arrivals Arrivals, seed uint64) *schedule {
	if rate <= 0 {
		return nil
	}
	return &schedule{mean: time.Duration(float64(time.Second) / rate), arrivals: arrivals, draw: newSource(seed, -1), nap: nap}
}

// next is the arrival after one at t.
func (s *schedule) next(t time.Time) time.Time {
	if s.arrivals == Even {
		return t.Add(s.mean)
	}
	return t.Add(time.Duration(s.draw.ExpFloat64() * float64(s.mean)))
}

// coarse is how late Go's timers may be: they count in milliseconds when nothing
// else runs.
const coarse = 2 * time.Millisecond

// wait waits for t, or returns false if until is closed first. It is exact
// to some tens of microseconds, since a call's latency counts from t.
func (s *schedule) wait(t time.Time, until <-chan struct{}) bool {
	if left := time.Until(t); left > coarse {
		timer := time.NewTimer(left - coarse)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-until:
			return false
		}
	}
	for left := time.Until(t); left > 0; left = time.Until(t) {
		s.nap(left)
	}
	return !isClosed(until)
}
