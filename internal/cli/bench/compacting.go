package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Compacting is what puts cost while history is removed, against a quiet server.
type Compacting struct {
	Server string `json:"server"`
	// Revisions that were removed, at least: each superseded a version of a key.
	Revisions int `json:"revisions"`
	// Quiet and Busy are the same open loop of puts: Quiet in a window before the
	// compaction and one after it, since a machine's own noise changes within the
	// minutes that Busy takes, which is until the physical end.
	Quiet Result `json:"quiet"`
	Busy  Result `json:"busy"`
	// Took is how long the compaction took until its physical end.
	Took time.Duration `json:"compaction_ns"`
	// Ratio of the two 99th percentiles, busy over quiet; 0 if there was no call
	// while the compaction ran.
	Ratio float64 `json:"p99_ratio"`
}

// compactingPlan is the scenario's options.
type compactingPlan struct {
	opts      Options
	revisions int
}

func (p compactingPlan) check() error {
	if p.opts.Rate <= 0 {
		return errors.New("put-while-compacting is an open loop: it needs a rate")
	}
	if p.revisions < 1 {
		return fmt.Errorf("%d revisions cannot be compacted", p.revisions)
	}
	return p.opts.check(find("put"))
}

// run makes the revisions, measures quiet puts, then puts while a compaction of
// all revisions so far removes what they superseded, then quiet ones again.
func (p compactingPlan) run(ctx context.Context, s Server, rest time.Duration, progress io.Writer) (Compacting, error) {
	f := filler{server: s, space: p.opts.Space, seed: p.opts.Seed, progress: progress}
	if err := f.ensure(ctx); err != nil {
		return Compacting{}, err
	}
	if _, err := f.put(ctx, p.revisions); err != nil {
		return Compacting{}, err
	}
	if err := settle(ctx, []Server{s}, rest); err != nil {
		return Compacting{}, err
	}
	c := Compacting{Server: s.label(), Revisions: p.revisions}
	var err error
	c.Quiet, c.Ratio, err = beside(ctx, s, p.opts, rest, func() (Result, error) {
		err := p.busy(ctx, s, &c)
		return c.Busy, err
	})
	return c, err
}

// beside measures quiet puts, then busy ones, then quiet ones again, since a machine's
// own noise changes within the minutes that the busy ones may take. busy is to draw
// from the seed after o's; ratio is that of the 99th percentiles, busy over quiet, 0
// if there was no call.
func beside(ctx context.Context, s Server, o Options, rest time.Duration, busy func() (Result, error)) (quiet Result, ratio float64, err error) {
	before, err := once(ctx, s, find("put"), o)
	if err != nil {
		return quiet, 0, err
	}
	meanwhile, err := busy()
	if err != nil {
		return quiet, 0, err
	}
	if err := settle(ctx, []Server{s}, rest); err != nil {
		return quiet, 0, err
	}
	o.Seed += 2
	after, err := once(ctx, s, find("put"), o)
	if err != nil {
		return quiet, 0, err
	}
	quiet = joined(before, after)
	if quiet.P99 > 0 {
		ratio = float64(meanwhile.P99) / float64(quiet.P99)
	}
	return quiet, ratio, nil
}

// busy measures puts from the beginning of the compaction to its physical end.
func (p compactingPlan) busy(ctx context.Context, s Server, c *Compacting) error {
	busy := p.opts
	busy.Seed++ // other keys and arrivals than the quiet loops'
	probe, err := newProbe(ctx, s, find("put"), busy)
	if err != nil {
		return err
	}
	defer probe.conns.close()
	compacted := make(chan struct{})
	var failed error
	go func() {
		defer close(compacted)
		c.Took, failed = compactAll(ctx, s)
	}()
	c.Busy, err = probe.measure(ctx, window{stop: compacted})
	<-compacted
	return errors.Join(failed, err)
}

// compactAll compacts at the current revision and returns when all is removed.
func compactAll(ctx context.Context, s Server) (time.Duration, error) {
	conns, err := dial(ctx, s, 1)
	if err != nil {
		return 0, err
	}
	defer conns.close()
	stub := pb.NewKVClient(conns.all[0])
	now, err := stub.Range(ctx, &pb.RangeRequest{Key: []byte("0"), CountOnly: true})
	if err != nil {
		return 0, fmt.Errorf("%s: get: %w", s.Endpoint, err)
	}
	begin := time.Now()
	if _, err := stub.Compact(ctx, &pb.CompactionRequest{Revision: now.Header.Revision, Physical: true}); err != nil {
		return 0, fmt.Errorf("%s: compact: %w", s.Endpoint, err)
	}
	return time.Since(begin), nil
}

// compareCompacting runs the scenario on all servers in turns.
func compareCompacting(ctx context.Context, servers []Server, p compactingPlan, t turns, progress io.Writer) (*table, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	all, err := take(ctx, t, servers, func(i, round int) (Compacting, error) {
		turn := p
		turn.opts.Seed += uint64(3 * round)
		return turn.run(ctx, servers[i], t.rest, progress)
	})
	if err != nil {
		return nil, err
	}
	return compactingTable(all, p, t.rounds), nil
}

func compactingTable(all [][]Compacting, p compactingPlan, rounds int) *table {
	t := &table{
		title: "Put while compacting", data: all,
		about: fmt.Sprintf("Puts before and after, and while %d superseded revisions are removed (a compaction at the current revision, physical, until it returns); "+
			"%g puts a second over at most %d clients. %s", p.revisions, p.opts.Rate, p.opts.Clients, p.opts.about(rounds)),
		header: []string{"puts", "server", "p50", "p99", "p99.9", "max", "server CPU/call", "puts/s", "removal took", "errors"},
	}
	for _, server := range all {
		quiet := summaryOf(server, func(c Compacting) Result { return c.Quiet })
		busy := summaryOf(server, func(c Compacting) Result { return c.Busy })
		took := median(server, func(c Compacting) time.Duration { return c.Took })
		line := func(name string, r Result, took string) {
			t.add(name, r.Server, span(r.P50).String(), span(r.P99).String(), span(r.P999).String(), span(r.Max).String(),
				span(r.ServerCPU).String(), number(r.Rate).String(), took, fmt.Sprint(r.errorCount()))
		}
		line("quiet", quiet, "")
		line("compacting", busy, duration(float64(took)))
		t.add("compacting over quiet", ratioRow, over(float64(busy.P50), float64(quiet.P50)), over(float64(busy.P99), float64(quiet.P99)),
			over(float64(busy.P999), float64(quiet.P999)), over(float64(busy.Max), float64(quiet.Max)),
			over(float64(busy.ServerCPU), float64(quiet.ServerCPU)), over(busy.Rate, quiet.Rate), "", "")
		t.notes = append(append(t.notes, quiet.errorNotes("quiet")...), busy.errorNotes("compacting")...)
	}
	return t
}

func summaryOf(rounds []Compacting, part func(Compacting) Result) Result {
	results := make([]Result, len(rounds))
	for i, r := range rounds {
		results[i] = part(r)
	}
	return summary(results)
}
