package ctl

import (
	"context"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/print"
)

func memberCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "member <command>", Short: "See and change the members of the cluster."}
	cmd.AddCommand(memberAddCommand(s), memberListCommand(s), memberPromoteCommand(s), memberRemoveCommand(s), memberUpdateCommand(s))
	return cmd
}

func memberListCommand(s *session) *cobra.Command {
	var word string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the members.",
		Long:  "List the members. Simple output has id, status, name, peer URLs, client URLs and whether it is a learner.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var opts []clientv3.OpOption
			serializable, err := consistency(word)
			if err != nil {
				return err
			}
			if serializable {
				opts = append(opts, clientv3.WithSerializable())
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.MemberList(ctx, opts...)
				if err != nil {
					return err
				}
				return p.MemberList(r)
			})
		},
	}
	cmd.Flags().StringVar(&word, "consistency", "l", "linearizable (l) or serializable (s)")
	complete(cmd, "consistency", "l", "s")
	return cmd
}
