package ctl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

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
			Args:  cobra.NoArgs,
			RunE:  func(cmd *cobra.Command, _ []string) error { return s.endpointHealth(cmd, all) },
		},
		&cobra.Command{
			Use:   "status",
			Short: "Print the state of each endpoint's member.",
			Args:  cobra.NoArgs,
			RunE:  func(cmd *cobra.Command, _ []string) error { return s.endpointStatus(cmd, all) },
		})
	for _, c := range cmd.Commands() {
		c.SetUsageTemplate(endpointUsage)
	}
	return cmd
}

// endpointUsage shows the flag that the endpoint commands share.
const endpointUsage = `Usage:
  {{.UseLine}}

Flags:
      --cluster   ask every member that the cluster knows

"etcdctl options" lists the global flags.
`

var errUnhealthy = errors.New("unhealthy cluster")

func (s *session) endpointHealth(cmd *cobra.Command, all bool) error {
	p, err := s.prepare(cmd)
	if err != nil {
		return err
	}
	cfg, endpoints, err := s.endpointsToAsk(cmd, all)
	if err != nil {
		return err
	}
	list := make([]print.EndpointHealth, len(endpoints))
	each(endpoints, func(i int, endpoint string) {
		began := time.Now()
		err := s.checkHealth(cmd, cfg, endpoint)
		list[i] = print.EndpointHealth{Endpoint: endpoint, Healthy: err == nil, Took: time.Since(began).String()}
		if err != nil {
			list[i].Error = err.Error()
		}
	})
	if err := p.EndpointHealth(list); err != nil {
		return err
	}
	for _, h := range list {
		if !h.Healthy {
			return errUnhealthy
		}
	}
	return nil
}

// checkHealth reads a key with the cluster's agreement, and looks for alarms.
// Whoever may not read the key has at least been answered.
func (s *session) checkHealth(cmd *cobra.Command, cfg clientv3.Config, endpoint string) error {
	cfg.Endpoints = []string{endpoint}
	c, err := clientv3.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := s.call(cmd)
	defer cancel()
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
	p, err := s.prepare(cmd)
	if err != nil {
		return err
	}
	cfg, endpoints, err := s.endpointsToAsk(cmd, all)
	if err != nil {
		return err
	}
	c, err := dialConfig(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	answers := make([]*clientv3.StatusResponse, len(endpoints))
	failures := make([]error, len(endpoints))
	each(endpoints, func(i int, endpoint string) {
		ctx, cancel := s.call(cmd)
		defer cancel()
		answers[i], failures[i] = c.Status(ctx, endpoint)
	})
	list := []print.EndpointStatus{}
	var trouble error
	for i, endpoint := range endpoints {
		if failures[i] != nil {
			trouble = errReported
			fmt.Fprintf(s.Stderr, "Failed to get the status of endpoint %s (%v)\n", endpoint, failures[i])
			continue
		}
		list = append(list, print.EndpointStatus{Endpoint: endpoint, Status: answers[i]})
	}
	if err := p.EndpointStatus(list); err != nil {
		return err
	}
	return trouble
}

// endpointsToAsk are the endpoints of the flags, or with all the client URLs of
// the members, in the order of the member list.
func (s *session) endpointsToAsk(cmd *cobra.Command, all bool) (clientv3.Config, []string, error) {
	cfg, err := s.clientConfig(cmd)
	if err != nil || !all {
		return cfg, cfg.Endpoints, err
	}
	c, err := dialConfig(cfg)
	if err != nil {
		return cfg, nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), s.flags.commandTimeout)
	defer cancel()
	r, err := c.MemberList(ctx)
	if err != nil {
		return cfg, nil, fmt.Errorf("failed to fetch endpoints from etcd cluster member list: %w", err)
	}
	var endpoints []string
	for _, m := range r.Members {
		endpoints = append(endpoints, m.ClientURLs...)
	}
	return cfg, endpoints, nil
}

// each calls ask for all endpoints at once and waits for all.
func each(endpoints []string, ask func(i int, endpoint string)) {
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		wg.Go(func() { ask(i, endpoint) })
	}
	wg.Wait()
}
