// Command bench measures a server that speaks etcd's v3 API.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/kvorum/kvorum/internal/cli/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench.Command(os.Stdout).ExecuteContext(ctx); err != nil {
		os.Exit(1)
	}
}
