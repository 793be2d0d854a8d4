package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/linear"
)

// Load is what clients do to a cluster: each worker, with a client of its own for
// all endpoints, puts unique values to a few keys, or reads them linearizably,
// one call after the other.
type Load struct {
	t       testing.TB
	stop    context.CancelFunc
	workers sync.WaitGroup
	clients []*clientv3.Client
	keys    []string
	order   atomic.Int64 // positions of calls and returns

	mu      sync.Mutex
	history []linear.Operation
	writes  []write
	failed  []string
	acked   []int // per writer
}

// LoadOptions of a load.
type LoadOptions struct {
	// Prefix of its keys, which nobody else writes.
	Prefix                 string
	Writers, Readers, Keys int
	// Pace is how often a worker calls at most.
	Pace time.Duration
	// Timeout of one call.
	Timeout time.Duration
}

// write is an acknowledged put, as its writer saw it.
type write struct {
	writer         int
	called, answer time.Time
}

// StartLoad begins, and returns when every writer has been acknowledged once.
func (c *Cluster) StartLoad(o LoadOptions) *Load {
	c.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{t: c.t, stop: stop, acked: make([]int, o.Writers)}
	for i := range o.Keys {
		l.keys = append(l.keys, fmt.Sprintf("%s/%02d", o.Prefix, i))
	}
	for worker := range o.Writers + o.Readers {
		cl, err := c.client(c.Endpoints())
		if err != nil {
			c.t.Fatal(err)
		}
		l.clients = append(l.clients, cl)
		l.workers.Go(func() {
			pace := time.NewTicker(o.Pace)
			defer pace.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				call, cancel := context.WithTimeout(context.Background(), o.Timeout)
				key := l.keys[(worker+n)%len(l.keys)]
				if worker < o.Writers {
					l.put(call, cl, worker, key, fmt.Sprintf("%d.%d", worker, n))
				} else {
					l.get(call, cl, worker, key)
				}
				cancel()
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		})
	}
	c.t.Cleanup(func() { l.end() })
	l.AwaitWrites(1)
	return l
}

func (l *Load) put(ctx context.Context, cl *clientv3.Client, worker int, key, value string) {
	op := linear.Operation{Client: worker, Request: &command.PutRequest{Key: []byte(key), Value: []byte(value)}, Call: l.order.Add(1)}
	called := time.Now()
	r, err := cl.Put(ctx, key, value)
	answer := time.Now()
	op.Return = l.order.Add(1)
	switch {
	case errors.Is(err, rpctypes.ErrNoLeader): // a refusal: nothing was proposed, so nobody may see it
		l.fail("put", called, answer, err)
		return
	case err != nil:
		op.Unknown, op.Return = true, linear.Forever
		l.fail("put", called, answer, err)
	default:
		op.Response = &command.PutResponse{Revision: id.Revision(r.Header.Revision)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = append(l.history, op)
	if err == nil {
		l.writes = append(l.writes, write{worker, called, answer})
		l.acked[worker]++
	}
}

func (l *Load) get(ctx context.Context, cl *clientv3.Client, worker int, key string) {
	op := linear.Operation{Client: worker, Request: &command.RangeRequest{Key: []byte(key)}, Call: l.order.Add(1)}
	called := time.Now()
	r, err := cl.Get(ctx, key)
	if op.Return = l.order.Add(1); err != nil {
		l.fail("get", called, time.Now(), err)
		return
	}
	answer := &command.RangeResponse{Revision: id.Revision(r.Header.Revision), Count: r.Count}
	for _, kv := range r.Kvs {
		answer.KVs = append(answer.KVs, command.KeyValue{
			Key: kv.Key, Value: kv.Value, CreateRevision: id.Revision(kv.CreateRevision), ModRevision: id.Revision(kv.ModRevision), Version: kv.Version,
		})
	}
	op.Response = answer
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = append(l.history, op)
}

func (l *Load) fail(what string, called, answer time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Sprintf("%s after %v: %v", what, answer.Sub(called).Round(time.Millisecond), err))
}

// AwaitWrites waits until every writer has been acknowledged so many times more.
func (l *Load) AwaitWrites(more int) {
	l.t.Helper()
	goal := l.progress()
	l.await(fmt.Sprintf("%d more for every writer", more), func(acked []int) bool {
		for i, before := range goal {
			if acked[i] < before+more {
				return false
			}
		}
		return true
	})
}

// AwaitAny waits until so many writes more have been acknowledged, whoseever.
func (l *Load) AwaitAny(more int) {
	l.t.Helper()
	sum := func(acked []int) (all int) {
		for _, n := range acked {
			all += n
		}
		return all
	}
	goal := sum(l.progress()) + more
	l.await(fmt.Sprintf("%d more", more), func(acked []int) bool { return sum(acked) >= goal })
}

func (l *Load) progress() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acked)
}

func (l *Load) await(what string, enough func(acked []int) bool) {
	l.t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for !enough(l.progress()) {
		select {
		case <-look.C:
		case <-deadline:
			l.mu.Lock()
			failed := tally(l.failed)
			l.mu.Unlock()
			l.t.Fatalf("no acknowledgement of %s within %v; failures: %s", what, patience, failed)
		}
	}
}

func (l *Load) end() {
	l.stop()
	l.workers.Wait()
	for _, cl := range l.clients {
		cl.Close()
	}
	l.clients = nil
}

// Seen is what the clients saw of a load.
type Seen struct {
	History []linear.Operation
	Writes  int
	// Gap is the longest time in which no write of anybody was acknowledged;
	// WorstClient the longest that one writer was without an acknowledgement; both
	// begin with the load.
	Gap, WorstClient time.Duration
	// Failed are the calls that ended with an error.
	Failed []string
}

// Stop ends the load, once every call has been answered, and tells what was seen.
func (l *Load) Stop() *Seen {
	l.end()
	s := &Seen{History: l.history, Writes: len(l.writes), Failed: l.failed}
	slices.SortFunc(l.writes, func(a, b write) int { return a.answer.Compare(b.answer) })
	last, of := time.Time{}, map[int]time.Time{}
	for _, w := range l.writes {
		if !last.IsZero() {
			s.Gap = max(s.Gap, w.answer.Sub(last))
		}
		if before, has := of[w.writer]; has {
			s.WorstClient = max(s.WorstClient, w.answer.Sub(before))
		}
		last, of[w.writer] = w.answer, w.answer
	}
	return s
}

// Check judges the history: an order of the calls can be found for every key, and
// revisions grow with real time over all keys. A search given up is an error.
func (s *Seen) Check() error {
	givenUp, err := linear.CheckKeys(s.History, patience)
	if err == nil && givenUp > 0 {
		err = fmt.Errorf("the search was given up for %d keys", givenUp)
	}
	return errors.Join(err, s.checkRevisions())
}

// checkRevisions: no two puts have one revision, and a call made after a put was
// acknowledged sees no less than its revision.
func (s *Seen) checkRevisions() error {
	type event struct {
		at       int64
		returned bool
		op       *linear.Operation
		revision id.Revision
	}
	var events []event
	taken := map[id.Revision]*linear.Operation{}
	for i := range s.History {
		op := &s.History[i]
		var revision id.Revision
		switch r := op.Response.(type) {
		case *command.PutResponse:
			if taken[r.Revision] != nil {
				return fmt.Errorf("two puts have one revision:\n\t%v\n\t%v", op, taken[r.Revision])
			}
			taken[r.Revision], revision = op, r.Revision
		case *command.RangeResponse:
			revision = r.Revision
		default:
			continue // nobody knows what became of it
		}
		events = append(events, event{op.Call, false, op, revision}, event{op.Return, true, op, revision})
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	var floor id.Revision
	var witness *linear.Operation
	known := map[*linear.Operation]event{}
	for _, e := range events {
		if !e.returned {
			known[e.op] = event{op: witness, revision: floor}
			continue
		}
		if before := known[e.op]; e.revision < before.revision {
			return fmt.Errorf("sees less than what had returned before:\n\t%v\n\t%v", e.op, before.op)
		}
		if e.revision > floor {
			floor, witness = e.revision, e.op
		}
	}
	return nil
}

// String is one line of figures.
func (s *Seen) String() string {
	return fmt.Sprintf("%d writes, gap %v, worst client %v, failed %d %s", s.Writes,
		s.Gap.Round(time.Millisecond), s.WorstClient.Round(time.Millisecond), len(s.Failed), tally(s.Failed))
}

// tally counts the different failures, leaving out how long each took.
func tally(failed []string) string {
	if len(failed) == 0 {
		return ""
	}
	count := map[string]int{}
	for _, f := range failed {
		what, _, _ := strings.Cut(f, " after ")
		_, why, _ := strings.Cut(f, ": ")
		count[what+": "+why]++
	}
	var list []string
	for _, f := range slices.Sorted(maps.Keys(count)) {
		list = append(list, fmt.Sprintf("%d x %s", count[f], f))
	}
	return "(" + strings.Join(list, "; ") + ")"
}
