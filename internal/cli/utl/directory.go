package utl

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/internal/cli/exit"
)

// minimal is the oldest version that etcdutl migrates to; storage is that of ours.
const (
	minimal = "3.5"
	storage = "3.7"
)

func defragCommand(s *session) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "defrag",
		Short: "Say that there is nothing to defragment while no member runs.",
		RunE: func(*cobra.Command, []string) error {
			if dir == "" {
				return exit.BadArgs("--data-dir is required")
			}
			if err := ours(dir); err != nil {
				fmt.Fprintf(s.Stderr, "Failed to defragment etcd data[%s] (%v)\n", dir, err)
				return exit.ErrReported
			}
			s.log().Info("nothing to defragment: a running member gives space back as it is written to, and at once by etcdctl defrag", "data-dir", dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "data directory of a member")
	return cmd
}

// ours refuses a directory that is not a member's of Kvorum.
func ours(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "member", "identity")); err == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "member", "snap", "db")); err == nil {
		return fmt.Errorf("%s holds data of etcd: use etcd's own etcdutl, or etcdutl import", dir)
	}
	return fmt.Errorf("%s is not the data directory of a member", dir)
}

var targetVersion = regexp.MustCompile(`^(\d+)\.(\d+)$`)

func migrateCommand(s *session) *cobra.Command {
	var dir, target string
	var force bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Check that a data directory is of a storage version.",
		RunE: func(*cobra.Command, []string) error {
			switch {
			case dir == "":
				return exit.BadArgs("--data-dir is required")
			case !targetVersion.MatchString(target):
				return exit.BadArgs("wrong target version format, expected \"X.Y\", got %q", target)
			case target != "3.5" && target != "3.6" && target != storage:
				return exit.BadArgs("target version %q not supported. Minimal %q", target, minimal)
			}
			if err := ours(dir); err != nil {
				return err
			}
			if target != storage {
				return fmt.Errorf("the data in %s is of storage version %s, and not etcd's: to go on with etcd %s, "+
					"save a snapshot from the running member and restore it with etcd's etcdutl", dir, storage, target)
			}
			s.log().Info("storage version up-to-date", "storage-version", storage)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "data directory of a member")
	cmd.Flags().StringVar(&target, "target-version", "", "storage version, as X.Y")
	cmd.Flags().BoolVar(&force, "force", false, "accepted, without effect: nothing is ever rewritten")
	return cmd
}
