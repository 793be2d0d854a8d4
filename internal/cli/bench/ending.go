package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Ending is what it costs a server to end many leases with a key each at about the
// same time, and how late it does.
type Ending struct {
	Server string `json:"server"`
	// Quiet and Busy are the same open loop of puts, Busy from the first deadline until
	// the last key has vanished; Quiet before and after.
	Quiet Result `json:"quiet"`
	Busy  Result `json:"busy"`
	// Last is how long after the last deadline the last key vanished, P50 how long after
	// its own deadline a key did.
	Last time.Duration `json:"last_ns"`
	P50  time.Duration `json:"p50_ns"`
	// Within is the time between the first and the last deadline: TTLs are whole seconds.
	Within time.Duration `json:"within_ns"`
	// Ratio of the two 99th percentiles, busy over quiet.
	Ratio  float64          `json:"p99_ratio"`
	Errors map[string]int64 `json:"errors,omitempty"`
}

func (e Ending) server() string { return e.Server }

func (e Ending) faults() map[string]int64 {
	return added(added(e.Quiet.Errors, e.Busy.Errors), e.Errors)
}

// endingPlan is the scenario's options.
type endingPlan struct {
	opts   Options
	leases int
	// ahead is how long before the deadlines the first lease is granted.
	ahead time.Duration
}

func (p *endingPlan) addFlags(f *pflag.FlagSet) {
	f.IntVar(&p.leases, "ending-leases", 100_000, "leases that end together, with a key each")
	f.DurationVar(&p.ahead, "ending-ahead", 90*time.Second, "time between the first grant and the end: granting and the quiet puts must fit in")
}

func (p endingPlan) check() error {
	if p.opts.Rate <= 0 {
		return errors.New("lease-end is an open loop: it needs a rate")
	}
	if p.leases < 1 {
		return fmt.Errorf("%d leases cannot end", p.leases)
	}
	return p.opts.check(find("put"))
}

// leasedKey is the key of a lease; none of them is in the space of any measurement.
func leasedKey(i int) []byte { return fmt.Appendf(nil, "lease-end/%08d", i) }

// mortals are leases that will end, and how they did. Instants count from since.
type mortals struct {
	since time.Time
	// asked and answered are the grants'; ttl in whole seconds.
	asked, answered []time.Duration
	ttl             []int64
	gone            []atomic.Int64 // when each key vanished
	left            atomic.Int64
	done            chan struct{}
	faults          tally
}

// run grants the leases, measures quiet puts, then puts until the last key is gone,
// then quiet ones again.
func (p endingPlan) run(ctx context.Context, s Server, rest time.Duration) (e Ending, err error) {
	e.Server = s.label()
	conns, err := dial(ctx, s, defaultConnections(fillClients))
	if err != nil {
		return e, err
	}
	defer conns.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &mortals{since: time.Now(), asked: make([]time.Duration, p.leases), answered: make([]time.Duration, p.leases),
		ttl: make([]int64, p.leases), gone: make([]atomic.Int64, p.leases), done: make(chan struct{})}
	m.left.Store(int64(p.leases))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if err := m.watch(ctx, conns, &wg); err != nil {
		return e, err
	}
	if err := m.grant(ctx, conns, p.ahead); err != nil {
		return e, fmt.Errorf("%s: %w", s.label(), err)
	}
	// Rests are cut short where the end would come into the quiet puts.
	spare := func() time.Duration {
		return p.ahead - time.Since(m.since) - p.opts.Duration - p.opts.Warmup - time.Second
	}
	if spare() < 0 {
		return e, fmt.Errorf("%s: granting took too long for leases that end after %s", s.label(), p.ahead)
	}
	if err := settle(ctx, []Server{s}, min(rest, spare())); err != nil {
		return e, err
	}
	before, err := once(ctx, s, find("put"), p.opts)
	if err != nil {
		return e, err
	}
	if err := p.busy(ctx, s, m, &e); err != nil {
		return e, err
	}
	if err := settle(ctx, []Server{s}, rest); err != nil {
		return e, err
	}
	quiet := p.opts
	quiet.Seed += 2
	after, err := once(ctx, s, find("put"), quiet)
	if err != nil {
		return e, err
	}
	e.Quiet = joined(before, after)
	if e.Quiet.P99 > 0 {
		e.Ratio = float64(e.Busy.P99) / float64(e.Quiet.P99)
	}
	return e, nil
}

// busy puts from the first deadline until all keys have vanished.
func (p endingPlan) busy(ctx context.Context, s Server, m *mortals, e *Ending) error {
	o := p.opts
	o.Seed++
	probe, err := newProbe(ctx, s, find("put"), o)
	if err != nil {
		return err
	}
	defer probe.conns.close()
	select {
	case <-time.After(time.Until(m.since.Add(p.ahead))):
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.Busy, err = probe.measure(ctx, window{stop: m.done}); err != nil {
		return err
	}
	m.judge(e)
	return nil
}

// grant makes the leases so that all end within a second from ahead on, and puts the
// key of each.
func (m *mortals) grant(ctx context.Context, conns *connections, ahead time.Duration) error {
	n := len(m.ttl)
	return together(ctx, min(fillClients, n), func(ctx context.Context, worker int, next func() int) error {
		conn := conns.all[worker%len(conns.all)]
		leases, kv := pb.NewLeaseClient(conn), pb.NewKVClient(conn)
		for i := next(); i < n; i = next() {
			m.asked[i] = time.Since(m.since)
			ttl := int64((ahead - m.asked[i] + time.Second - 1) / time.Second)
			r, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
			if err != nil {
				return fmt.Errorf("grant: %w", err)
			}
			m.answered[i], m.ttl[i] = time.Since(m.since), r.TTL
			if r.TTL != ttl {
				return fmt.Errorf("grant: wrong answer: %v", r)
			}
			if err := persist(ctx, kv, &pb.PutRequest{Key: leasedKey(i), Lease: r.ID}); err != nil {
				return fmt.Errorf("put: %w", err)
			}
		}
		return nil
	})
}

// watch notes when keys vanish.
func (m *mortals) watch(ctx context.Context, conns *connections, wg *sync.WaitGroup) error {
	stream, err := pb.NewWatchClient(conns.all[0]).Watch(ctx)
	if err != nil {
		return err
	}
	r := &pb.WatchCreateRequest{Key: []byte("lease-end/"), RangeEnd: []byte("lease-end0"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}); err != nil {
		return err
	}
	if r, err := stream.Recv(); err != nil || !r.Created || r.Canceled {
		return errors.Join(fmt.Errorf("watch: not opened: %v", r), err)
	}
	wg.Go(func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				if ctx.Err() == nil {
					m.faults.fail("watch: "+errorText(err), 1)
					close(m.done)
				}
				return
			}
			now := int64(time.Since(m.since))
			for _, e := range r.Events {
				i, err := strconv.Atoi(string(e.Kv.Key[len("lease-end/"):]))
				if err != nil || e.Type != mvccpb.Event_DELETE || i >= len(m.gone) || !m.gone[i].CompareAndSwap(0, now) {
					m.faults.fail("watch: an event that cannot be", 1)
				} else if m.left.Add(-1) == 0 {
					close(m.done)
				}
			}
		}
	})
	return nil
}

// judge says how late the ends were. One before its time is a fault.
func (m *mortals) judge(e *Ending) {
	var late histogram
	first, last, vanished := time.Duration(1<<62), time.Duration(0), time.Duration(0)
	for i := range m.ttl {
		gone, ttl := time.Duration(m.gone[i].Load()), time.Duration(m.ttl[i])*time.Second
		if gone < m.asked[i]+ttl {
			m.faults.fail("a lease ended early, or its key is still there", 1)
		}
		end := m.answered[i] + ttl
		first, last, vanished = min(first, end), max(last, end), max(vanished, gone)
		late.add(gone - end)
	}
	e.Last, e.P50, e.Within = vanished-last, late.quantile(0.5), last-first
	e.Errors = m.faults.errors
}

var endingColumns = []column[Ending]{
	{"last key late by", func(e Ending) figure { return span(e.Last) }},
	{"p50 late by", func(e Ending) figure { return span(e.P50) }},
	{"deadlines within", func(e Ending) figure { return span(e.Within) }},
	{"quiet put p50", func(e Ending) figure { return span(e.Quiet.P50) }},
	{"quiet put p99", func(e Ending) figure { return span(e.Quiet.P99) }},
	{"put p50 meanwhile", func(e Ending) figure { return span(e.Busy.P50) }},
	{"put p99 meanwhile", func(e Ending) figure { return span(e.Busy.P99) }},
	{"p99 to quiet", func(e Ending) figure { return number(e.Ratio) }},
	{"put max meanwhile", func(e Ending) figure { return span(e.Busy.Max) }},
	{"peak", func(e Ending) figure { return size(e.Busy.Peak) }},
}

// compareEndings runs the scenario on all servers in turns.
func compareEndings(ctx context.Context, servers []Server, p endingPlan, t turns, progress io.Writer) (*table, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	all, err := take(ctx, t, servers, func(i, round int) (Ending, error) {
		fmt.Fprintf(progress, "lease-end: %s\n", servers[i].label())
		turn := p
		turn.opts.Seed += uint64(3 * round)
		return turn.run(ctx, servers[i], t.rest)
	})
	if err != nil {
		return nil, err
	}
	out := scenarioTable("Leases that end together", fmt.Sprintf("%d leases with a key each end within a second; %g puts a second over at most %d clients, before, from the first deadline until the last key has vanished, and after. "+
		"Deadlines count from the answer to the grant. %s", p.leases, p.opts.Rate, p.opts.Clients, p.opts.about(t.rounds)), endingColumns)
	addCase(out, fmt.Sprintf("%d leases", p.leases), all, endingColumns)
	out.data = all
	return out, nil
}
