package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// scene is a load of n clients whose calls do what the story says, in virtual time.
func scene(n int, rate float64, arrivals Arrivals, call func(context.Context, *client) error) load {
	l := load{work: workload{name: "scene", call: call}, schedule: newSchedule(rate, arrivals, 1)}
	if l.schedule != nil {
		l.schedule.nap = time.Sleep
	}
	for i := range n {
		l.clients = append(l.clients, &client{space: Space{Keys: 10, KeyBytes: 2}, draw: newSource(1, i)})
	}
	return l
}

// lasting calls take as long as said.
func lasting(d time.Duration) func(context.Context, *client) error {
	return func(context.Context, *client) error { time.Sleep(d); return nil }
}

// stalling answers at once, except that nothing is answered between two moments.
func stalling(from, to time.Duration) func(context.Context, *client) error {
	begin := time.Now()
	return func(context.Context, *client) error {
		if at := time.Since(begin); at >= from && at < to {
			time.Sleep(to - at)
		}
		return nil
	}
}

func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want-want/50 || got > want+want/50 {
		t.Errorf("%s is %s, not %s", what, got, want)
	}
}

func TestAClosedLoopKeepsOneCallOfEachClientInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := scene(3, 0, Even, lasting(10*time.Millisecond)).run(t.Context(), window{length: 995 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if got.took.total() != 300 || got.elapsed != time.Second || len(got.errors) != 0 {
			t.Errorf("%d calls in %s, errors %v", got.took.total(), got.elapsed, got.errors)
		}
		near(t, "p99", got.took.quantile(0.99), 10*time.Millisecond)
	})
}

// A server stalls for a second out of ten. In a closed loop one call notices; in
// an open loop every call that should have been made meanwhile does.
func TestAStallIsSeenByEveryCallThatItHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall := func() func(context.Context, *client) error { return stalling(5*time.Second, 6*time.Second) }
		open, err := scene(1, 100, Even, stall()).run(t.Context(), window{length: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if n := open.took.total(); n != 1000 {
			t.Errorf("%d calls of a thousand that were due", n)
		}
		// A tenth of the calls fell into the stall and waited from 0 to 1 s.
		if open.took.quantile(0.89) > time.Millisecond {
			t.Errorf("calls outside of the stall waited for %s", open.took.quantile(0.89))
		}
		near(t, "p95", open.took.quantile(0.95), 500*time.Millisecond)
		near(t, "p99", open.took.quantile(0.99), 900*time.Millisecond)
		near(t, "the longest", time.Duration(open.took.max.Load()), time.Second)
	})
}

// Calls that wait for a free client are late by what they waited.
func TestAnOverloadedServerShowsItsBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Two clients with calls of 10 ms make 200 a second; 400 are due.
		got, err := scene(2, 400, Even, lasting(10*time.Millisecond)).run(t.Context(), window{length: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if n := got.took.total(); n != 400 {
			t.Errorf("%d calls of 400 that were due", n)
		}
		near(t, "elapsed", got.elapsed, 2*time.Second)
		near(t, "the longest", time.Duration(got.took.max.Load()), time.Second)
		near(t, "the median", got.took.quantile(0.5), 500*time.Millisecond)
	})
}

func TestCallsThatAreNeverAnsweredAreCounted(t *testing.T) {
	hang := func(ctx context.Context, _ *client) error { <-ctx.Done(); return ctx.Err() }
	synctest.Test(t, func(t *testing.T) {
		got, err := scene(3, 0, Even, hang).run(t.Context(), window{length: time.Second})
		if err != nil || got.errors[errUnanswered.Error()] != 3 || got.elapsed != time.Second+grace {
			t.Errorf("closed loop: errors %v after %s, %v", got.errors, got.elapsed, err)
		}
		got, err = scene(3, 10, Even, hang).run(t.Context(), window{length: time.Second})
		if err != nil || got.errors[errUnanswered.Error()] != 3 {
			t.Errorf("open loop: errors %v, %v", got.errors, err)
		}
		if late := got.errors["never started: all clients were busy"]; late != 7 {
			t.Errorf("of ten calls that were due, three in flight, %d never started", late)
		}
		if got.took.total() != 0 {
			t.Errorf("%d calls were answered", got.took.total())
		}
	})
}

func TestAnInterruptEndsALoopAtOnce(t *testing.T) {
	hang := func(ctx context.Context, _ *client) error { <-ctx.Done(); return ctx.Err() }
	for name, rate := range map[string]float64{"closed": 0, "open": 100} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				got, err := scene(2, rate, Poisson, hang).run(ctx, window{length: time.Minute})
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
					t.Errorf("after %s: %v", time.Since(begin), err)
				}
				if len(got.errors) != 0 {
					t.Errorf("the user's own interrupt is no error of the server: %v", got.errors)
				}
			})
		})
	}
}

func TestALoopEndsWhenItsStopIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		time.AfterFunc(2005*time.Millisecond, func() { close(stop) })
		got, err := scene(4, 100, Even, lasting(time.Millisecond)).run(t.Context(), window{stop: stop})
		if err != nil || got.took.total() != 200 {
			t.Errorf("%d calls, %v", got.took.total(), err)
		}
	})
}

// Errors are told apart by their texts, are no fast calls, and do not end a loop.
func TestErrorsAreCountedByTheirText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		got, err := scene(1, 0, Even, func(context.Context, *client) error {
			time.Sleep(90 * time.Millisecond)
			switch calls++; calls % 4 {
			case 1:
				return status.Error(codes.ResourceExhausted, "etcdserver: too many requests")
			case 2:
				return errOvertaken
			case 3:
				return expect(4, 5)
			}
			return nil
		}).run(t.Context(), window{length: 3800*time.Millisecond - 1})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{"ResourceExhausted: etcdserver: too many requests": 10, errOvertaken.Error(): 10, "wrong answer: 4 keys instead of 5": 10}
		for text, n := range want {
			if got.errors[text] != n {
				t.Errorf("%d x %s, not %d", got.errors[text], text, n)
			}
		}
		if len(got.errors) != len(want) || got.took.total() != 10 {
			t.Errorf("%d calls, errors %v", got.took.total(), got.errors)
		}
	})
}

func TestUnimplementedEndsALoopAtOnce(t *testing.T) {
	for _, rate := range []float64{0, 100} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			got, err := scene(1, rate, Even, func(context.Context, *client) error {
				return status.Error(codes.Unimplemented, "unknown method RangeStream")
			}).run(t.Context(), window{length: time.Hour})
			if err != nil || got.errors[unimplemented] != 1 || time.Since(begin) > time.Second {
				t.Errorf("after %s: errors %v, %v", time.Since(begin), got.errors, err)
			}
		})
	}
}

func TestManyKindsOfErrorsDoNotFillTheMemory(t *testing.T) {
	var got tally
	for i := range 1000 {
		got.fail(string(rune('a'+i)), 1)
	}
	if len(got.errors) != kinds+1 || got.errors["other errors"] != 1000-kinds {
		t.Errorf("%d kinds, %d others", len(got.errors), got.errors["other errors"])
	}
}

func TestPoissonArrivalsHaveTheRateAndTheSpreadOfTheLaw(t *testing.T) {
	s, begin := newSchedule(1000, Poisson, 7), time.Unix(0, 0)
	const n = 100_000
	at, short := begin, 0
	for range n {
		next := s.next(at)
		if next.Sub(at) < time.Millisecond {
			short++
		}
		at = next
	}
	near(t, "100,000 arrivals", at.Sub(begin), 100*time.Second)
	// 1 - 1/e of the gaps are shorter than their mean.
	if share := float64(short) / n; share < 0.62 || share > 0.645 {
		t.Errorf("%.3f of the gaps are shorter than the mean", share)
	}
	again := newSchedule(1000, Poisson, 7)
	for range n {
		begin = again.next(begin)
	}
	if !begin.Equal(at) {
		t.Error("the same seed made other arrivals")
	}
}

func TestTheRealNapReturnsInTime(t *testing.T) {
	s := newSchedule(1000, Even, 1)
	for range 20 {
		due := time.Now().Add(500 * time.Microsecond)
		if !s.wait(due, nil) || time.Now().Before(due) {
			t.Fatal("woke before the arrival")
		}
	}
	closed := make(chan struct{})
	close(closed)
	if s.wait(time.Now().Add(time.Hour), closed) {
		t.Error("an ended window still waited for its arrival")
	}
}
