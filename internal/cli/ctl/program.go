package ctl

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
)

// program is another program, with our environment and more, that writes where we
// write. It has no input, and nobody kills it.
func (s *session) program(words []string, environ ...string) *exec.Cmd {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = slices.Concat(s.Environ, environ)
	cmd.Stdout, cmd.Stderr = s.Stdout, s.Stderr
	return cmd
}

// programError gives the failure of a program its exit code; the code of one that
// a signal ended is 128 and the signal, as shells have it.
func programError(err error) error {
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return err
	}
	code := ended.ExitCode()
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return exit.With(code, err)
}

// untilAsked returns a context that ends when somebody asks the program to end, by
// Ctrl-C or SIGTERM. What is done then, such as giving back a lock, has the command
// time-out; after it the client is closed, and whoever asks twice ends the program at
// once. stop ends all of this.
func (s *session) untilAsked(ctx context.Context, c *clientv3.Client) (asked context.Context, stop func()) {
	asked, release := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	unhook := context.AfterFunc(asked, func() {
		release()
		time.AfterFunc(s.flags.commandTimeout, func() { c.Close() })
	})
	return asked, func() {
		unhook()
		release()
	}
}
