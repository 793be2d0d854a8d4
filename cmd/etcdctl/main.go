// Command etcdctl talks to a running cluster, under the name that every script
// knows.
package main

import (
	"context"
	"os"

	"github.com/kvorum/kvorum/internal/cli/ctl"
)

func main() { os.Exit(run()) }

func run() int {
	return ctl.Main(context.Background(), ctl.Process{
		Environ: os.Environ(),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
	}, os.Args[1:])
}
