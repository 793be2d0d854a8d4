package ctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

type getFlags struct {
	consistency, order, sortBy     string
	limit, rev                     int64
	prefix, fromKey                bool
	keysOnly, countOnly, valueOnly bool
	minCreateRev, maxCreateRev     int64
	minModRev, maxModRev           int64
	stream                         bool
}

func getCommand(s *session) *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get [flags] <key> [range_end]",
		Short: "Read a key or a range of keys.",
		RunE: func(cmd *cobra.Command, args []string) error {
			key, opts, err := f.request(args)
			if err != nil {
				return err
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				if err := f.checkFormat(p.Format()); err != nil {
					return err
				}
				if f.stream {
					return f.printStream(ctx, c, p, key, opts)
				}
				r, err := c.Get(ctx, key, opts...)
				if err != nil {
					return err
				}
				return p.Get(r, f.valueOnly)
			})
		},
	}
	f.register(cmd.Flags())
	complete(cmd, "consistency", "l", "s")
	complete(cmd, "order", "ASCEND", "DESCEND")
	complete(cmd, "sort-by", "CREATE", "KEY", "MODIFY", "VALUE", "VERSION")
	return cmd
}

// printStream asks for the range in pieces. Simple output shows each piece as it
// comes, however large the whole is; the other formats have one header and one
// count for the whole, which the last piece brings.
func (f *getFlags) printStream(ctx context.Context, c *clientv3.Client, p *print.Printer, key string, opts []clientv3.OpOption) error {
	pieces, err := c.GetStream(ctx, key, opts...)
	if err != nil {
		return err
	}
	if p.Format() != print.Simple {
		r, err := clientv3.GetStreamToGetResponse(pieces)
		if err != nil {
			return err
		}
		return p.Get(r, f.valueOnly)
	}
	for piece := range pieces {
		if err := piece.Err(); err != nil {
			return err
		}
		if err := p.Get((*clientv3.GetResponse)(piece.RangeResponse), f.valueOnly); err != nil {
			return err
		}
	}
	return nil
}

func (f *getFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.consistency, "consistency", "l", "linearizable (l) or serializable (s)")
	fs.StringVar(&f.order, "order", "", "order of the result: ASCEND or DESCEND")
	fs.StringVar(&f.sortBy, "sort-by", "", "what is ordered: CREATE, KEY, MODIFY, VALUE or VERSION")
	fs.Int64Var(&f.limit, "limit", 0, "most keys in the result; 0 is no bound")
	fs.BoolVar(&f.prefix, "prefix", false, "all keys that begin with the key")
	fs.BoolVar(&f.fromKey, "from-key", false, "all keys from the key on")
	fs.Int64Var(&f.rev, "rev", 0, "read as of this revision")
	fs.BoolVar(&f.keysOnly, "keys-only", false, "no values")
	fs.BoolVar(&f.countOnly, "count-only", false, "only the number of keys")
	fs.BoolVar(&f.valueOnly, "print-value-only", false, "only the values (with simple output)")
	fs.Int64Var(&f.minCreateRev, "min-create-rev", 0, "lowest create revision of a key in the result")
	fs.Int64Var(&f.maxCreateRev, "max-create-rev", 0, "highest create revision of a key in the result")
	fs.Int64Var(&f.minModRev, "min-mod-rev", 0, "lowest modification revision of a key in the result")
	fs.Int64Var(&f.maxModRev, "max-mod-rev", 0, "highest modification revision of a key in the result")
	fs.BoolVar(&f.stream, "stream", false, "read a large range in pieces")
}

var sortOrders = map[string]clientv3.SortOrder{
	"": clientv3.SortNone, "ASCEND": clientv3.SortAscend, "DESCEND": clientv3.SortDescend,
}

var sortTargets = map[string]clientv3.SortTarget{
	"": clientv3.SortByKey, "KEY": clientv3.SortByKey, "CREATE": clientv3.SortByCreateRevision,
	"MODIFY": clientv3.SortByModRevision, "VALUE": clientv3.SortByValue, "VERSION": clientv3.SortByVersion,
}

// request checks the arguments and makes the options of the range.
func (f *getFlags) request(args []string) (string, []clientv3.OpOption, error) {
	if err := f.check(args); err != nil {
		return "", nil, err
	}
	order, ok := sortOrders[strings.ToUpper(f.order)]
	if !ok {
		return "", nil, exit.BadFeature("bad sort order %s", f.order)
	}
	target, ok := sortTargets[strings.ToUpper(f.sortBy)]
	if !ok {
		return "", nil, exit.BadFeature("bad sort target %s", f.sortBy)
	}
	opts := []clientv3.OpOption{clientv3.WithLimit(f.limit), clientv3.WithRev(f.rev), clientv3.WithSort(target, order),
		clientv3.WithMinCreateRev(f.minCreateRev), clientv3.WithMaxCreateRev(f.maxCreateRev),
		clientv3.WithMinModRev(f.minModRev), clientv3.WithMaxModRev(f.maxModRev)}
	serializable, err := consistency(f.consistency)
	if err != nil {
		return "", nil, err
	}
	if serializable {
		opts = append(opts, clientv3.WithSerializable())
	}
	if f.keysOnly {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	if f.countOnly {
		opts = append(opts, clientv3.WithCountOnly())
	}
	key, span := spanOf(args, f.prefix, f.fromKey)
	return key, append(opts, span...), nil
}

func (f *getFlags) check(args []string) error {
	switch {
	case len(args) == 0:
		return exit.BadArgs("get command needs one argument as key and an optional argument as range_end")
	case f.prefix && f.fromKey:
		return exit.BadArgs("`--prefix` and `--from-key` cannot be set at the same time, choose one")
	case f.keysOnly && f.countOnly:
		return exit.BadArgs("`--keys-only` and `--count-only` cannot be set at the same time, choose one")
	case len(args) > 1 && (f.prefix || f.fromKey):
		return exit.BadArgs("too many arguments, only accept one argument when `--prefix` or `--from-key` is set")
	case f.maxCreateRev > 0 && f.minCreateRev > f.maxCreateRev:
		return exit.BadArgs("getMinCreateRev(=%d) > getMaxCreateRev(=%d)", f.minCreateRev, f.maxCreateRev)
	case f.maxModRev > 0 && f.minModRev > f.maxModRev:
		return exit.BadArgs("getMinModRev(=%d) > getMaxModRev(=%d)", f.minModRev, f.maxModRev)
	}
	return nil
}

// checkFormat refuses flags that only one format can show.
func (f *getFlags) checkFormat(format print.Format) error {
	if f.countOnly && format != print.Fields {
		return exit.BadArgs("--count-only is only for `--write-out=fields`")
	}
	if f.valueOnly && format != print.Simple {
		return exit.BadArgs("print-value-only is only for `--write-out=simple`")
	}
	return nil
}

// spanOf makes the key and the end of a range from the arguments: a key, a key
// and an end, all keys with a prefix, or all keys from one on. No prefix at all
// is every key. Like etcd's, it leaves a third argument alone.
func spanOf(args []string, prefix, fromKey bool) (string, []clientv3.OpOption) {
	key := args[0]
	switch {
	case len(args) > 1:
		return key, []clientv3.OpOption{clientv3.WithRange(args[1])}
	case prefix && key != "":
		return key, []clientv3.OpOption{clientv3.WithPrefix()}
	case prefix || fromKey:
		if key == "" {
			key = "\x00"
		}
		return key, []clientv3.OpOption{clientv3.WithFromKey()}
	}
	return key, nil
}

// consistency reads the word of a --consistency flag.
func consistency(word string) (serializable bool, err error) {
	switch word {
	case "l":
		return false, nil
	case "s":
		return true, nil
	}
	return false, exit.BadFeature("unknown consistency flag %q", word)
}
