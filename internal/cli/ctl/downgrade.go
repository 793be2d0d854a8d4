package ctl

import (
	"context"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func downgradeCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "downgrade <command>", Short: "Prepare the cluster for programs of the version before."}
	cmd.AddCommand(
		s.downgradeTo("validate", "Ask whether the cluster can go down to a version.", clientv3.DowngradeValidate),
		s.downgradeTo("enable", "Have the cluster go down to a version.", clientv3.DowngradeEnable),
		&cobra.Command{
			Use:   "cancel",
			Short: "Have the cluster come up again.",
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return exit.BadArgs("too many arguments")
				}
				return s.downgrade(cmd, clientv3.DowngradeCancel, "")
			},
		})
	return cmd
}

// downgradeTo is a command about a version.
func (s *session) downgradeTo(verb, short string, action clientv3.DowngradeAction) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " <X.Y>",
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) < 1:
				return exit.BadArgs("TARGET_VERSION not provided")
			case len(args) > 1:
				return exit.BadArgs("too many arguments")
			}
			return s.downgrade(cmd, action, args[0])
		},
	}
}

func (s *session) downgrade(cmd *cobra.Command, action clientv3.DowngradeAction, version string) error {
	return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
		r, err := c.Downgrade(ctx, action, version)
		if err != nil {
			return err
		}
		return p.Downgrade(cmd.Name(), r)
	})
}
