package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// stampBytes are the first bytes of a watched value: when its put was begun, in
// nanoseconds since the audience came together, and the number of its client.
const stampBytes = 16

// audience is watchers of one server and what they are told. Watches are spread over
// streams, streams over connections: ten to one, 100 connections at most.
type audience struct {
	plan  watchPlan
	since time.Time
	conns *connections
	leave context.CancelFunc
	wg    sync.WaitGroup
	ears  []*ear
	// owed counts the events of all puts that were answered, came those that came.
	owed, came atomic.Int64
	// open has, for each client, what is missing of the put that it waits for.
	open   []delivery
	faults tally
}

// delivery is a put whose client waits until all watchers have its event.
type delivery struct {
	missing atomic.Int64
	done    chan struct{}
}

// ear is one stream of watches.
type ear struct {
	stream watching
	// took are the latencies of events since begin.
	took atomic.Pointer[histogram]
	last []int64 // the newest revision that each watch was told, by its ID
	at   atomic.Int64
}

// gather opens all watches and returns when the server has confirmed them.
func gather(ctx context.Context, s Server, p watchPlan) (*audience, error) {
	a := &audience{plan: p, since: time.Now(), open: make([]delivery, p.opts.Clients)}
	for i := range a.open {
		a.open[i].done = make(chan struct{}, 1)
	}
	var err error
	if a.conns, err = dial(ctx, s, defaultConnections(p.streams)); err != nil {
		return nil, err
	}
	ctx, a.leave = context.WithCancel(ctx)
	created := make(chan error, p.streams)
	for i := range p.streams {
		e := &ear{}
		e.took.Store(new(histogram))
		a.ears = append(a.ears, e)
		if e.stream, err = openWatching(ctx, a.conns.all[i%len(a.conns.all)]); err != nil {
			a.close()
			return nil, err
		}
		a.wg.Go(func() {
			created <- e.create(p, i)
			a.listen(ctx, e)
		})
	}
	for range a.ears {
		err = errors.Join(err, <-created)
	}
	if err != nil {
		a.close()
		return nil, fmt.Errorf("%s: watch: %w", s.label(), err)
	}
	return a, nil
}

// create opens the watches of the i-th stream: every streams-th one from i on.
func (e *ear) create(p watchPlan, i int) error {
	n := 0
	for w := i; w < p.watchers; w += p.streams {
		n++
		key, end := p.watched(w)
		if err := e.stream.create(&pb.WatchCreateRequest{Key: key, RangeEnd: end, WatchId: int64(n)}); err != nil {
			return err
		}
	}
	e.last = make([]int64, n+1)
	var r news
	for range n {
		if err := e.stream.recv(&r); err != nil {
			return err
		}
		if !r.created || r.canceled || len(r.told) > 0 {
			return fmt.Errorf("not opened: %s", r.reason)
		}
	}
	return nil
}

// listen takes what comes until the audience leaves.
func (a *audience) listen(ctx context.Context, e *ear) {
	var r news
	for {
		err := e.stream.recv(&r)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.faults.fail("watch: "+errorText(err), 1)
			return
		case r.canceled || r.id < 1 || r.id >= int64(len(e.last)):
			a.faults.fail(fmt.Sprintf("watch: ended: %s", r.reason), 1)
			return
		}
		now := time.Since(a.since)
		took := e.took.Load()
		for _, event := range r.told {
			if event.revision <= e.last[r.id] {
				a.faults.fail("watch: an event twice or out of order", 1)
			} else {
				e.last[r.id] = event.revision
			}
			if value := event.value; len(value) >= stampBytes {
				took.add(now - time.Duration(binary.LittleEndian.Uint64(value)))
				a.delivered(binary.LittleEndian.Uint64(value[8:]))
			}
		}
		e.at.Store(int64(now))
		a.came.Add(int64(len(r.told)))
	}
}

func (a *audience) delivered(client uint64) {
	if a.plan.delivered && client < uint64(len(a.open)) && a.open[client].missing.Add(-1) == 0 {
		a.open[client].done <- struct{}{}
	}
}

// put is the call of a workload: a put that is stamped, and, if the plan says so, is
// over only when all watchers have it.
func (a *audience) put(ctx context.Context, c *client) error {
	watchers := a.plan.watchersOf(c.key)
	open := &a.open[c.number]
	open.missing.Store(watchers)
	select {
	case <-open.done: // of a put that failed after all watchers had it
	default:
	}
	binary.LittleEndian.PutUint64(c.value, uint64(time.Since(a.since)))
	binary.LittleEndian.PutUint64(c.value[8:], uint64(c.number))
	if err := put(ctx, c); err != nil {
		return err
	}
	a.owed.Add(watchers)
	if !a.plan.delivered || watchers == 0 {
		return nil
	}
	select {
	case <-open.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patienceForEvents is how long events may take after the last put was answered.
var patienceForEvents = grace

// begin forgets what came so far.
func (a *audience) begin() (came int64) {
	for _, e := range a.ears {
		e.took.Store(new(histogram))
	}
	return a.came.Load()
}

// drain waits until all events of answered puts have come, and returns when the last
// one did. Those that are missing after the grace are a fault.
func (a *audience) drain(ctx context.Context) (last time.Time) {
	for deadline := time.Now().Add(patienceForEvents); a.came.Load() < a.owed.Load() && ctx.Err() == nil; {
		if time.Now().After(deadline) {
			a.faults.fail("watch: an event is missing", a.owed.Load()-a.came.Load())
			a.owed.Store(a.came.Load())
			break
		}
		time.Sleep(time.Millisecond)
	}
	var at int64
	for _, e := range a.ears {
		at = max(at, e.at.Load())
	}
	return a.since.Add(time.Duration(at))
}

// took are the latencies since begin.
func (a *audience) took() *histogram {
	all := new(histogram)
	for _, e := range a.ears {
		all.join(e.took.Load())
	}
	return all
}

// close ends all watches.
func (a *audience) close() {
	a.leave()
	a.conns.close()
	a.wg.Wait()
}

// stall opens watches of the whole key space, each on a stream of its own, of which
// nothing is read once they stand. The caller closes the connections.
func stall(ctx context.Context, s Server, p watchPlan) (*connections, error) {
	conns, err := dial(ctx, s, defaultConnections(p.stalled))
	if err != nil {
		return nil, err
	}
	for i := range p.stalled {
		e := &ear{}
		one := p
		one.watchers, one.streams, one.on = 1, 1, onPrefix
		if e.stream, err = openWatching(ctx, conns.all[i%len(conns.all)]); err == nil {
			err = e.create(one, 0)
		}
		if err != nil {
			conns.close()
			return nil, fmt.Errorf("%s: watch: %w", s.label(), err)
		}
	}
	return conns, nil
}
