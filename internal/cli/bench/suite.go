package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// suite is all tables of the guide's page on performance.
type suite struct {
	targets
	settings
	compacting compactingPlan
	restart    restartPlan
	behind     behindPlan
	ending     endingPlan
	// restartKeys is the key space of the restarts, which is larger than that of the rest.
	restartKeys int
	// compactingRounds and restartRounds have their own numbers: each loads much.
	compactingRounds, restartRounds int
	only                            []string
}

// section of the suite: servers with empty directories, and what they are asked.
type section struct {
	name, title string
	asks        []ask
	// members of each server's cluster; 0 is one.
	members int
}

// ask is a row of a section for each number of clients.
type ask struct {
	workload string
	limit    int
	leases   int
	clients  []int
	// other is what the second server is asked instead.
	other string
}

var sections = []section{
	{name: "put", title: "Put", asks: []ask{{workload: "put", clients: []int{1, 64, 1000}}}},
	{name: "get", title: "Get", asks: []ask{
		{workload: "get", clients: []int{1, 64, 1000}},
		{workload: "get-serializable", clients: []int{1, 64, 1000}},
	}},
	{name: "range", title: "Range and count", asks: []ask{
		{workload: "range", limit: 500, clients: []int{1, 16}},
		{workload: "range", limit: 10_000, clients: []int{1, 16}},
		{workload: "range-limit", limit: 500, clients: []int{1, 16}},
		{workload: "range-all", clients: []int{1}},
		{workload: "range-stream", clients: []int{1}, other: "range-all"},
		{workload: "count", clients: []int{1, 64}},
	}},
	{name: "compare-and-put", title: "Compare and put", asks: []ask{{workload: "compare-and-put", clients: []int{1, 64}}}},
	{name: "cluster", title: "Three members", members: 3, asks: []ask{
		{workload: "put", clients: []int{1, 64, 1000}},
		{workload: "get", clients: []int{1, 64, 1000}},
		{workload: "get-serializable", clients: []int{64}},
	}},
	{name: "lease", title: "Leases", asks: []ask{
		{workload: "lease-grant", clients: []int{1, 64}},
		{workload: "keep-alive", leases: 10_000, clients: []int{1, 100}},
	}},
}

// scenarios are the sections that are more than rows of workloads.
var scenarios = []struct {
	name string
	run  func(context.Context, *suite, programs, io.Writer) (*table, error)
}{
	{"watch", func(ctx context.Context, s *suite, all programs, progress io.Writer) (*table, error) {
		return compareWatches(ctx, all.servers(), s.watchSuite(), s.turns, progress)
	}},
	{"watch-behind", func(ctx context.Context, s *suite, all programs, progress io.Writer) (*table, error) {
		p := s.behind
		p.opts = s.with(64)
		p.opts.Rate = 5000
		return compareBehind(ctx, all.servers(), p, turns{rounds: 1, rest: s.turns.rest}, progress)
	}},
	{"lease-end", func(ctx context.Context, s *suite, all programs, progress io.Writer) (*table, error) {
		p := s.ending
		p.opts = s.with(64)
		return compareEndings(ctx, all.servers(), p, turns{rounds: 1, rest: s.turns.rest}, progress)
	}},
	{"put-while-compacting", func(ctx context.Context, s *suite, all programs, progress io.Writer) (*table, error) {
		p := s.compacting
		p.opts = s.with(64)
		p.opts.Duration *= 30 // quiet windows need their share of the disk's slow moments
		if p.opts.Rate == 0 {
			p.opts.Rate = 1000
		}
		return compareCompacting(ctx, all.servers(), p, turns{rounds: s.compactingRounds, rest: s.turns.rest}, progress)
	}},
	{"restart", func(ctx context.Context, s *suite, all programs, progress io.Writer) (*table, error) {
		p := s.restart
		p.space, p.seed = s.opts.Space, s.opts.Seed
		p.space.Keys = s.restartKeys
		return compareRestarts(ctx, all, p, turns{rounds: s.restartRounds, rest: s.turns.rest}, progress)
	}},
}

// names of all sections, in their order.
func sectionNames() (names []string) {
	for _, s := range sections {
		names = append(names, s.name)
	}
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

func (s *suite) has(name string) bool { return len(s.only) == 0 || slices.Contains(s.only, name) }

// run prints each table when it is done, so that an interrupted run is not lost.
func (s *suite) run(ctx context.Context, out, errs io.Writer) error {
	format, err := s.format()
	if err != nil {
		return err
	}
	for _, name := range s.only {
		if !slices.Contains(sectionNames(), name) {
			return fmt.Errorf("no table %q; there are %s", name, strings.Join(sectionNames(), ", "))
		}
	}
	// Each section has servers of its own: none inherits another's history.
	fresh := func(name string, members int, f func(programs) (*table, error)) error {
		if !s.has(name) {
			return nil
		}
		fmt.Fprintf(errs, "%s: %s\n", time.Now().Format(time.TimeOnly), name)
		all, err := s.launch(ctx, members)
		if err != nil {
			return err
		}
		t, err := f(all)
		if err = errors.Join(err, all.remove()); err != nil {
			return err
		}
		return t.print(out, format)
	}
	for _, part := range sections {
		if err := fresh(part.name, max(part.members, 1), func(all programs) (*table, error) { return s.rows(ctx, part, all, errs) }); err != nil {
			return err
		}
	}
	for _, part := range scenarios {
		if err := fresh(part.name, 1, func(all programs) (*table, error) { return part.run(ctx, s, all, errs) }); err != nil {
			return err
		}
	}
	return nil
}

// rows measures a section of workloads.
func (s *suite) rows(ctx context.Context, part section, all programs, progress io.Writer) (*table, error) {
	var rows []Row
	for _, a := range part.asks {
		for _, n := range a.clients {
			p := plan{work: find(a.workload), opts: s.with(n)}
			p.opts.Limit, p.opts.Leases, p.opts.Rate = a.limit, a.leases, 0
			if a.other != "" {
				p.other = find(a.other)
			}
			row, err := compare(ctx, all.servers(), p, s.turns, progress)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
	}
	o := s.with(1)
	o.Rate = 0
	about := o.about(s.turns.rounds)
	if part.members > 1 {
		about += fmt.Sprintf(" Clients are spread over all %d members; CPU and memory are those of all together.", part.members)
	}
	return rowsTable(part.title, about, rows), nil
}

func (p *restartPlan) addFlags(f *pflag.FlagSet) {
	f.IntVar(&p.dirty, "dirty", 50_000, "puts before each stop, so that there is something to recover")
	f.DurationVar(&p.idle, "idle", 30*time.Second, "least time between the load and the look at idle memory")
}

func suiteCommand(out, errs io.Writer) *cobra.Command {
	var (
		s     suite
		cmd   = &cobra.Command{Use: "suite", Short: "all tables of the guide in one run, with programs that it starts", Args: cobra.NoArgs}
		flags = cmd.Flags()
	)
	s.addPrograms(flags)
	s.addSpace(flags, 100_000)
	s.addTurns(flags, 3)
	s.restart.addFlags(flags)
	flags.DurationVar(&s.opts.Duration, "duration", 4*time.Second, "length of each measurement")
	flags.DurationVar(&s.opts.Warmup, "warmup", time.Second, "run before each measurement")
	flags.Float64Var(&s.opts.Rate, "rate", 1000, "puts a second of put-while-compacting and of lease-end")
	flags.IntVar(&s.compacting.revisions, "revisions", 1_000_000, "superseded revisions that put-while-compacting removes")
	flags.IntVar(&s.compactingRounds, "compacting-rounds", 1, "turns of put-while-compacting")
	s.behind.addFlags(flags)
	s.ending.addFlags(flags)
	flags.IntVar(&s.restartKeys, "restart-keys", 1_000_000, "keys of the restarts")
	flags.IntVar(&s.restartRounds, "restart-rounds", 3, "turns of restarts")
	flags.StringSliceVar(&s.only, "only", nil, "these tables only: "+strings.Join(sectionNames(), ", "))
	s.arrivals = string(Poisson)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context(), out, errs) }
	return cmd
}
