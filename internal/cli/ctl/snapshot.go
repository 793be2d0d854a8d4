package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	bar "github.com/cheggaaa/pb/v3"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

func snapshotCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot <command>", Short: "Make backups of a member."}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "save <file>",
			Short: "Write the member's state to a file that etcdutl restores.",
			RunE:  s.snapshotSave,
		},
		&cobra.Command{
			Use:   "status <file>",
			Short: "Deprecated: use etcdutl snapshot status.",
			RunE:  s.snapshotStatus,
		})
	return cmd
}

const (
	// saveBeginnings is how often a backup is begun that could then not be gone on with.
	saveBeginnings = 5
	// saveBarren is how often the member may be reached and break before it sends anything.
	saveBarren = 20
	// savePause is how long a member is let alone before it is asked again.
	savePause = 250 * time.Millisecond
	// savePatience is for how many pauses nothing may come of one that had begun: a member
	// that starts again is waited for.
	savePatience = 240
)

func (s *session) snapshotSave(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return exit.BadArgs("snapshot save expects one argument")
	}
	return s.connect(cmd, func(c *clientv3.Client, _ *print.Printer) error {
		ctx, stop := s.untilAsked(cmd.Context(), c)
		defer stop()
		if cmd.Flags().Changed("command-timeout") {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, s.flags.commandTimeout)
			defer cancel()
		}
		version, err := s.save(ctx, c, args[0])
		if err != nil {
			return exit.With(exit.CodeInterrupted, plain(err))
		}
		text := fmt.Sprintf("Snapshot saved at %s\n", args[0])
		if version != "" {
			text += fmt.Sprintf("Server version %s\n", version)
		}
		_, err = io.WriteString(s.Stdout, text)
		return err
	})
}

// save writes a backup under another name and gives it its own once it is whole and on
// the disk.
func (s *session) save(ctx context.Context, c *clientv3.Client, path string) (version string, err error) {
	if n := len(c.Endpoints()); n != 1 {
		return "", fmt.Errorf("snapshot must be requested to one selected node, not multiple %v", c.Endpoints())
	}
	part := path + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	file, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("could not open %s (%w)", part, err)
	}
	defer os.Remove(part)
	into := &saving{file: file, bar: s.progress(), told: s.Stderr}
	version, err = into.save(ctx, c)
	into.bar.Finish()
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(part, path); err != nil {
		return "", fmt.Errorf("could not rename %s to %s (%w)", part, path, err)
	}
	return version, syncFolder(filepath.Dir(path))
}

// plain is an error of gRPC as the client library's own calls return it.
func plain(err error) error {
	refused, ok := status.FromError(err)
	if !ok {
		return err
	}
	if known := rpctypes.Error(err); known != err {
		return known
	}
	return errors.New(refused.Message())
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// progress is a bar on a terminal, and one that nobody sees anywhere else.
func (s *session) progress() *bar.ProgressBar {
	b := bar.New64(0).Set(bar.Bytes, true).Set(bar.CleanOnFinish, true)
	if f, ok := s.Stderr.(*os.File); ok && isTerminal(f) {
		return b.SetTemplate(bar.Full).SetWriter(f).Start()
	}
	return b.SetWriter(io.Discard).Set(bar.Static, true)
}

func (s *session) snapshotStatus(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return exit.BadArgs("snapshot status requires exactly one argument")
	}
	p, err := s.prepare(cmd)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.Stderr, "Deprecated: Use `etcdutl snapshot status` instead.")
	return print.FileStatus(p, args[0])
}
