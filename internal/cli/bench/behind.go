package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
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
	// WatcherCPU is what the process of the watcher used.
	WatcherCPU time.Duration `json:"watcher_cpu_ns"`
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
		var c caught
		c, b.WatcherCPU, failed = missed{Server: s, Space: p.opts.Space, Revisions: p.revisions}.apart(ctx)
		b.Events, b.Took = c.Events, c.Took
	}()
	b.Busy, err = probe.measure(ctx, window{stop: done})
	<-done
	return errors.Join(failed, err)
}

var behindColumns = []column[Behind]{
	{"catch-up events/s", func(b Behind) figure { return number(b.Rate()) }},
	{"catch-up took", func(b Behind) figure { return span(b.Took) }},
	{"quiet put p50", func(b Behind) figure { return span(b.Quiet.P50) }},
	{"quiet put p99", func(b Behind) figure { return span(b.Quiet.P99) }},
	{"put p50 meanwhile", func(b Behind) figure { return span(b.Busy.P50) }},
	{"put p99 meanwhile", func(b Behind) figure { return span(b.Busy.P99) }},
	{"p99 to quiet", func(b Behind) figure { return number(b.Ratio) }},
	{"watcher CPU", func(b Behind) figure { return span(b.WatcherCPU) }},
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
	out := scenarioTable("A watcher behind", fmt.Sprintf("A watcher of all keys, a process that goes last, begins %d revisions ago; %g puts a second over at most %d clients, before, meanwhile and after. %s",
		p.revisions, p.opts.Rate, p.opts.Clients, p.opts.about(t.rounds)), behindColumns)
	addCase(out, fmt.Sprintf("%d revisions", p.revisions), all, behindColumns)
	out.data = all
	return out, nil
}
