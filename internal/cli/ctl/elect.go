package ctl

import (
	"errors"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func electCommand(s *session) *cobra.Command {
	var listen bool
	cmd := &cobra.Command{
		Use:   "elect <name> [proposal] [flags]",
		Short: "Be elected and stay it until interrupted, or see who is.",
		Long: `Stand in the election of that name. Once elected, print the key that stands for it and the
proposal, and stay until interrupted. The key's create revision grows from leader to
leader.

With --listen, print the present leader's key and proposal, and those of every later one.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) != 1 && len(args) != 2:
				return exit.BadArgs("elect takes one election name argument and an optional proposal argument")
			case len(args) == 1 && !listen:
				return exit.BadArgs("no proposal argument but -l not set")
			case len(args) == 2 && listen:
				return exit.BadArgs("proposal given but -l is set")
			}
			return s.connect(cmd, func(c *clientv3.Client, p *print.Printer) error {
				if err := inStreams(p); err != nil {
					return err
				}
				own, err := concurrency.NewSession(c)
				if err != nil {
					return err
				}
				defer s.leave(cmd, own)
				if listen {
					return s.observe(cmd, own, p, args[0])
				}
				return s.campaign(cmd, own, p, args[0], args[1])
			})
		},
	}
	cmd.Flags().BoolVarP(&listen, "listen", "l", false, "do not stand, but print who is elected")
	return cmd
}

// observe writes leaders until interrupted.
func (s *session) observe(cmd *cobra.Command, own *concurrency.Session, p *print.Printer, name string) error {
	asked, stop := s.untilAsked(cmd.Context(), own.Client())
	defer stop()
	for r := range concurrency.NewElection(own, name).Observe(asked) {
		if err := p.Get(r, false); err != nil {
			return err
		}
	}
	if asked.Err() != nil {
		return nil
	}
	return errors.New("elect: observer lost")
}

var errElectExpired = errors.New("elect: session expired")

// campaign waits until it is elected, stays it as long as it is wanted, and resigns.
func (s *session) campaign(cmd *cobra.Command, own *concurrency.Session, p *print.Printer, name, proposal string) (err error) {
	asked, stop := s.untilAsked(cmd.Context(), own.Client())
	defer stop()
	e := concurrency.NewElection(own, name)
	if err := e.Campaign(whileIn(asked, own), proposal); err != nil {
		return lost(own, err, errElectExpired)
	}
	defer func() { err = s.giveBack(cmd, own, e.Resign, err) }()
	found, err := s.printKey(cmd, own.Client(), p, e.Key())
	if err != nil {
		return err
	}
	if !found { // the client takes a candidate that has gone for the first in line
		return errElectExpired
	}
	return untilLost(asked, own, errElectExpired)
}
