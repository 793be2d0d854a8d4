package ctl

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

type putFlags struct {
	lease                            string
	prevKV, ignoreValue, ignoreLease bool
}

func putCommand(s *session) *cobra.Command {
	var f putFlags
	cmd := &cobra.Command{
		Use:   "put [flags] <key> <value> (the value may come from standard input)",
		Short: "Store a value under a key.",
		RunE: func(cmd *cobra.Command, args []string) error {
			key, value, opts, err := f.request(args, s.Stdin)
			if err != nil {
				return err
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.Put(ctx, key, value, opts...)
				if err != nil {
					return err
				}
				return p.Put(r)
			})
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (f *putFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.lease, "lease", "0", "id (hexadecimal) of the lease that the key hangs on")
	fs.BoolVar(&f.prevKV, "prev-kv", false, "print the key and value that were there before")
	fs.BoolVar(&f.ignoreValue, "ignore-value", false, "keep the present value")
	fs.BoolVar(&f.ignoreLease, "ignore-lease", false, "keep the present lease")
}

// request checks the arguments and reads the value. Like etcd's, it leaves a
// third argument alone.
func (f *putFlags) request(args []string, stdin io.Reader) (key, value string, opts []clientv3.OpOption, err error) {
	const wanted = "put command needs 1 argument and input from stdin or 2 arguments"
	if len(args) == 0 {
		return "", "", nil, exit.BadArgs(wanted)
	}
	if f.ignoreValue && len(args) > 1 {
		return "", "", nil, exit.BadArgs("put command needs only 1 argument when 'ignore-value' is set")
	}
	lease, err := strconv.ParseInt(f.lease, 16, 64)
	if err != nil {
		return "", "", nil, exit.BadArgs("bad lease ID (%v), expecting ID in Hex", err)
	}
	switch {
	case f.ignoreValue:
		opts = append(opts, clientv3.WithIgnoreValue())
	case len(args) > 1:
		value = args[1]
	default:
		data, err := io.ReadAll(stdin)
		if err != nil || len(data) == 0 {
			return "", "", nil, exit.BadArgs(wanted)
		}
		value = string(data)
	}
	if lease != 0 {
		opts = append(opts, clientv3.WithLease(clientv3.LeaseID(lease)))
	}
	if f.prevKV {
		opts = append(opts, clientv3.WithPrevKV())
	}
	if f.ignoreLease {
		opts = append(opts, clientv3.WithIgnoreLease())
	}
	return args[0], value, opts, nil
}
