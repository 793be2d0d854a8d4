package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func endpointCommand(s *session) *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "endpoint <command>", Short: "Ask each endpoint how it is."}
	cmd.PersistentFlags().BoolVar(&all, "cluster", false, "ask every member that the cluster knows")
	cmd.AddCommand(
		&cobra.Command{
			Use:   "health",
			Short: "Check that each endpoint can commit.",
			RunE:  func(cmd *cobra.Command, _ []string) error { return s.endpointHealth(cmd, all) },
		},
		&cobra.Command{
			Use:   "status",
			Short: "Print the state of each endpoint's member.",
			RunE:  func(cmd *cobra.Command, _ []string) error { return s.endpointStatus(cmd, all) },
		},
		endpointHashKVCommand(s, &all))
	for _, c := range cmd.Commands() {
		c.SetUsageTemplate(endpointUsage)
	}
	return cmd
}

func endpointHashKVCommand(s *session, all *bool) *cobra.Command {
	var rev int64
	cmd := &cobra.Command{
		Use:   "hashkv",
		Short: "Print the hash of each endpoint's keys and their history.",
		RunE:  func(cmd *cobra.Command, _ []string) error { return s.endpointHashKV(cmd, *all, rev) },
	}
	cmd.Flags().Int64Var(&rev, "rev", 0, "highest revision in the hash; 0 is the member's present one")
	return cmd
}

// endpointUsage shows the flag that the endpoint commands share.
const endpointUsage = `Usage:
  {{.UseLine}}

Flags:
      --cluster   ask every member that the cluster knows
{{with .LocalNonPersistentFlags.FlagUsages | trimTrailingWhitespaces}}{{.}}
{{end}}
"etcdctl options" lists the global flags.
`

var errUnhealthy = errors.New("unhealthy cluster")

func (s *session) endpointHealth(cmd *cobra.Command, all bool) error {
	return s.findEndpoints(cmd, all, func(cfg clientv3.Config, p *print.Printer, endpoints []string) error {
		list, failures := poll(s, cmd, endpoints, func(ctx context.Context, endpoint string) (print.EndpointHealth, error) {
			began := time.Now()
			err := checkHealth(ctx, cfg, endpoint)
			h := print.EndpointHealth{Endpoint: endpoint, Healthy: err == nil, Took: time.Since(began).String()}
			if err != nil {
				h.Error = err.Error()
				err = errUnhealthy
			}
			return h, err
		})
		return cmp.Or(p.EndpointHealth(list), cmp.Or(failures...))
	})
}

// checkHealth reads a key with the cluster's agreement, and looks for alarms.
// Whoever may not read the key has at least been answered.
func checkHealth(ctx context.Context, cfg clientv3.Config, endpoint string) error {
	cfg.Endpoints = []string{endpoint}
	c, err := clientv3.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Get(ctx, "health"); err != nil && !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return err
	}
	r, err := c.AlarmList(ctx)
	if err != nil {
		//lint:ignore ST1005 the text is etcd's
		return errors.New("Unable to fetch the alarm list")
	}
	if len(r.Alarms) == 0 {
		return nil
	}
	text := "Active Alarm(s): "
	for _, a := range r.Alarms {
		name := "UNKNOWN"
		if a.Alarm == pb.AlarmType_NOSPACE || a.Alarm == pb.AlarmType_CORRUPT {
			name = a.Alarm.String()
		}
		text += name + " "
	}
	return errors.New(text)
}

func (s *session) endpointStatus(cmd *cobra.Command, all bool) error {
	return s.askEndpoints(cmd, all, func(c *clientv3.Client, p *print.Printer, endpoints []string) error {
		answers, failures := poll(s, cmd, endpoints, c.Status)
		list := []print.EndpointStatus{}
		var trouble error
		for i, endpoint := range endpoints {
			if failures[i] != nil {
				trouble = exit.ErrReported
				fmt.Fprintf(s.Stderr, "Failed to get the status of endpoint %s (%v)\n", endpoint, failures[i])
				continue
			}
			list = append(list, print.EndpointStatus{Endpoint: endpoint, Status: answers[i]})
		}
		return cmp.Or(p.EndpointStatus(list), trouble)
	})
}

// endpointHashKV ends with the last failure, beside the line for each of them.
func (s *session) endpointHashKV(cmd *cobra.Command, all bool, rev int64) error {
	return s.askEndpoints(cmd, all, func(c *clientv3.Client, p *print.Printer, endpoints []string) error {
		answers, failures := poll(s, cmd, endpoints, func(ctx context.Context, endpoint string) (*clientv3.HashKVResponse, error) {
			return c.HashKV(ctx, endpoint, rev)
		})
		list := []print.EndpointHashKV{}
		var trouble error
		for i, endpoint := range endpoints {
			if failures[i] != nil {
				trouble = failures[i]
				fmt.Fprintf(s.Stderr, "Failed to get the hash of endpoint %s (%v)\n", endpoint, failures[i])
				continue
			}
			list = append(list, print.EndpointHashKV{Endpoint: endpoint, HashKV: answers[i]})
		}
		return cmp.Or(p.EndpointHashKV(list), trouble)
	})
}

// askEndpoints hands do a client, and the endpoints that a command is about.
func (s *session) askEndpoints(cmd *cobra.Command, all bool, do func(*clientv3.Client, *print.Printer, []string) error) error {
	return s.findEndpoints(cmd, all, func(cfg clientv3.Config, p *print.Printer, endpoints []string) error {
		c, err := dialConfig(cfg)
		if err != nil {
			return err
		}
		defer c.Close()
		return do(c, p, endpoints)
	})
}

// findEndpoints hands do the endpoints of the flags, or with all the client URLs
// of the members, in the order of the member list.
func (s *session) findEndpoints(cmd *cobra.Command, all bool, do func(clientv3.Config, *print.Printer, []string) error) error {
	p, err := s.prepare(cmd)
	if err != nil {
		return err
	}
	cfg, err := s.clientConfig(cmd)
	if err != nil {
		return err
	}
	if !all {
		return do(cfg, p, cfg.Endpoints)
	}
	endpoints, err := s.clusterEndpoints(cmd, cfg)
	if err != nil {
		return err
	}
	return do(cfg, p, endpoints)
}

func (s *session) clusterEndpoints(cmd *cobra.Command, cfg clientv3.Config) ([]string, error) {
	c, err := dialConfig(cfg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := s.call(cmd)
	defer cancel()
	r, err := c.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("failed to fetch endpoints from etcd cluster member list: %w", err)
	}
	var endpoints []string
	for _, m := range r.Members {
		endpoints = append(endpoints, m.ClientURLs...)
	}
	return endpoints, nil
}

// poll asks all endpoints at once, each within the command time-out. Answers and
// failures are in the order of the endpoints.
func poll[T any](s *session, cmd *cobra.Command, endpoints []string, ask func(context.Context, string) (T, error)) ([]T, []error) {
	answers, failures := make([]T, len(endpoints)), make([]error, len(endpoints))
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		wg.Go(func() {
			ctx, cancel := s.call(cmd)
			defer cancel()
			answers[i], failures[i] = ask(ctx, endpoint)
		})
	}
	wg.Wait()
	return answers, failures
}
