package ctl

import (
	"context"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func alarmCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "alarm <command>", Short: "See what is wrong with the cluster, and say that it is mended."}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "disarm",
			Short: "End all alarms, and list them.",
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return exit.BadArgs("alarm disarm command accepts no arguments")
				}
				return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
					r, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{}) // the client takes nobody's for all of them
					if err != nil {
						return err
					}
					return p.Alarm(r)
				})
			},
		},
		&cobra.Command{
			Use:   "list",
			Short: "List the alarms in force.",
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return exit.BadArgs("alarm list command accepts no arguments")
				}
				return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
					r, err := c.AlarmList(ctx)
					if err != nil {
						return err
					}
					return p.Alarm(r)
				})
			},
		})
	return cmd
}
