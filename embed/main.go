package embed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/proxy"
	"github.com/kvorum/kvorum/internal/telemetry"
)

// Main is the program etcd: it reads flags and environment, runs a member until
// a signal or a failure ends it, and returns the exit code. After a signal the
// process dies of that signal, as its parent expects (spec/server-ops.md 8).
func Main(args, environ []string) int { return MainIn(osenv.New(), args, environ) }

// MainIn is Main in a world of the caller's, which ends with the member: another
// disk, say. Only programs of this module can make one.
func MainIn(world *osenv.World, args, environ []string) int {
	if len(args) > 0 && slices.Contains(proxy.Commands, args[0]) {
		world.Stop()
		return proxy.Main(args, os.Stdout, os.Stderr)
	}
	cfg, warnings, err := config.Parse(args, environ, os.ReadFile)
	if err != nil {
		return refuse(err)
	}
	logs, err := openLog(&cfg)
	if err != nil {
		return refuse(err)
	}
	defer logs.close()
	logs.followSignals()
	logs.silenceLibraries()
	log := logs.Logger
	paceCollector()
	for _, w := range warnings {
		log.LogAttrs(context.Background(), w.Level, w.Msg, w.Attrs...)
	}
	if err := checkProcess(&cfg, log); err != nil {
		fatal(log, "the member cannot start", err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	log.Info("starting", "etcd-version", config.ServerVersion, "kvorum-version", config.KvorumVersion,
		"name", cfg.Name, "data-dir", cfg.DataDir)
	s, sig, err := startOrSignal(world, cfg, log, signals)
	switch {
	case sig != nil:
		// Nothing is served yet: what a crash would leave is what the next start takes up.
		log.Info("received signal while starting", "signal", sig.String())
		return dieOf(sig)
	case err != nil:
		fatal(log, "the member cannot start", err)
		return 1
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd was not told that the member is ready", "error", err.Error())
	}
	select {
	case sig := <-signals:
		log.Info("received signal; shutting down", "signal", sig.String())
		if err := s.Close(); err != nil {
			fatal(log, "the member did not stop cleanly", err)
			return 1
		}
		return dieOf(sig)
	case err := <-s.Failed():
		fatal(log, "the member cannot go on", err)
		return 1
	}
}

// startOrSignal starts the member, or gives up waiting for that at a signal: a
// long replay must not keep Ctrl-C from working.
func startOrSignal(world *osenv.World, cfg Config, log *slog.Logger, signals <-chan os.Signal) (*Server, os.Signal, error) {
	type started struct {
		s   *Server
		err error
	}
	done := make(chan started, 1)
	go func() {
		s, err := startIn(world, cfg, log, config.ServerVersion)
		done <- started{s, err}
	}()
	select {
	case r := <-done:
		return r.s, nil, r.err
	case sig := <-signals:
		return nil, sig, nil
	}
}

// dieOf ends the process by the signal's default action; pid 1, for which there
// is none, exits with 0.
func dieOf(sig os.Signal) int {
	number, ok := sig.(syscall.Signal)
	if !ok || os.Getpid() == 1 {
		return 0
	}
	signal.Reset(sig)
	if syscall.Kill(os.Getpid(), number) != nil {
		return 0
	}
	select {} // the signal is on its way
}

// refuse tells why the program does not start and returns the exit code.
func refuse(err error) int {
	var refused *config.Error
	if !errors.As(err, &refused) {
		refused = &config.Error{Code: 1}
	}
	fmt.Fprint(os.Stdout, refused.Stdout)
	fmt.Fprint(os.Stderr, refused.Stderr)
	if refused.Stdout == "" && refused.Stderr == "" {
		log := telemetry.New(os.Stderr, time.Now, telemetry.JSON, slog.LevelInfo)
		fatal(log, "the member cannot start", err, refused.Attrs...)
	}
	return refused.Code
}

// fatal writes the one line that says why the process ends.
func fatal(log *slog.Logger, msg string, err error, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("error", err.Error()))
	log.LogAttrs(context.Background(), telemetry.LevelFatal, msg, attrs...)
}
