package ctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func userCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "user <command>", Short: "See and change the users, and which roles they have."}
	cmd.AddCommand(userAddCommand(s), userDeleteCommand(s), userGetCommand(s), userListCommand(s), userPasswdCommand(s),
		userGrantRoleCommand(s), userRevokeRoleCommand(s))
	return cmd
}

// named makes a command whose arguments are so many names; usage is what it says to any
// other number of them.
func named(use, short, usage string, names int, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != names {
				return exit.BadArgs("%s", usage)
			}
			return run(cmd, args)
		},
	}
}

func userAddCommand(s *session) *cobra.Command {
	var password string
	var interactive, none bool
	cmd := named("add [flags] <user or user:password>", "Make a user.", "user add command requires user name as its argument", 1,
		func(cmd *cobra.Command, args []string) error {
			name, opts := args[0], &clientv3.UserAddOptions{NoPassword: none}
			if !none && password == "" {
				var err error
				if name, password, err = s.newUser(args[0], interactive); err != nil {
					return err
				}
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.UserAddWithOptions(ctx, name, password, opts)
				if err != nil {
					return err
				}
				return p.AuthChanged(fmt.Sprintf("User %s created", name), r.Header, r, (*pb.AuthUserAddResponse)(r))
			})
		})
	cmd.Flags().BoolVar(&interactive, "interactive", true, "ask for the password twice, without showing it; else read one line")
	cmd.Flags().StringVar(&password, "new-user-password", "", "the password")
	cmd.Flags().BoolVar(&none, "no-password", false, "without a password: for users of certificates")
	return cmd
}

// newUser is the name and the password of a new user.
func (s *session) newUser(argument string, interactive bool) (name, password string, err error) {
	name, password, given := strings.Cut(argument, ":")
	if !given {
		password, err = s.newPassword(name, interactive)
		return name, password, err
	}
	if name == "" {
		return "", "", exit.BadArgs("empty user name is not allowed")
	}
	return name, password, nil
}

// newPassword asks for a password that is to be set: twice, or for one line.
func (s *session) newPassword(name string, interactive bool) (string, error) {
	if !interactive {
		line, err := readLine(s.Stdin)
		if err != nil {
			return "", exit.BadArgs("%v", err)
		}
		return line, nil
	}
	first, err := readPassword(s.Stdin, s.Stdout, fmt.Sprintf("Password of %s: ", name))
	if err != nil {
		return "", exit.BadArgs("failed to ask password: %v", err)
	}
	second, err := readPassword(s.Stdin, s.Stdout, fmt.Sprintf("Type password of %s again for confirmation: ", name))
	if err != nil {
		return "", exit.BadArgs("failed to ask password: %v", err)
	}
	if first != second {
		return "", exit.BadArgs("given passwords are different")
	}
	return first, nil
}

func userDeleteCommand(s *session) *cobra.Command {
	return named("delete <user>", "Remove a user.", "user delete command requires user name as its argument", 1,
		func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.UserDelete(ctx, args[0])
				if err != nil {
					return err
				}
				return p.AuthChanged(fmt.Sprintf("User %s deleted", args[0]), r.Header, r, (*pb.AuthUserDeleteResponse)(r))
			})
		})
}

func userGetCommand(s *session) *cobra.Command {
	var detail bool
	cmd := named("get [flags] <user>", "See which roles a user has.", "user get command requires user name as its argument", 1,
		func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.UserGet(ctx, args[0])
				if err != nil {
					return err
				}
				if !detail {
					return p.UserGet(args[0], r)
				}
				return s.userDetail(ctx, c, p, args[0], r.Roles)
			})
		})
	cmd.Flags().BoolVar(&detail, "detail", false, "and what the roles allow")
	return cmd
}

// userDetail writes a user and, after an empty line each, his roles.
func (s *session) userDetail(ctx context.Context, c *clientv3.Client, p *print.Printer, name string, roles []string) error {
	fmt.Fprintf(s.Stdout, "User: %s\n", name)
	for _, role := range roles {
		fmt.Fprintln(s.Stdout)
		r, err := c.RoleGet(ctx, role)
		if err != nil {
			return err
		}
		if err := p.RoleGet(role, r); err != nil {
			return err
		}
	}
	return nil
}

func userListCommand(s *session) *cobra.Command {
	return named("list", "List the users.", "user list command requires no arguments", 0,
		func(cmd *cobra.Command, _ []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.UserList(ctx)
				if err != nil {
					return err
				}
				return p.UserList(r)
			})
		})
}

func userPasswdCommand(s *session) *cobra.Command {
	var interactive bool
	cmd := named("passwd [flags] <user>", "Give a user another password.", "user passwd command requires user name as its argument", 1,
		func(cmd *cobra.Command, args []string) error {
			password, err := s.newPassword(args[0], interactive)
			if err != nil {
				return err
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.UserChangePassword(ctx, args[0], password)
				if err != nil {
					return err
				}
				return p.AuthChanged("Password updated", r.Header, r, (*pb.AuthUserChangePasswordResponse)(r))
			})
		})
	cmd.Flags().BoolVar(&interactive, "interactive", true, "ask for the password twice, without showing it; else read one line")
	return cmd
}

func userGrantRoleCommand(s *session) *cobra.Command {
	return named("grant-role <user> <role>", "Give a user a role.", "user grant command requires user name and role name as its argument", 2,
		func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.UserGrantRole(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return p.AuthChanged(fmt.Sprintf("Role %s is granted to user %s", args[1], args[0]), r.Header, r, (*pb.AuthUserGrantRoleResponse)(r))
			})
		})
}

func userRevokeRoleCommand(s *session) *cobra.Command {
	return named("revoke-role <user> <role>", "Take a role from a user.", "user revoke-role requires user name and role name as its argument", 2,
		func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.UserRevokeRole(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return p.AuthChanged(fmt.Sprintf("Role %s is revoked from user %s", args[1], args[0]), r.Header, r, (*pb.AuthUserRevokeRoleResponse)(r))
			})
		})
}
