package ctl

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func roleCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "role <command>", Short: "See and change the roles, and what they allow."}
	cmd.AddCommand(roleAddCommand(s), roleDeleteCommand(s), roleGetCommand(s), roleListCommand(s), roleGrantCommand(s), roleRevokeCommand(s))
	return cmd
}

func roleAddCommand(s *session) *cobra.Command {
	return named("add <role>", "Make a role.", "role add command requires role name as its argument", 1,
		func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.RoleAdd(ctx, args[0])
				if err != nil {
					return err
				}
				return p.AuthChanged(fmt.Sprintf("Role %s created", args[0]), r.Header, r, (*pb.AuthRoleAddResponse)(r))
			})
		})
}

func roleDeleteCommand(s *session) *cobra.Command {
	return named("delete <role>", "Remove a role, from all users too.", "role delete command requires role name as its argument", 1,
		func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.RoleDelete(ctx, args[0])
				if err != nil {
					return err
				}
				return p.AuthChanged(fmt.Sprintf("Role %s deleted", args[0]), r.Header, r, (*pb.AuthRoleDeleteResponse)(r))
			})
		})
}

func roleGetCommand(s *session) *cobra.Command {
	return named("get <role>", "See what a role allows.", "role get command requires role name as its argument", 1,
		func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.RoleGet(ctx, args[0])
				if err != nil {
					return err
				}
				return p.RoleGet(args[0], r)
			})
		})
}

func roleListCommand(s *session) *cobra.Command {
	return named("list", "List the roles.", "role list command requires no arguments", 0,
		func(cmd *cobra.Command, _ []string) error {
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.RoleList(ctx)
				if err != nil {
					return err
				}
				return p.RoleList(r)
			})
		})
}

// permitted are the flags that say which keys a permission is for.
type permitted struct{ prefix, fromKey bool }

func (f *permitted) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.prefix, "prefix", false, "all keys that begin with this one")
	cmd.Flags().BoolVar(&f.fromKey, "from-key", false, "all keys from this one on, in the order of their bytes")
}

// keys is the range that arguments and flags name.
func (f *permitted) keys(args []string) (key, end string, err error) {
	key = args[0]
	switch {
	case f.prefix && f.fromKey:
		return "", "", exit.BadArgs("--from-key and --prefix flags are mutually exclusive")
	case len(args) > 1 && f.prefix:
		return "", "", exit.BadArgs("unexpected endkey argument with --prefix flag")
	case len(args) > 1 && f.fromKey:
		return "", "", exit.BadArgs("unexpected endkey argument with --from-key flag")
	case len(args) > 1:
		return key, args[1], nil
	case (f.prefix || f.fromKey) && key == "":
		return "\x00", "\x00", nil
	case f.prefix:
		return key, clientv3.GetPrefixRangeEnd(key), nil
	case f.fromKey:
		return key, "\x00", nil
	}
	return key, "", nil
}

func roleGrantCommand(s *session) *cobra.Command {
	var f permitted
	cmd := &cobra.Command{
		Use:   "grant-permission [flags] <role> <read|write|readwrite> <key> [end]",
		Short: "Allow a role something on a key or a range of keys.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 3 || len(args) > 4 {
				return exit.BadArgs("role grant command requires role name, permission type, and key [endkey] as its argument")
			}
			kind, err := clientv3.StrToPermissionType(args[1])
			if err != nil {
				return exit.BadArgs("%v", err)
			}
			key, end, err := f.keys(args[2:])
			if err != nil {
				return err
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.RoleGrantPermission(ctx, args[0], key, end, kind)
				if err != nil {
					return err
				}
				return p.AuthChanged(fmt.Sprintf("Role %s updated", args[0]), r.Header, r, (*pb.AuthRoleGrantPermissionResponse)(r))
			})
		},
	}
	f.register(cmd)
	return cmd
}

func roleRevokeCommand(s *session) *cobra.Command {
	var f permitted
	cmd := &cobra.Command{
		Use:   "revoke-permission [flags] <role> <key> [end]",
		Short: "Take the permission on exactly this key or range from a role.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || len(args) > 3 {
				return exit.BadArgs("role revoke-permission command requires role name and key [endkey] as its argument")
			}
			key, end, err := f.keys(args[1:])
			if err != nil {
				return err
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				r, err := c.RoleRevokePermission(ctx, args[0], key, end)
				if err != nil {
					return err
				}
				return p.RoleRevokePermission(args[0], key, end, r)
			})
		},
	}
	f.register(cmd)
	return cmd
}
