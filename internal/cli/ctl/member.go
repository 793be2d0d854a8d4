package ctl

import (
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func memberCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "member <command>", Short: "See the members of the cluster."}
	cmd.AddCommand(memberListCommand(s))
	return cmd
}

func memberListCommand(s *session) *cobra.Command {
	var word string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the members.",
		Long:  "List the members. Simple output has id, status, name, peer URLs, client URLs and whether it is a learner.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var opts []clientv3.OpOption
			serializable, err := consistency(word)
			if err != nil {
				return err
			}
			if serializable {
				opts = append(opts, clientv3.WithSerializable())
			}
			p, err := s.prepare(cmd)
			if err != nil {
				return err
			}
			c, err := s.dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := s.call(cmd)
			defer cancel()
			r, err := c.MemberList(ctx, opts...)
			if err != nil {
				return err
			}
			return p.MemberList(r)
		},
	}
	cmd.Flags().StringVar(&word, "consistency", "l", "linearizable (l) or serializable (s)")
	return cmd
}
