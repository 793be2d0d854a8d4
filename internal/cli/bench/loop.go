package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// grace is how long calls may go on after the end of a measurement.
const grace = 30 * time.Second

var errUnanswered = fmt.Errorf("no answer within %s of the end", grace)

// window says when clients start no more calls: after length (0: never), or when
// stop is closed (nil: never).
type window struct {
	length time.Duration
	stop   <-chan struct{}
}

// tally is what all clients of a measurement found together.
type tally struct {
	took    histogram
	elapsed time.Duration
	mu      sync.Mutex
	errors  map[string]int64
}

// kinds of errors that are told apart; a text with a port in it must not fill the memory.
const kinds = 20

func (t *tally) fail(text string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.errors == nil {
		t.errors = map[string]int64{}
	}
	if _, known := t.errors[text]; !known && len(t.errors) >= kinds {
		text = "other errors"
	}
	t.errors[text] += n
}

// unimplemented is the one error that ends a measurement: all calls would end so.
const unimplemented = "unimplemented"

// errorText is a call's error as tables show it, after its code if it has one.
func errorText(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Code().String() + ": " + s.Message()
	}
	return err.Error()
}

// load is what runs: the clients, what they call, and at which pace.
type load struct {
	clients  []*client
	work     workload
	schedule *schedule // nil: each client calls again as soon as it has its answer
}

// run makes calls for the window and waits for their answers. Its error is the
// end of ctx; calls' own errors are in the tally.
func (l load) run(ctx context.Context, w window) (*tally, error) {
	begin := time.Now()
	calls, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	r := &round{load: l, tally: &tally{}, ctx: calls, cut: cut, until: make(chan struct{})}
	over := sync.OnceFunc(func() { r.end = time.Now(); close(r.until) })
	defer context.AfterFunc(calls, over)()
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		var length <-chan time.Time
		if w.length > 0 {
			length = time.After(w.length)
		}
		select {
		case <-length:
		case <-w.stop:
		case <-finished:
			return
		}
		over()
		// No deadline in the calls' context: it would travel with every call.
		select {
		case <-time.After(grace):
			cut(errUnanswered)
		case <-finished:
		}
	}()
	if l.schedule == nil {
		r.closed()
	} else {
		r.open(begin)
	}
	r.elapsed = time.Since(begin)
	return r.tally, ctx.Err()
}

// round is one run of a load.
type round struct {
	load
	*tally
	ctx   context.Context // of the calls
	cut   context.CancelCauseFunc
	until chan struct{} // closed when no more calls start
	end   time.Time     // of the window; set before until is closed
}

// closed keeps one call of each client in flight.
func (r *round) closed() {
	var wg sync.WaitGroup
	for _, c := range r.clients {
		wg.Go(func() {
			for more := true; more && !isClosed(r.until); {
				c.next(r.work)
				more = r.one(c, time.Now())
			}
		})
	}
	wg.Wait()
}

// open starts calls when the schedule says. All clients take arrivals from one
// line; when all are busy, the line grows, and what waits in it is latency, since
// each call is measured from its intended start: a stall of the server is seen by
// every call that it held up and not only by those in flight.
func (r *round) open(begin time.Time) {
	var (
		wg   sync.WaitGroup
		line = make(chan time.Time)
	)
	for _, c := range r.clients {
		wg.Go(func() {
			c.next(r.work)
			for intended := range line {
				if !r.one(c, intended) {
					return
				}
				c.next(r.work)
			}
		})
	}
	for intended := r.schedule.next(begin); ; intended = r.schedule.next(intended) {
		if !r.schedule.wait(intended, r.until) && intended.After(r.end) {
			break
		}
		select {
		case line <- intended:
			continue
		case <-r.ctx.Done():
		}
		r.abandon(intended)
		break
	}
	close(line)
	wg.Wait()
}

// abandon counts the calls of a cut measurement that never started.
func (r *round) abandon(next time.Time) {
	if !errors.Is(context.Cause(r.ctx), errUnanswered) {
		return
	}
	var n int64
	for ; !next.After(r.end); next = r.schedule.next(next) {
		n++
	}
	if n > 0 {
		r.fail("never started: all clients were busy", n)
	}
}

// afterError is a pause that keeps a refusing server from being hammered.
const afterError = 10 * time.Millisecond

// one makes one call and says whether its client should go on.
func (r *round) one(c *client, begin time.Time) bool {
	err := r.work.call(r.ctx, c)
	took := time.Since(begin)
	switch {
	case err == nil:
		r.took.add(took)
	case r.ctx.Err() != nil:
		if cause := context.Cause(r.ctx); errors.Is(cause, errUnanswered) {
			r.fail(cause.Error(), 1)
		}
		return false
	case errors.Is(err, errOvertaken):
		r.fail(err.Error(), 1)
	case status.Code(err) == codes.Unimplemented:
		r.fail(unimplemented, 1)
		r.cut(err)
		return false
	default:
		r.fail(errorText(err), 1)
		time.Sleep(afterError)
	}
	return true
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
