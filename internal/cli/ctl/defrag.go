package ctl

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func defragCommand(s *session) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "defrag [flags]",
		Short: "Tell each endpoint's member to give unused space back.",
		RunE:  func(cmd *cobra.Command, _ []string) error { return s.defrag(cmd, all) },
	}
	cmd.Flags().BoolVar(&all, "cluster", false, "tell every member that the cluster knows")
	return cmd
}

// defrag goes from one endpoint to the next: a member that is busy with this may
// answer nobody else meanwhile, and a cluster can spare one at a time.
func (s *session) defrag(cmd *cobra.Command, all bool) error {
	return s.askEndpoints(cmd, all, func(c *clientv3.Client, _ *print.Printer, endpoints []string) error {
		var trouble error
		for _, endpoint := range endpoints {
			ctx, cancel := s.call(cmd)
			began := time.Now()
			_, err := c.Defragment(ctx, endpoint)
			took := time.Since(began)
			cancel()
			if err != nil {
				trouble = exit.ErrReported
				fmt.Fprintf(s.Stderr, "Failed to defragment etcd member[%s]. took %s. (%v)\n", endpoint, took, err)
				continue
			}
			if _, err := fmt.Fprintf(s.Stdout, "Finished defragmenting etcd member[%s]. took %s\n", endpoint, took); err != nil {
				return err
			}
		}
		return trouble
	})
}
