package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func lockCommand(s *session) *cobra.Command {
	var ttl int
	cmd := &cobra.Command{
		Use:   "lock <name> [flags] [-- command [arguments]]",
		Short: "Hold a lock until interrupted, or while a command runs.",
		Long: `Wait for the lock of that name and hold it: until interrupted, or while a command runs,
whose exit code is then ours. Without a command, the key that is the lock is printed.

The command finds that key in ETCD_LOCK_KEY and a revision that grows from holder to
holder in ETCD_LOCK_REV. It is told to end when we are, by SIGTERM. If the lock is lost,
because the cluster was out of reach for longer than --ttl, the command goes on and
standard error says so: let what the lock protects refuse revisions that are lower
than one that it has seen.`,
		Example: `  etcdctl lock backup -- sh -c 'run-backup --fence "$ETCD_LOCK_REV"'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exit.BadArgs("lock takes one lock name argument and an optional command to execute")
			}
			return s.connect(cmd, func(c *clientv3.Client, p *print.Printer) error {
				return s.lock(cmd, c, p, args[0], args[1:], ttl)
			})
		},
	}
	cmd.Flags().IntVar(&ttl, "ttl", 10, "seconds without an answer of the cluster until the lock is lost")
	return cmd
}

var errSessionExpired = errors.New("session expired")

// lock takes a lock, holds it as long as it is wanted, and gives it back.
func (s *session) lock(cmd *cobra.Command, c *clientv3.Client, p *print.Printer, name string, command []string, ttl int) (err error) {
	if err := inStreams(p); err != nil {
		return err
	}
	own, err := concurrency.NewSession(c, concurrency.WithTTL(ttl))
	if err != nil {
		return err
	}
	defer s.leave(cmd, own)
	asked, stop := s.untilAsked(cmd.Context(), c)
	defer stop()
	m := concurrency.NewMutex(own, name)
	if err := m.Lock(whileIn(asked, own)); err != nil {
		return lost(own, err, errSessionExpired)
	}
	defer func() { err = s.giveBack(cmd, own, m.Unlock, err) }()
	if len(command) > 0 {
		return s.runLocked(asked, stop, own, m, command)
	}
	found, err := s.printKey(cmd, c, p, m.Key())
	if err != nil {
		return err
	}
	if !found {
		return errors.New("lock lost on init")
	}
	return untilLost(asked, own, errSessionExpired)
}

// runLocked runs a command under the lock, unless we have been asked to end before it
// began. It is never killed: what it does may need the lock until its own end. So from
// its beginning on, stop ends what being asked would do otherwise.
func (s *session) runLocked(asked context.Context, stop func(), own *concurrency.Session, m *concurrency.Mutex, command []string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := asked.Err(); err != nil {
		return err
	}
	stop()
	run := s.program(command,
		"ETCD_LOCK_KEY="+m.Key(), fmt.Sprintf("ETCD_LOCK_REV=%d", m.Header().GetRevision()))
	if err := run.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	for expired := own.Done(); ; {
		select {
		case err := <-ended:
			return programError(err)
		case sig := <-signals:
			if sig == syscall.SIGTERM { // of Ctrl-C the terminal has told it
				_ = run.Process.Signal(sig) // fails if its end is on the way
			}
		case <-expired:
			fmt.Fprintln(s.Stderr, "the lock is lost while the command runs: session expired")
			expired = nil
		}
	}
}

// printKey writes a key that was just made, if it is still there.
func (s *session) printKey(cmd *cobra.Command, c *clientv3.Client, p *print.Printer, key string) (found bool, err error) {
	ctx, cancel := s.call(cmd)
	defer cancel()
	r, err := c.Get(ctx, key)
	if err != nil || len(r.Kvs) == 0 {
		return false, err
	}
	return true, p.Get(r, false)
}

// whileIn is ctx until a session's lease is lost.
func whileIn(ctx context.Context, own *concurrency.Session) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(own.Ctx(), cancel)
	return ctx
}

// lost is the reason why something of a session failed: expired if its lease is
// lost, err otherwise.
func lost(own *concurrency.Session, err, expired error) error {
	if own.Ctx().Err() != nil {
		return expired
	}
	return err
}

// untilLost waits until somebody asks us to end, or until a session is lost, which
// is the error expired.
func untilLost(asked context.Context, own *concurrency.Session, expired error) error {
	select {
	case <-asked.Done():
		return nil
	case <-own.Done():
		return expired
	}
}

// giveBack ends what a session held, by release, and returns the error with which
// the command ends: its own, or else that of the release. Nothing is left to give
// back when the session is lost.
func (s *session) giveBack(cmd *cobra.Command, own *concurrency.Session, release func(context.Context) error, err error) error {
	if own.Ctx().Err() != nil {
		return err
	}
	ctx, cancel := s.call(cmd)
	defer cancel()
	return cmp.Or(err, release(ctx))
}

// leave ends a session together with its lease and with what may still hang on it.
// If that does not work, the lease ends by itself.
func (s *session) leave(cmd *cobra.Command, own *concurrency.Session) {
	if own.Ctx().Err() != nil {
		return
	}
	own.Orphan()
	ctx, cancel := s.call(cmd)
	defer cancel()
	_, _ = own.Client().Revoke(ctx, own.Lease())
}
