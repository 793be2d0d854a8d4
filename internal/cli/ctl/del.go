package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

type delFlags struct {
	prefix, fromKey, isRange, prevKV bool
}

// secondThoughts is the time to stop a deletion whose two arguments may have
// been meant as two keys.
const secondThoughts = 2 * time.Second

func delCommand(s *session) *cobra.Command {
	var f delFlags
	cmd := &cobra.Command{
		Use:   "del [flags] <key> [range_end]",
		Short: "Delete a key or a range of keys.",
		RunE: func(cmd *cobra.Command, args []string) error {
			key, opts, err := f.request(args)
			if err != nil {
				return err
			}
			if err := f.warn(s, cmd, args); err != nil {
				return err
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.Delete(ctx, key, opts...)
				if err != nil {
					return err
				}
				return p.Del(r)
			})
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (f *delFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.prefix, "prefix", false, "all keys that begin with the key")
	fs.BoolVar(&f.fromKey, "from-key", false, "all keys from the key on")
	fs.BoolVar(&f.isRange, "range", false, "the second argument is the end of a range, which is itself not deleted")
	fs.BoolVar(&f.prevKV, "prev-kv", false, "print the keys and values that were there")
}

func (f *delFlags) request(args []string) (string, []clientv3.OpOption, error) {
	switch {
	case len(args) == 0 || len(args) > 2:
		return "", nil, exit.BadArgs("del command needs one argument as key and an optional argument as range_end")
	case f.prefix && f.fromKey:
		return "", nil, exit.BadArgs("`--prefix` and `--from-key` cannot be set at the same time, choose one")
	case len(args) == 2 && (f.prefix || f.fromKey):
		return "", nil, exit.BadArgs("too many arguments, only accept one argument when `--prefix` or `--from-key` is set")
	case f.isRange && len(args) < 2:
		return "", nil, exit.BadArgs("del command needs a key and a range_end when `--range` is set")
	}
	key, opts := spanOf(args, f.prefix, f.fromKey)
	if f.prevKV {
		opts = append(opts, clientv3.WithPrevKV())
	}
	return key, opts, nil
}

// warn gives people who meant two keys the time to stop.
func (f *delFlags) warn(s *session, cmd *cobra.Command, args []string) error {
	if len(args) < 2 || f.isRange {
		return nil
	}
	fmt.Fprintf(s.Stderr, "Warning: this deletes every key from %q up to %q, not these two keys; "+
		"say --range to confirm. Starting in %v.\n", args[0], args[1], secondThoughts)
	select {
	case <-time.After(secondThoughts):
		return nil
	case <-cmd.Context().Done():
		return cmd.Context().Err()
	}
}
