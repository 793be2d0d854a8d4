package ctl

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func txnCommand(s *session) *cobra.Command {
	var interactive bool
	cmd := &cobra.Command{
		Use:   "txn [flags]",
		Short: "Do several things at once, if some comparisons hold.",
		Long: `Read a transaction from standard input, and commit it: comparisons, then what is
done if all of them hold, then what is done otherwise. A line each; an empty line
ends a part.

  version("key") = "3"      also ver; create (c) and mod (m) revisions, lease
  value("key") != "text"    also val; and <, >

  put key "a value"         put, get and del with their own flags
  get key --prefix
  del key`,
		Example: `  printf 'mod("k") > "0"\n\nput k seen\n\nput k new\n\n' | etcdctl txn`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit.BadArgs("txn command does not accept argument")
			}
			return s.connect(cmd, func(c *clientv3.Client, p *print.Printer) error {
				prompts := io.Discard
				if interactive {
					prompts = s.Stdout
				}
				t, err := readTxn(bufio.NewReader(s.Stdin), prompts)
				if err != nil {
					return err
				}
				r, err := c.Txn(cmd.Context()).If(t.compares...).Then(t.success...).Else(t.failure...).Commit()
				if err != nil {
					return err
				}
				return p.Txn(r)
			})
		},
	}
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "say what is expected next")
	return cmd
}

// txn is a transaction as it was typed.
type txn struct {
	compares         []clientv3.Cmp
	success, failure []clientv3.Op
}

// readTxn reads the three parts of a transaction. A line that makes no sense
// ends it at once; so does the end of the input.
func readTxn(from *bufio.Reader, prompts io.Writer) (t txn, err error) {
	if t.compares, err = readPart(from, prompts, "compares:", parseCompare); err != nil {
		return t, err
	}
	if t.success, err = readPart(from, prompts, "success requests (get, put, del):", parseOp); err != nil {
		return t, err
	}
	t.failure, err = readPart(from, prompts, "failure requests (get, put, del):", parseOp)
	return t, err
}

// readPart reads lines until an empty one.
func readPart[T any](from *bufio.Reader, prompts io.Writer, prompt string, parse func(string) (T, error)) ([]T, error) {
	if _, err := fmt.Fprintln(prompts, prompt); err != nil {
		return nil, err
	}
	var part []T
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			return nil, exit.With(exit.CodeBadInput, err)
		}
		line = strings.TrimSpace(line)
		if line == "" {
			return part, nil
		}
		item, err := parse(line)
		if err != nil {
			return nil, err
		}
		part = append(part, item)
	}
}
