package bench

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Watched is what watches of one server were told while keys were put.
type Watched struct {
	Server string `json:"server"`
	// Puts are the puts meanwhile. In a loop that waits for the watchers a put lasts
	// until its last event has come.
	Puts Result `json:"puts"`
	// Reference is the same puts without the watchers, or without those that are
	// stalled, measured before and after; zero where there is no such thing.
	Reference Result `json:"reference"`
	// Events that came, and how many a second until the last of them.
	Events int64   `json:"events"`
	Rate   float64 `json:"events_per_second"`
	// P50 to Max are from the beginning of a put to the arrival of its event.
	P50  time.Duration `json:"p50_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p999_ns"`
	Max  time.Duration `json:"max_ns"`
	// ServerCPU and ClientCPU are per event, the puts' share included.
	ServerCPU time.Duration `json:"server_cpu_per_event_ns"`
	ClientCPU time.Duration `json:"client_cpu_per_event_ns"`
	// Growth is how much more memory the server had at its peak than at the end of the
	// reference before.
	Growth int64            `json:"growth_bytes"`
	Errors map[string]int64 `json:"errors,omitempty"`
}

func (w Watched) server() string { return w.Server }

func (w Watched) faults() map[string]int64 { return added(w.Errors, w.Puts.Errors) }

// putRatio is the rate of puts to that of the reference.
func (w Watched) putRatio() float64 {
	if w.Reference.Rate == 0 {
		return 0
	}
	return w.Puts.Rate / w.Reference.Rate
}

// What watchers look at.
const (
	// onPrefix: each at the whole key space.
	onPrefix = "prefix"
	// onKeys: the i-th at the i-th key, again from the beginning if there are more.
	onKeys = "keys"
)

// watchPlan is the scenario's options.
type watchPlan struct {
	// name in the table; made from the figures when empty.
	name              string
	opts              Options
	watchers, streams int
	on                string
	// stalled more watch all keys and read nothing.
	stalled int
	// delivered: a client's next put begins when all watchers have the last one.
	delivered bool
	// alone: the same puts without any watcher are the reference.
	alone bool
}

func (p watchPlan) title() string {
	if p.name != "" {
		return p.name
	}
	title := fmt.Sprintf("%d on %d streams, of one prefix", p.watchers, p.streams)
	if p.on == onKeys {
		title = fmt.Sprintf("%d on %d streams, of single keys", p.watchers, p.streams)
	}
	if p.stalled > 0 {
		title += fmt.Sprintf(", beside %d stalled of all", p.stalled)
	}
	if p.opts.Rate > 0 {
		title += fmt.Sprintf(", at %g puts/s", p.opts.Rate)
	}
	return title
}

func (p watchPlan) check() error {
	switch {
	case p.watchers < 1 || p.streams < 1 || p.streams > p.watchers:
		return fmt.Errorf("%d watchers do not fit %d streams", p.watchers, p.streams)
	case p.on != onPrefix && p.on != onKeys:
		return fmt.Errorf("watchers are on a %s or on %s, not on %q", onPrefix, onKeys, p.on)
	case p.stalled < 0:
		return fmt.Errorf("there cannot be %d stalled watchers", p.stalled)
	case p.opts.ValueBytes < stampBytes:
		return fmt.Errorf("a watched value needs at least %d bytes", stampBytes)
	}
	return p.opts.check(find("put"))
}

// watched is what the i-th watcher looks at.
func (p watchPlan) watched(i int) (key, end []byte) {
	if p.on == onKeys {
		return p.opts.key(i % p.opts.Keys), nil
	}
	return p.opts.key(0), p.opts.key(p.opts.Keys)
}

// watchersOf a key.
func (p watchPlan) watchersOf(key int) int64 {
	if p.on == onPrefix {
		return int64(p.watchers)
	}
	n := p.watchers / p.opts.Keys
	if key < p.watchers%p.opts.Keys {
		n++
	}
	return int64(n)
}

// turn measures one server once.
func (p watchPlan) turn(ctx context.Context, s Server) (Watched, error) {
	if p.alone {
		return p.between(ctx, s, nil)
	}
	a, err := gather(ctx, s, p)
	if err != nil {
		return Watched{}, err
	}
	defer a.close()
	if p.stalled == 0 {
		return p.window(ctx, s, a, 0)
	}
	return p.between(ctx, s, a)
}

// between measures the reference, what is of interest, and the reference again. a is
// who watches in both; nil: nobody in the reference.
func (p watchPlan) between(ctx context.Context, s Server, a *audience) (Watched, error) {
	before, err := p.window(ctx, s, a, 1)
	if err != nil {
		return Watched{}, err
	}
	w, err := p.middle(ctx, s, a)
	if err != nil {
		return Watched{}, err
	}
	after, err := p.window(ctx, s, a, 2)
	if err != nil {
		return Watched{}, err
	}
	w.Reference = joined(before.Puts, after.Puts)
	w.Growth = max(w.Puts.Peak-before.Puts.Resident, 0)
	return w, nil
}

func (p watchPlan) middle(ctx context.Context, s Server, a *audience) (Watched, error) {
	if a == nil {
		var err error
		if a, err = gather(ctx, s, p); err != nil {
			return Watched{}, err
		}
		defer a.close()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.stalled > 0 {
		stalled, err := stall(ctx, s, p)
		if err != nil {
			return Watched{}, err
		}
		defer stalled.close()
	}
	return p.window(ctx, s, a, 0)
}

// window puts for a while; a may be nil. Equal numbers draw equal keys.
func (p watchPlan) window(ctx context.Context, s Server, a *audience, number uint64) (w Watched, err error) {
	o, work := p.opts, find("put")
	o.Seed += number << 32
	if a != nil {
		work.call = a.put
	}
	probe, err := newProbe(ctx, s, work, o)
	if err != nil {
		return w, err
	}
	defer probe.conns.close()
	if o.Warmup > 0 {
		if _, err := probe.load.run(ctx, window{length: o.Warmup}); err != nil {
			return w, err
		}
	}
	if a == nil {
		w.Puts, err = probe.measure(ctx, window{length: o.Duration})
		return w, err
	}
	a.drain(ctx)
	came, self, begin := a.begin(), ownCPU(), time.Now()
	before, err := s.observe()
	if err != nil {
		return w, err
	}
	if w.Puts, err = probe.measure(ctx, window{length: o.Duration}); err != nil {
		return w, err
	}
	last := a.drain(ctx)
	after, err := s.observe()
	if err != nil {
		return w, err
	}
	w.Server, w.Errors = s.label(), a.faults.errors
	if w.Events = a.came.Load() - came; w.Events > 0 {
		w.Rate = float64(w.Events) / max(last.Sub(begin), o.Duration).Seconds()
		w.ServerCPU = (after.CPU - before.CPU) / time.Duration(w.Events)
		w.ClientCPU = (ownCPU() - self) / time.Duration(w.Events)
	}
	took := a.took()
	w.P50, w.P99, w.P999, w.Max = took.quantile(0.5), took.quantile(0.99), took.quantile(0.999), time.Duration(took.max.Load())
	return w, nil
}

var watchColumns = []column[Watched]{
	{"events/s", func(w Watched) figure { return number(w.Rate) }},
	{"p50", func(w Watched) figure { return span(w.P50) }},
	{"p99", func(w Watched) figure { return span(w.P99) }},
	{"p99.9", func(w Watched) figure { return span(w.P999) }},
	{"server CPU/event", func(w Watched) figure { return span(w.ServerCPU) }},
	{"client CPU/event", func(w Watched) figure { return span(w.ClientCPU) }},
	{"puts/s", func(w Watched) figure { return number(w.Puts.Rate) }},
	{"put p99", func(w Watched) figure { return span(w.Puts.P99) }},
	{"puts/s to reference", func(w Watched) figure { return number(w.putRatio()) }},
	{"server CPU/put", func(w Watched) figure { return span(w.Puts.ServerCPU) }},
	{"reference's", func(w Watched) figure { return span(w.Reference.ServerCPU) }},
	{"resident", func(w Watched) figure { return size(w.Puts.Resident) }},
	{"growth", func(w Watched) figure { return size(w.Growth) }},
}

// compareWatches runs the plans on all servers in turns.
func compareWatches(ctx context.Context, servers []Server, plans []watchPlan, t turns, progress io.Writer) (*table, error) {
	for _, p := range plans {
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	out := scenarioTable("Watch", fmt.Sprintf("Random keys of the space are put in a closed loop, unless a rate is named; of one prefix, the next put of a client begins when all watchers have the last one. "+
		"Latencies are from the beginning of a put to its event's arrival; CPU is that of everything by events. The reference is the same puts with no watcher, or with none stalled. %s of %s.",
		medianOf(t.rounds), plans[0].opts.Duration), watchColumns)
	var data [][][]Watched
	for _, p := range plans {
		fmt.Fprintf(progress, "watch: %s\n", p.title())
		all, err := take(ctx, t, servers, func(i, round int) (Watched, error) {
			turn := p
			turn.opts.Seed += uint64(round)
			return turn.turn(ctx, servers[i])
		})
		if err != nil {
			return nil, err
		}
		addCase(out, p.title(), all, watchColumns)
		data = append(data, all)
	}
	out.data = data
	return out, nil
}

// watchSuite are the cases of the guide.
func (s *suite) watchSuite() []watchPlan {
	plan := func(name string, clients, keys, valueBytes int, p watchPlan) watchPlan {
		p.name, p.opts = name, s.with(clients)
		p.opts.Keys, p.opts.ValueBytes, p.opts.Rate = keys, valueBytes, 0
		return p
	}
	many := watchPlan{watchers: 10_000, streams: 100, on: onKeys, alone: true}
	paced := plan("the same at 2000 puts/s", 64, 10_000, 256, many)
	paced.opts.Rate = 2000
	return []watchPlan{
		plan("1 of a prefix", 1, 10_000, 256, watchPlan{watchers: 1, streams: 1, on: onPrefix, delivered: true}),
		plan("1000 of a prefix on 100 streams, 512 bytes", 16, 10_000, 512, watchPlan{watchers: 1000, streams: 100, on: onPrefix, delivered: true}),
		plan("10000 of 10000 keys on 100 streams", 64, 10_000, 256, many),
		paced,
		plan("1000 of 1000 keys, 100 stalled of all, 512 bytes", 64, 1000, 512, watchPlan{watchers: 1000, streams: 100, on: onKeys, stalled: 100}),
	}
}
