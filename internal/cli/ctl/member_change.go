package ctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func memberAddCommand(s *session) *cobra.Command {
	var peerURLs string
	var learner bool
	cmd := &cobra.Command{
		Use:   "add <name> --peer-urls=<urls>",
		Short: "Add a member, which may then be started.",
		Long: "Add a member. Simple output ends with the settings with which the new member is to be started.\n" +
			"A learner receives everything and has no vote, until it is promoted.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 {
				return exit.BadArgs("member name not provided")
			}
			if len(args) > 1 {
				return tooManyNames(args)
			}
			urls, err := splitURLs(peerURLs)
			if err != nil {
				return err
			}
			return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
				add := c.MemberAdd
				if learner {
					add = c.MemberAddAsLearner
				}
				r, err := add(ctx, urls)
				if err != nil {
					return err
				}
				return p.MemberAdd(args[0], r)
			})
		},
	}
	cmd.Flags().StringVar(&peerURLs, "peer-urls", "", "where the new member listens for other members, separated by commas")
	cmd.Flags().BoolVar(&learner, "learner", false, "add it as a learner")
	return cmd
}

// tooManyNames guesses whether the second argument was meant for --peer-urls.
func tooManyNames(args []string) error {
	hint := ""
	if strings.HasPrefix(args[1], "http") {
		hint = fmt.Sprintf(", did you mean --peer-urls=%s", args[1])
	}
	return exit.BadArgs("too many arguments%s", hint)
}

func splitURLs(list string) ([]string, error) {
	if list == "" {
		return nil, exit.BadArgs("member peer urls not provided")
	}
	return strings.Split(list, ","), nil
}

func memberRemoveCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "remove <member id>",
		Short: "Remove a member, which then ends by itself.",
		RunE: s.aboutMember(func(ctx context.Context, c *clientv3.Client, p *print.Printer, id uint64) error {
			r, err := c.MemberRemove(ctx, id)
			if err != nil {
				return err
			}
			return p.MemberRemove(id, r)
		}),
	}
}

func memberPromoteCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "promote <member id>",
		Short: "Give a learner its vote.",
		RunE: s.aboutMember(func(ctx context.Context, c *clientv3.Client, p *print.Printer, id uint64) error {
			r, err := c.MemberPromote(ctx, id)
			if err != nil {
				return err
			}
			return p.MemberPromote(id, r)
		}),
	}
}

func memberUpdateCommand(s *session) *cobra.Command {
	var peerURLs string
	cmd := &cobra.Command{
		Use:   "update <member id> --peer-urls=<urls>",
		Short: "Tell the others where a member listens for them.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := memberArgument(args)
		if err != nil {
			return err
		}
		urls, err := splitURLs(peerURLs)
		if err != nil {
			return err
		}
		return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
			r, err := c.MemberUpdate(ctx, id, urls)
			if err != nil {
				return err
			}
			return p.MemberUpdate(id, r)
		})
	}
	cmd.Flags().StringVar(&peerURLs, "peer-urls", "", "where the member listens for other members, separated by commas")
	return cmd
}

// aboutMember is a command whose one argument is the id of a member.
func (s *session) aboutMember(do func(context.Context, *clientv3.Client, *print.Printer, uint64) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		id, err := memberArgument(args)
		if err != nil {
			return err
		}
		return s.ask(cmd, func(ctx context.Context, c *clientv3.Client, p *print.Printer) error {
			return do(ctx, c, p, id)
		})
	}
}

func memberArgument(args []string) (uint64, error) {
	if len(args) != 1 {
		return 0, exit.BadArgs("member ID is not provided")
	}
	id, err := strconv.ParseUint(args[0], 16, 64)
	if err != nil {
		return 0, exit.BadArgs("bad member ID arg (%v), expecting ID in Hex", err)
	}
	return id, nil
}

func moveLeaderCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "move-leader <member id>",
		Short: "Have the leader hand over to another member.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.BadArgs("move-leader command needs 1 argument")
			}
			to, err := strconv.ParseUint(args[0], 16, 64)
			if err != nil {
				return exit.BadArgs("%v", err)
			}
			return s.findEndpoints(cmd, false, func(cfg clientv3.Config, p *print.Printer, endpoints []string) error {
				leader, id, err := s.leaderAmong(cmd, cfg, endpoints)
				if err != nil {
					return err
				}
				cfg.Endpoints = []string{leader}
				c, err := dialConfig(cfg)
				if err != nil {
					return err
				}
				defer c.Close()
				ctx, cancel := s.call(cmd)
				defer cancel()
				r, err := c.MoveLeader(ctx, to)
				if err != nil {
					return err
				}
				return p.MoveLeader(id, to, r)
			})
		},
	}
}

// leaderAmong asks the endpoints, one after the other, which of them is the
// leader. One that does not answer is passed over if another one leads.
func (s *session) leaderAmong(cmd *cobra.Command, cfg clientv3.Config, endpoints []string) (endpoint string, id uint64, err error) {
	c, err := dialConfig(cfg)
	if err != nil {
		return "", 0, err
	}
	defer c.Close()
	var failures []error
	for _, endpoint := range endpoints {
		ctx, cancel := s.call(cmd)
		r, err := c.Status(ctx, endpoint)
		cancel()
		if err != nil {
			failures = append(failures, err)
			continue
		}
		if r.Header.GetMemberId() == r.Leader {
			return endpoint, r.Leader, nil
		}
	}
	if err := errors.Join(failures...); err != nil {
		return "", 0, err
	}
	return "", 0, exit.BadArgs("no leader endpoint given at %v", endpoints)
}
