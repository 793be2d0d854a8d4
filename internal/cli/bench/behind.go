package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Behind is what it costs a server to show a watcher what it has missed.
type Behind struct {
	Server string `json:"server"`
	// Quiet and Busy are the same open loop of puts, Busy while a watcher catches up;
	// Quiet before it and after it.
	Quiet Result `json:"quiet"`
	Busy  Result `json:"busy"`
	// Events that the watcher had missed, and how long it took to be told them.
	Events int64         `json:"events"`
	Took   time.Duration `json:"catch_up_ns"`
	// Ratio of the two 99th percentiles, busy over quiet.
	Ratio float64 `json:"p99_ratio"`
}

func (b Behind) server() string { return b.Server }

func (b Behind) faults() map[string]int64 { return added(b.Quiet.Errors, b.Busy.Errors) }

// Rate is events per second.
func (b Behind) Rate() float64 {
	if b.Took == 0 {
		return 0
	}
	return float64(b.Events) / b.Took.Seconds()
}

// behindPlan is the scenario's options.
type behindPlan struct {
	opts Options
	// revisions that the watcher has missed.
	revisions int
}

func (p behindPlan) check() error {
	if p.opts.Rate <= 0 {
		return errors.New("watch-behind is an open loop: it needs a rate")
	}
	if p.revisions < 1 {
		return fmt.Errorf("a watcher cannot be %d revisions behind", p.revisions)
	}
	return p.opts.check(find("put"))
}

// run makes what the watcher will have missed, measures quiet puts, then puts while
// it catches up, then quiet ones again.
func (p behindPlan) run(ctx context.Context, s Server, rest time.Duration, progress io.Writer) (Behind, error) {
	b := Behind{Server: s.label()}
	f := filler{server: s, space: p.opts.Space, seed: p.opts.Seed, progress: progress}
	if _, err := f.put(ctx, p.revisions); err != nil {
		return b, err
	}
	if err := settle(ctx, []Server{s}, rest); err != nil {
		return b, err
	}
	var err error
	b.Quiet, b.Ratio, err = beside(ctx, s, p.opts, rest, func() (Result, error) {
		err := p.busy(ctx, s, &b)
		return b.Busy, err
	})
	return b, err
}

// busy puts while a watcher catches up.
func (p behindPlan) busy(ctx context.Context, s Server, b *Behind) error {
	busy := p.opts
	busy.Seed++
	probe, err := newProbe(ctx, s, find("put"), busy)
	if err != nil {
		return err
	}
	defer probe.conns.close()
	if busy.Warmup > 0 {
		if _, err := probe.load.run(ctx, window{length: busy.Warmup}); err != nil {
			return err
		}
	}
	done := make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		b.Events, b.Took, failed = catchUp(ctx, s, p.opts.Space, p.revisions)
	}()
	b.Busy, err = probe.measure(ctx, window{stop: done})
	<-done
	return errors.Join(failed, err)
}

// catchUp watches all keys from so many revisions before the present one, until that
// one has come.
func catchUp(ctx context.Context, s Server, space Space, revisions int) (events int64, took time.Duration, err error) {
	conns, err := dial(ctx, s, 1)
	if err != nil {
		return 0, 0, err
	}
	defer conns.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	now, err := pb.NewKVClient(conns.all[0]).Range(ctx, &pb.RangeRequest{Key: []byte("0"), CountOnly: true})
	if err != nil {
		return 0, 0, err
	}
	stream, err := openWatching(ctx, conns.all[0])
	if err != nil {
		return 0, 0, err
	}
	target := now.Header.Revision
	first := max(target-int64(revisions)+1, 1)
	begin := time.Now()
	if err := stream.create(&pb.WatchCreateRequest{Key: space.key(0), RangeEnd: space.key(space.Keys), StartRevision: first}); err != nil {
		return 0, 0, err
	}
	var r news
	for next := first; next <= target; {
		if err := stream.recv(&r); err != nil {
			return events, 0, err
		}
		if r.canceled {
			return events, 0, fmt.Errorf("%s: the watch ended: %s", s.label(), r.reason)
		}
		for _, e := range r.told {
			if e.revision != next { // each put is a revision
				return events, 0, fmt.Errorf("%s: revision %d came instead of %d", s.label(), e.revision, next)
			}
			next++
			events++
		}
	}
	return events, time.Since(begin), nil
}

var behindColumns = []column[Behind]{
	{"catch-up events/s", func(b Behind) figure { return number(b.Rate()) }},
	{"catch-up took", func(b Behind) figure { return span(b.Took) }},
	{"quiet put p50", func(b Behind) figure { return span(b.Quiet.P50) }},
	{"quiet put p99", func(b Behind) figure { return span(b.Quiet.P99) }},
	{"put p50 meanwhile", func(b Behind) figure { return span(b.Busy.P50) }},
	{"put p99 meanwhile", func(b Behind) figure { return span(b.Busy.P99) }},
	{"p99 to quiet", func(b Behind) figure { return number(b.Ratio) }},
	{"puts/s meanwhile", func(b Behind) figure { return number(b.Busy.Rate) }},
	{"peak", func(b Behind) figure { return size(b.Busy.Peak) }},
}

// compareBehind runs the scenario on all servers in turns.
func compareBehind(ctx context.Context, servers []Server, p behindPlan, t turns, progress io.Writer) (*table, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	all, err := take(ctx, t, servers, func(i, round int) (Behind, error) {
		turn := p
		turn.opts.Seed += uint64(3 * round)
		return turn.run(ctx, servers[i], t.rest, progress)
	})
	if err != nil {
		return nil, err
	}
	out := scenarioTable("A watcher behind", fmt.Sprintf("A watcher of all keys begins %d revisions ago; %g puts a second over at most %d clients, before, meanwhile and after. %s",
		p.revisions, p.opts.Rate, p.opts.Clients, p.opts.about(t.rounds)), behindColumns)
	addCase(out, fmt.Sprintf("%d revisions", p.revisions), all, behindColumns)
	out.data = all
	return out, nil
}
