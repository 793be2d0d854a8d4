package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Options of one measurement.
type Options struct {
	Space
	// Limit is how many keys a limited range reads.
	Limit int `json:"limit,omitempty"`
	// Leases is how many leases are renewed in turn.
	Leases int `json:"leases,omitempty"`
	// Clients is how many calls are in flight at most, spread over Connections.
	Clients     int `json:"clients"`
	Connections int `json:"connections"`
	// Rate of an open loop in calls a second; 0 for a closed loop, which has no arrivals.
	Rate     float64  `json:"rate"`
	Arrivals Arrivals `json:"arrivals"`
	// Duration of the measurement; Warmup runs before it and does not count.
	Duration time.Duration `json:"duration_ns"`
	Warmup   time.Duration `json:"warmup_ns"`
	Seed     uint64        `json:"seed"`
}

func (o Options) check(w workload) error {
	switch {
	case o.Clients < 1:
		return fmt.Errorf("%d clients cannot call", o.Clients)
	case o.Connections < 1:
		return fmt.Errorf("there cannot be %d connections", o.Connections)
	case o.Duration <= 0:
		return fmt.Errorf("a measurement cannot last %s", o.Duration)
	case o.Rate < 0:
		return fmt.Errorf("there cannot be %g calls a second", o.Rate)
	case w.leased && o.Leases < o.Clients:
		return fmt.Errorf("%d clients cannot renew %d leases", o.Clients, o.Leases)
	case w.limited && (o.Limit < 1 || o.Limit > o.Keys):
		return fmt.Errorf("a range of %d keys does not fit %d keys", o.Limit, o.Keys)
	}
	return errors.Join(o.Space.check(), o.Arrivals.check())
}

// defaultConnections are one for up to ten clients each, 100 at most.
func defaultConnections(clients int) int { return min(max((clients+9)/10, 1), 100) }

// Result of one measurement, or the median of several, figure by figure.
type Result struct {
	Server string `json:"server"`
	// Calls that were answered rightly. The figures below are theirs.
	Calls int64 `json:"calls"`
	// Errors of all other calls, by text.
	Errors map[string]int64 `json:"errors,omitempty"`
	Rate   float64          `json:"rate_per_second"`
	P50    time.Duration    `json:"p50_ns"`
	P99    time.Duration    `json:"p99_ns"`
	P999   time.Duration    `json:"p999_ns"`
	Max    time.Duration    `json:"max_ns"`
	// ServerCPU and ClientCPU are user and system time per call; the server's is 0
	// when its PID is unknown.
	ServerCPU time.Duration `json:"server_cpu_per_call_ns"`
	ClientCPU time.Duration `json:"client_cpu_per_call_ns"`
	// Received is what came in by the connections, in bytes per second.
	Received float64 `json:"received_bytes_per_second"`
	// Resident memory of the server at the end, and its peak in the measurement; 0
	// when its PID is unknown.
	Resident int64 `json:"server_resident_bytes"`
	Peak     int64 `json:"server_peak_resident_bytes"`
	// Rounds that this is the median of.
	Rounds []Result `json:"rounds,omitempty"`

	took *histogram // of one measurement, or of windows joined
}

// newClients that share connections. A round of its own seed draws its own keys.
func newClients(conns *connections, o Options) []*client {
	clients := make([]*client, o.Clients)
	for i := range clients {
		clients[i] = &client{
			stub: pb.NewKVClient(conns.all[i%len(conns.all)]), number: i,
			space: o.Space, limit: o.Limit, draw: newSource(o.Seed, i), value: make([]byte, o.ValueBytes),
		}
	}
	return clients
}

// probe is one server with clients ready to call it.
type probe struct {
	server Server
	conns  *connections
	load   load
}

// newProbe connects. The caller closes its connections.
func newProbe(ctx context.Context, s Server, w workload, o Options) (*probe, error) {
	conns, err := dial(ctx, s, o.Connections)
	if err != nil {
		return nil, err
	}
	p := &probe{server: s, conns: conns,
		load: load{clients: newClients(conns, o), work: w, schedule: newSchedule(o.Rate, o.Arrivals, o.Seed)}}
	if w.prepare != nil {
		if err := w.prepare(ctx, p, o); err != nil {
			conns.close()
			return nil, err
		}
	}
	return p, nil
}

// measure runs the load for the window.
func (p *probe) measure(ctx context.Context, w window) (Result, error) {
	p.server.resetPeak()
	before, err := p.server.observe()
	if err != nil {
		return Result{}, err
	}
	self, received := ownCPU(), p.conns.received.Load()
	t, err := p.load.run(ctx, w)
	if err != nil {
		return Result{}, err
	}
	self, received = ownCPU()-self, p.conns.received.Load()-received
	after, err := p.server.observe()
	if err != nil {
		return Result{}, err
	}
	r := Result{Server: p.server.label(), Calls: t.took.total(), Errors: t.errors, Resident: after.Resident, Peak: after.Peak, took: &t.took}
	if r.Calls > 0 {
		r.Rate = float64(r.Calls) / t.elapsed.Seconds()
		r.percentiles()
		r.ServerCPU = (after.CPU - before.CPU) / time.Duration(r.Calls)
		r.ClientCPU = self / time.Duration(r.Calls)
		r.Received = float64(received) / t.elapsed.Seconds()
	}
	return r, nil
}

func (r *Result) percentiles() {
	r.P50, r.P99, r.P999 = r.took.quantile(0.5), r.took.quantile(0.99), r.took.quantile(0.999)
	r.Max = time.Duration(r.took.max.Load())
}

// joined is one measurement in two windows: the percentiles are those of all calls,
// rates and costs the mean of both by calls.
func joined(a, b Result) Result {
	r := Result{Server: a.Server, Calls: a.Calls + b.Calls, Errors: map[string]int64{}, Resident: b.Resident, Peak: max(a.Peak, b.Peak), took: new(histogram)}
	for _, part := range []Result{a, b} {
		for text, n := range part.Errors {
			r.Errors[text] += n
		}
		if part.Calls == 0 {
			continue
		}
		r.took.join(part.took)
		share := float64(part.Calls) / float64(r.Calls)
		r.Rate += share * part.Rate
		r.Received += share * part.Received
		r.ServerCPU += time.Duration(share * float64(part.ServerCPU))
		r.ClientCPU += time.Duration(share * float64(part.ClientCPU))
	}
	r.percentiles()
	return r
}

// ownCPU is the load generator's CPU so far; 0 where there is no /proc.
func ownCPU() time.Duration {
	u, _ := observe(os.Getpid())
	return u.CPU
}

// once measures one server, after a warm-up.
func once(ctx context.Context, s Server, w workload, o Options) (Result, error) {
	p, err := newProbe(ctx, s, w, o)
	if err != nil {
		return Result{}, err
	}
	defer p.conns.close()
	if o.Warmup > 0 {
		if _, err := p.load.run(ctx, window{length: o.Warmup}); err != nil {
			return Result{}, err
		}
	}
	return p.measure(ctx, window{length: o.Duration})
}

// calm is how long servers may take to come to rest before a measurement.
const calm = 20 * time.Second

// settle waits until no server uses more than a twentieth of a core, so that what
// one does in the background is not measured with the other, or until limit has
// passed.
func settle(ctx context.Context, servers []Server, limit time.Duration) error {
	const look = 500 * time.Millisecond
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		before := make([]usage, len(servers))
		for i, s := range servers {
			before[i], _ = s.observe()
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
		busy := false
		for i, s := range servers {
			after, err := s.observe()
			if err != nil {
				return err
			}
			busy = busy || after.CPU-before[i].CPU > look/20
		}
		if !busy {
			return nil
		}
	}
	return nil
}

// turns are rounds of several servers one after the other, every second time in
// the opposite order.
type turns struct {
	rounds int
	// rest is the longest wait for calm servers before each turn.
	rest time.Duration
}

// take calls one turn for each round and each server, and returns the results of
// each server.
func take[R any](ctx context.Context, t turns, servers []Server, turn func(server, round int) (R, error)) ([][]R, error) {
	results := make([][]R, len(servers))
	for round := range max(t.rounds, 1) {
		for _, i := range order(round, len(servers)) {
			if err := settle(ctx, servers, t.rest); err != nil {
				return nil, err
			}
			r, err := turn(i, round)
			if err != nil {
				return nil, err
			}
			results[i] = append(results[i], r)
		}
	}
	return results, nil
}

// order of n servers in a round.
func order(round, n int) []int {
	turn := make([]int, n)
	for k := range turn {
		if turn[k] = k; round%2 == 1 {
			turn[k] = n - 1 - k
		}
	}
	return turn
}

// median of a figure of several rounds; of an even number the lower middle one.
func median[R any, F cmp.Ordered](rounds []R, figure func(R) F) F {
	figures := make([]F, len(rounds))
	for i, r := range rounds {
		figures[i] = figure(r)
	}
	slices.Sort(figures)
	return figures[(len(figures)-1)/2]
}

// summary is the median of rounds, figure by figure; calls and errors are added.
func summary(rounds []Result) Result {
	s := Result{
		Server:    rounds[0].Server,
		Rate:      median(rounds, func(r Result) float64 { return r.Rate }),
		P50:       median(rounds, func(r Result) time.Duration { return r.P50 }),
		P99:       median(rounds, func(r Result) time.Duration { return r.P99 }),
		P999:      median(rounds, func(r Result) time.Duration { return r.P999 }),
		Max:       median(rounds, func(r Result) time.Duration { return r.Max }),
		ServerCPU: median(rounds, func(r Result) time.Duration { return r.ServerCPU }),
		ClientCPU: median(rounds, func(r Result) time.Duration { return r.ClientCPU }),
		Received:  median(rounds, func(r Result) float64 { return r.Received }),
		Resident:  median(rounds, func(r Result) int64 { return r.Resident }),
		Peak:      median(rounds, func(r Result) int64 { return r.Peak }),
	}
	for _, r := range rounds {
		s.Calls += r.Calls
		for text, n := range r.Errors {
			if s.Errors == nil {
				s.Errors = map[string]int64{}
			}
			s.Errors[text] += n
		}
	}
	if len(rounds) > 1 {
		s.Rounds = rounds
	}
	return s
}
