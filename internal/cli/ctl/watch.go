package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func watchCommand(s *session) *cobra.Command {
	var f watchFlags
	var interactive bool
	cmd := &cobra.Command{
		Use:   "watch [flags] <key or prefix> [range_end] [-- command [arguments]]",
		Short: "See changes as they happen.",
		Long: `Print the changes of a key, of a range of keys or of all keys with a prefix, from now
on or from a revision of the past on, until interrupted.

A command after -- is run for each change, after it is printed. It finds what happened
in ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE, the
last three in double quotes with Go's escapes. If it fails, the watch ends.

Without a key on the command line, ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END count.

With -i, watches are read from standard input, a line each, beside each other:

  watch [flags] <key or prefix> [range_end] [-- command [arguments]]
  progress                                   (how far have they all come?)`,
		Example: `  etcdctl watch --prefix config/ -- sh -c 'echo changed: $ETCD_WATCH_KEY'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			variables, err := s.watchVariables()
			if err != nil {
				return err
			}
			if interactive {
				return s.connect(cmd, func(c *clientv3.Client, p *print.Printer) error {
					return s.watchLines(cmd.Context(), c, p, variables)
				})
			}
			w, err := f.request(args, cmd.ArgsLenAtDash(), variables)
			if err != nil {
				return exit.BadArgs("%w", err)
			}
			return s.connect(cmd, func(c *clientv3.Client, p *print.Printer) error { return s.watch(cmd.Context(), c, p, w) })
		},
	}
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "read watches from standard input")
	f.register(cmd.Flags())
	return cmd
}

// watch writes the changes that one watch sees, until it is ended.
func (s *session) watch(ctx context.Context, c *clientv3.Client, p *print.Printer, w watchRequest) error {
	if err := inStreams(p); err != nil {
		return err
	}
	if err := s.follow(p, w.begin(ctx, c), w.command); err != nil {
		return err
	}
	return exit.With(exit.CodeInterrupted, errors.New("watch is canceled by the server"))
}

// inStreams refuses the one format that shows nothing of what comes bit by bit,
// before the first bit has been waited for.
func inStreams(p *print.Printer) error {
	if p.Format() == print.Table {
		return exit.BadFeature("table not supported as output format")
	}
	return nil
}

// follow writes responses as they come, and runs the command, if there is one, for
// each of their events. It returns nil when the watch has ended.
func (s *session) follow(p *print.Printer, responses clientv3.WatchChan, command []string) error {
	for r := range responses {
		if r.Canceled {
			fmt.Fprintf(s.Stderr, "watch was canceled (%v)\n", r.Err())
		}
		if err := p.Watch(&r); err != nil {
			return err
		}
		if len(command) == 0 {
			continue
		}
		for _, e := range r.Events {
			run := s.program(command,
				fmt.Sprintf("ETCD_WATCH_REVISION=%d", r.Header.GetRevision()),
				fmt.Sprintf("ETCD_WATCH_EVENT_TYPE=%q", e.Type),
				fmt.Sprintf("ETCD_WATCH_KEY=%q", e.Kv.GetKey()),
				fmt.Sprintf("ETCD_WATCH_VALUE=%q", e.Kv.GetValue()))
			if err := run.Run(); err != nil {
				fmt.Fprintf(s.Stderr, "command %q error (%v)\n", command, err)
				return exit.ErrReported
			}
		}
	}
	return nil
}

// watchRequest is one watch as it was asked for.
type watchRequest struct {
	key     string
	opts    []clientv3.OpOption
	command []string // run for each event; may be empty
}

// begin asks for the watch and returns when the server has it. Watches of one
// client share a stream. A member that has lost its leader ends them.
func (w *watchRequest) begin(ctx context.Context, c *clientv3.Client) clientv3.WatchChan {
	return c.Watch(clientv3.WithRequireLeader(ctx), w.key, w.opts...)
}

// watchFlags are the flags of one watch, on the command line or on a line that is
// typed.
type watchFlags struct {
	prefix, prevKV, progress bool
	rev                      int64
}

func (f *watchFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.prefix, "prefix", false, "watch all keys with the prefix")
	fs.Int64Var(&f.rev, "rev", 0, "first revision to see; 0 is the next one")
	fs.BoolVar(&f.prevKV, "prev-kv", false, "print the key and value that were there before each change")
	fs.BoolVar(&f.progress, "progress-notify", false, "print from time to time how far an idle watch has come")
}

// watchVariables are the key and the range's end that count when the arguments
// have none: no, one or two words.
func (s *session) watchVariables() (words []string, err error) {
	var key, end string
	for _, pair := range s.Environ {
		switch name, value, _ := strings.Cut(pair, "="); name {
		case "ETCDCTL_WATCH_KEY":
			key = value
		case "ETCDCTL_WATCH_RANGE_END":
			end = value
		}
	}
	switch {
	case key == "" && end != "":
		return nil, exit.BadArgs("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=%q", end)
	case key == "":
		return nil, nil
	case end == "":
		return []string{key}, nil
	}
	return []string{key, end}, nil
}

var (
	errWatchArgs      = errors.New("bad number of arguments")
	errWatchNoCommand = errors.New("bad number of arguments (found separator --, but no commands)")
	errWatchConflict  = errors.New("bad number of arguments (found conflicting environment key)")
	errWatchEnds      = errors.New("`range_end` and `--prefix` are mutually exclusive")
)

// request makes a watch of arguments, of which those from dash on stood behind a
// "--"; without one, dash is negative.
func (f *watchFlags) request(args []string, dash int, variables []string) (w watchRequest, err error) {
	words := args
	if dash >= 0 {
		words, w.command = args[:dash], args[dash:]
		if len(w.command) == 0 {
			return w, errWatchNoCommand
		}
	}
	if len(variables) > 0 {
		if len(words) > 0 {
			return w, errWatchConflict
		}
		words = variables
	}
	if len(words) == 0 || len(words) > 2 {
		return w, errWatchArgs
	}
	w.key = words[0]
	if len(words) == 2 {
		if f.prefix {
			return w, errWatchEnds
		}
		w.opts = append(w.opts, clientv3.WithRange(words[1]))
	}
	if f.prefix {
		w.opts = append(w.opts, clientv3.WithPrefix())
	}
	if f.prevKV {
		w.opts = append(w.opts, clientv3.WithPrevKV())
	}
	if f.progress {
		w.opts = append(w.opts, clientv3.WithProgressNotify())
	}
	w.opts = append(w.opts, clientv3.WithRev(f.rev))
	return w, nil
}
