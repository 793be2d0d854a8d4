package bench

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// scenarioCommand is a command that compares servers in a scenario with one number
// of clients; compare runs it.
func scenarioCommand(out io.Writer, cmd *cobra.Command, s *settings, t *targets, compare func(context.Context, []Server, Options) (*table, error)) *cobra.Command {
	cmd.Args = cobra.NoArgs
	t.add(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := s.format()
		if err != nil {
			return err
		}
		if len(s.clients) != 1 {
			return fmt.Errorf("%s takes one number of clients", cmd.Name())
		}
		return t.measured(cmd.Context(), func(servers []Server) error {
			found, err := compare(cmd.Context(), servers, s.with(s.clients[0]))
			if err != nil {
				return err
			}
			return found.print(out, format)
		})
	}
	return cmd
}

func compactingCommand(out, errs io.Writer) *cobra.Command {
	var (
		t    targets
		s    settings
		plan compactingPlan
	)
	cmd := scenarioCommand(out, &cobra.Command{Use: "put-while-compacting", Short: "put in an open loop, quiet and while many revisions are being removed"}, &s, &t,
		func(ctx context.Context, servers []Server, o Options) (*table, error) {
			plan.opts = o
			return compareCompacting(ctx, servers, plan, s.turns, errs)
		})
	s.addSpace(cmd.Flags(), 100_000)
	s.addLoop(cmd.Flags(), []int{64}, 1000)
	s.addTurns(cmd.Flags(), 1)
	cmd.Flags().IntVar(&plan.revisions, "revisions", 1_000_000, "superseded revisions to make first, which the compaction removes")
	return cmd
}

func watchCommand(out, errs io.Writer) *cobra.Command {
	var (
		t    targets
		s    settings
		plan watchPlan
	)
	cmd := scenarioCommand(out, &cobra.Command{Use: "watch", Short: "put keys that many watch: events a second, what each costs, and when it comes"}, &s, &t,
		func(ctx context.Context, servers []Server, o Options) (*table, error) {
			plan.opts = o
			return compareWatches(ctx, servers, []watchPlan{plan}, s.turns, errs)
		})
	flags := cmd.Flags()
	s.addSpace(flags, 10_000)
	s.addLoop(flags, []int{16}, 0)
	s.addTurns(flags, 3)
	flags.IntVar(&plan.watchers, "watchers", 1000, "watches")
	flags.IntVar(&plan.streams, "streams", 100, "streams that the watches are spread over")
	flags.StringVar(&plan.on, "on", onPrefix, "what watchers look at: prefix (all keys) or keys (one each)")
	flags.IntVar(&plan.stalled, "stalled", 0, "more watchers of all keys who read nothing; the same without them is the reference")
	flags.BoolVar(&plan.delivered, "delivered", false, "a client puts again only when all watchers have its last event")
	flags.BoolVar(&plan.alone, "alone", false, "measure the same puts without any watcher as the reference")
	return cmd
}

func behindCommand(out, errs io.Writer) *cobra.Command {
	var (
		t    targets
		s    settings
		plan behindPlan
	)
	cmd := scenarioCommand(out, &cobra.Command{Use: "watch-behind", Short: "put in an open loop, quiet and while a watcher catches up"}, &s, &t,
		func(ctx context.Context, servers []Server, o Options) (*table, error) {
			plan.opts = o
			return compareBehind(ctx, servers, plan, s.turns, errs)
		})
	s.addSpace(cmd.Flags(), 100_000)
	s.addLoop(cmd.Flags(), []int{64}, 5000)
	s.addTurns(cmd.Flags(), 1)
	plan.addFlags(cmd.Flags())
	return cmd
}

func (p *behindPlan) addFlags(f *pflag.FlagSet) {
	f.IntVar(&p.revisions, "behind", 500_000, "revisions that the watcher has missed")
}

func endingCommand(out, errs io.Writer) *cobra.Command {
	var (
		t    targets
		s    settings
		plan endingPlan
	)
	cmd := scenarioCommand(out, &cobra.Command{Use: "lease-end", Short: "put in an open loop, quiet and while many leases end"}, &s, &t,
		func(ctx context.Context, servers []Server, o Options) (*table, error) {
			plan.opts = o
			return compareEndings(ctx, servers, plan, s.turns, errs)
		})
	s.addSpace(cmd.Flags(), 100_000)
	s.addLoop(cmd.Flags(), []int{64}, 1000)
	s.addTurns(cmd.Flags(), 1)
	plan.addFlags(cmd.Flags())
	return cmd
}
