// Package utl is etcdutl: what a person does with backups and data directories while
// no member runs on them. Flags, texts and exit codes are those of spec/etcdctl.md 4.
// Answers go to standard output, everything else to standard error.
package utl

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/telemetry"
)

// Restore says of what a data directory is made; embed.RestoreConfig explains its
// fields, which are the same.
type Restore struct {
	Backup   io.ReaderAt
	Bytes    int64
	NoDigest bool

	DataDir, WALDir string

	Name, InitialCluster, InitialClusterToken, InitialAdvertisePeerURLs string

	BumpRevision  uint64
	MarkCompacted bool
}

// Process is what the program is handed by its main. Restore assembles a member's
// directory, which only the assembler can.
type Process struct {
	Stdout, Stderr io.Writer
	Restore        func(Restore, *slog.Logger) error
}

// Main runs the program with the arguments that follow its name, and returns the
// exit code.
func Main(ctx context.Context, p Process, args []string) int {
	s := &session{Process: p}
	root := newRoot(s)
	root.SetArgs(args)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	return exit.Tell(p.Stderr, err)
}

// session is one run of the program.
type session struct {
	Process
	writeOut string
	timeout  time.Duration
}

func newRoot(s *session) *cobra.Command {
	root := &cobra.Command{
		Use:           "etcdutl",
		Short:         "Work on backups and data directories of members that do not run.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&s.writeOut, "write-out", "w", "simple", "output format: simple, fields, json or table")
	flags.DurationVar(&s.timeout, "timeout", 10*time.Second, "how long to wait for a file that another program has locked")
	root.AddCommand(snapshotCommand(s), importCommand(s), hashKVCommand(s), defragCommand(s), migrateCommand(s), versionCommand(s))
	return root
}

// printer is for the answer of the command.
func (s *session) printer() (*print.Printer, error) {
	return print.New(s.Stdout, s.Stderr, s.writeOut, false)
}

func (s *session) log() *slog.Logger {
	return telemetry.New(s.Stderr, time.Now, telemetry.Console, slog.LevelInfo)
}

func versionCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of etcdutl.",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(s.Stdout, "etcdutl version: %s\nAPI version: %s\nKvorum version: %s\n",
				config.ServerVersion, config.APIVersion, config.KvorumVersion)
			return err
		},
	}
}
