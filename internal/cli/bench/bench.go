// Package bench is a load generator for any server that speaks etcd's v3 API. It
// uses the raw generated stubs, no client library, so that what it measures is the
// server.
//
// A workload (workload.go) is one kind of call, a row of a table. A load runs it
// with a number of clients (loop.go): in a closed loop each client calls again
// when it has its answer; in an open loop calls start by a schedule
// (schedule.go), and a latency counts from the intended start, so that a stall
// is not omitted. Latencies go into a histogram of fixed size (histogram.go). A
// wrong answer is an error, and an error is never a fast call.
//
// Two servers are measured in turns (measure.go) and their ratios printed
// (compare.go, table.go). Server and generator often share their cores, so CPU
// per call, read from /proc (process.go), is the fairer figure than the rate.
//
// Scenarios are more than one workload: watches (watching.go, audience.go), a watcher
// that catches up (behind.go, catching.go), leases that end together (ending.go), puts
// while history is compacted (compacting.go), calls whose callers are judged
// (judging.go), memory, disk and restarts of servers that it starts itself (restart.go,
// program.go), and all tables of the guide in one run (suite.go).
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// Command is the program. Tables go to out, progress to errs.
func Command(out, errs io.Writer) *cobra.Command {
	root := &cobra.Command{Use: "bench", Short: "measure a server that speaks etcd's v3 API", SilenceUsage: true, SilenceErrors: true}
	for _, w := range workloads {
		root.AddCommand(workloadCommand(w, out, errs))
	}
	root.AddCommand(fillCommand(errs), compactingCommand(out, errs), listsCommand(out, errs), restartCommand(out, errs),
		judgingCommand(out, errs), watchCommand(out, errs), behindCommand(out, errs), catchUpCommand(out), endingCommand(out, errs), waitCommand(out), suiteCommand(out, errs))
	return root
}

func workloadCommand(w workload, out, errs io.Writer) *cobra.Command {
	var (
		t          targets
		s          settings
		limits     []int
		otherUnary bool
		cmd        = &cobra.Command{Use: w.name, Short: w.short, Args: cobra.NoArgs}
		flags      = cmd.Flags()
	)
	t.add(flags)
	s.addSpace(flags, 100_000)
	s.addLoop(flags, []int{1, 64}, 0)
	s.addTurns(flags, 3)
	if w.limited {
		flags.IntSliceVar(&limits, "limit", []int{500}, "keys that each call reads; several values are measured one after the other")
	}
	if w.leased {
		flags.IntVar(&s.opts.Leases, "leases", 10_000, "leases that are renewed")
	}
	if w.name == "range-stream" {
		flags.BoolVar(&otherUnary, "against-unary", false, "ask the second server for a unary range: etcd before 3.7 has no RangeStream, its row says unimplemented")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := s.format()
		if err != nil {
			return err
		}
		if !w.limited {
			limits = []int{0}
		}
		return t.measured(cmd.Context(), func(servers []Server) error {
			var rows []Row
			for _, limit := range limits {
				for _, n := range s.clients {
					p := plan{work: w, opts: s.with(n)}
					p.opts.Limit = limit
					if otherUnary {
						p.other = find("range-all")
					}
					row, err := compare(cmd.Context(), servers, p, s.turns, errs)
					if err != nil {
						return err
					}
					rows = append(rows, row)
				}
			}
			return rowsTable(w.name, s.with(1).about(s.turns.rounds), rows).print(out, format)
		})
	}
	return cmd
}

func fillCommand(errs io.Writer) *cobra.Command {
	var (
		server Server
		s      settings
		cmd    = &cobra.Command{Use: "fill", Short: "put every key of the key space, unless all are there", Args: cobra.NoArgs}
	)
	cmd.Flags().StringVar(&server.Endpoint, "endpoint", "127.0.0.1:2379", "server to fill")
	server.add(cmd.Flags(), "", "the server")
	s.addSpace(cmd.Flags(), 100_000)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := s.opts.Space.check(); err != nil {
			return err
		}
		return filler{server: server, space: s.opts.Space, seed: s.opts.Seed, progress: errs}.ensure(cmd.Context())
	}
	return cmd
}

func waitCommand(out io.Writer) *cobra.Command {
	var (
		server Server
		limit  time.Duration
		cmd    = &cobra.Command{Use: "wait", Short: "wait until a server answers a linearizable get, and print how long that took", Args: cobra.NoArgs}
	)
	cmd.Flags().StringVar(&server.Endpoint, "endpoint", "127.0.0.1:2379", "server to wait for")
	cmd.Flags().DurationVar(&limit, "timeout", time.Minute, "fail after this long")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := server.address(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), limit)
		defer cancel()
		begin := time.Now()
		if err := await(ctx, server, []byte("0")); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, time.Since(begin).Round(time.Microsecond))
		return err
	}
	return cmd
}

func restartCommand(out, errs io.Writer) *cobra.Command {
	var (
		t     targets
		s     settings
		plan  restartPlan
		cmd   = &cobra.Command{Use: "restart", Short: "load programs with many keys; their memory and disk, and how fast they start again", Args: cobra.NoArgs}
		flags = cmd.Flags()
	)
	t.addPrograms(flags)
	s.addSpace(flags, 1_000_000)
	s.addTurns(flags, 3)
	plan.addFlags(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := s.format()
		if err != nil {
			return err
		}
		all, err := t.launch(cmd.Context(), 1)
		if err != nil {
			return err
		}
		plan.space, plan.seed = s.opts.Space, s.opts.Seed
		found, err := compareRestarts(cmd.Context(), all, plan, s.turns, errs)
		if err = errors.Join(err, all.remove()); err != nil {
			return err
		}
		return found.print(out, format)
	}
	return cmd
}
