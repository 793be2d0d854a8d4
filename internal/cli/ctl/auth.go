package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

// rootName is the user, and the role, that must be there before permissions are checked.
const rootName = "root"

func authCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "auth <command>", Short: "Switch the checking of permissions on and off."}
	cmd.AddCommand(
		s.switchCommand("enable", "Check permissions from now on.", "Authentication Enabled", enableAuth),
		s.switchCommand("disable", "Check permissions no more.", "Authentication Disabled", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.AuthDisable(ctx)
			return err
		}),
		&cobra.Command{
			Use:   "status",
			Short: "See whether permissions are checked.",
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) != 0 {
					return exit.BadArgs("auth status command does not accept any arguments")
				}
				return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
					r, err := c.AuthStatus(ctx)
					if err != nil {
						return err
					}
					return p.AuthStatus(r)
				})
			},
		})
	return cmd
}

// switchCommand is one that has nothing to say but that it was done, in any format.
func (s *session) switchCommand(name, short, done string, do func(context.Context, *clientv3.Client) error) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return exit.BadArgs("auth %s command does not accept any arguments", name)
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, _ *print.Printer) error {
				if err := do(ctx, c); err != nil {
					return err
				}
				_, err := fmt.Fprintln(s.Stdout, done)
				return err
			})
		},
	}
}

// enableAuth gives the user root the role root if that is all that is missing.
func enableAuth(ctx context.Context, c *clientv3.Client) error {
	_, err := c.AuthEnable(ctx)
	if !errors.Is(err, rpctypes.ErrRootRoleNotExist) {
		return err
	}
	if _, err := c.RoleAdd(ctx, rootName); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return err
	}
	if _, err := c.UserGrantRole(ctx, rootName, rootName); err != nil {
		return err
	}
	_, err = c.AuthEnable(ctx)
	return err
}
