// Command etcdutl works on files while no member runs on them: backups and data
// directories.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/kvorum/kvorum/embed"
	"github.com/kvorum/kvorum/internal/cli/utl"
)

func main() { os.Exit(run()) }

func run() int {
	return utl.Main(context.Background(), utl.Process{
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Restore: func(r utl.Restore, log *slog.Logger) error {
			return embed.Restore(embed.RestoreConfig(r), log)
		},
	}, os.Args[1:])
}
