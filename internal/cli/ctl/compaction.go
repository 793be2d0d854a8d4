package ctl

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func compactionCommand(s *session) *cobra.Command {
	var physical bool
	cmd := &cobra.Command{
		Use:   "compaction [flags] <revision>",
		Short: "Forget what keys were before a revision.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.BadArgs("compaction command needs 1 argument")
			}
			rev, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return err
			}
			var opts []clientv3.CompactOption
			if physical {
				opts = append(opts, clientv3.WithCompactPhysical())
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, _ *print.Printer) error {
				if _, err := c.Compact(ctx, rev, opts...); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.Stdout, "compacted revision %d\n", rev)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&physical, "physical", false, "wait until the old revisions are removed from the store")
	return cmd
}
