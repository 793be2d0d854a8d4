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

func leaseCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "lease <command>", Short: "Make, renew and end leases; keys that hang on one go with it."}
	cmd.AddCommand(leaseGrantCommand(s), leaseRevokeCommand(s), leaseTimeToLiveCommand(s), leaseListCommand(s), leaseKeepAliveCommand(s))
	return cmd
}

func leaseGrantCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "grant <ttl>",
		Short: "Make a lease that ends after so many seconds unless it is renewed.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.BadArgs("lease grant command needs TTL argument")
			}
			ttl, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return exit.BadArgs("bad TTL (%v)", err)
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.Grant(ctx, ttl)
				if err != nil {
					return fmt.Errorf("failed to grant lease (%w)", err)
				}
				return p.LeaseGrant(r)
			})
		},
	}
}

// leaseArgument reads the only argument of a command, a lease.
func leaseArgument(args []string, missing string) (clientv3.LeaseID, error) {
	if len(args) != 1 {
		return 0, exit.BadArgs("%s", missing)
	}
	lease, err := strconv.ParseInt(args[0], 16, 64)
	if err != nil {
		return 0, exit.BadArgs("bad lease ID arg (%v), expecting ID in Hex", err)
	}
	return clientv3.LeaseID(lease), nil
}

func leaseRevokeCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke <lease>",
		Short: "End a lease and delete its keys.",
		RunE: func(cmd *cobra.Command, args []string) error {
			lease, err := leaseArgument(args, "lease revoke command needs 1 argument")
			if err != nil {
				return err
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.Revoke(ctx, lease)
				if err != nil {
					return fmt.Errorf("failed to revoke lease (%w)", err)
				}
				return p.LeaseRevoke(lease, r)
			})
		},
	}
}

func leaseTimeToLiveCommand(s *session) *cobra.Command {
	var keys bool
	cmd := &cobra.Command{
		Use:   "timetolive [flags] <lease>",
		Short: "See how much of its time a lease has left.",
		RunE: func(cmd *cobra.Command, args []string) error {
			lease, err := leaseArgument(args, "lease timetolive command needs lease ID as argument")
			if err != nil {
				return err
			}
			var opts []clientv3.LeaseOption
			if keys {
				opts = append(opts, clientv3.WithAttachedKeys())
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.TimeToLive(ctx, lease, opts...)
				if err != nil {
					return exit.With(exit.CodeBadConnection, err)
				}
				return p.LeaseTimeToLive(r, keys)
			})
		},
	}
	cmd.Flags().BoolVar(&keys, "keys", false, "list the keys that hang on the lease")
	return cmd
}

func leaseListCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the leases.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.Leases(ctx)
				if err != nil {
					return exit.With(exit.CodeBadConnection, err)
				}
				return p.LeaseList(r)
			})
		},
	}
}

func leaseKeepAliveCommand(s *session) *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "keep-alive [flags] <lease>",
		Short: "Renew a lease, again and again until it ends.",
		RunE: func(cmd *cobra.Command, args []string) error {
			lease, err := leaseArgument(args, "lease keep-alive command needs lease ID as argument")
			if err != nil {
				return err
			}
			if once {
				return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
					r, err := c.KeepAliveOnce(ctx, lease)
					if err != nil {
						return exit.With(exit.CodeBadConnection, err)
					}
					return p.LeaseKeepAlive(r)
				})
			}
			return s.connect(cmd, func(c *clientv3.Client, p *print.Printer) error {
				return keepAlive(cmd.Context(), c, p, lease)
			})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "renew the lease one time only")
	return cmd
}

// keepAlive writes every renewal of a lease until it has ended.
func keepAlive(ctx context.Context, c *clientv3.Client, p *print.Printer, lease clientv3.LeaseID) error {
	renewals, err := c.KeepAlive(ctx, lease)
	if err != nil {
		return exit.With(exit.CodeBadConnection, err)
	}
	for r := range renewals {
		if err := p.LeaseKeepAlive(r); err != nil {
			return err
		}
	}
	return p.LeaseEnded(lease)
}
