package utl

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

func snapshotCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot <command>", Short: "Look at backups and restore them."}
	cmd.AddCommand(statusCommand(s), restoreCommand(s))
	return cmd
}

func statusCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "status <file>",
		Short: "Check a backup and say what is in it.",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.BadArgs("snapshot status requires exactly one argument")
			}
			p, err := s.printer()
			if err != nil {
				return err
			}
			return print.FileStatus(p, args[0])
		},
	}
}

// target are the flags that say for whom a data directory is made.
type target struct {
	Restore
	skipDigest bool
}

func (t *target) register(fs *pflag.FlagSet) {
	fs.StringVar(&t.DataDir, "data-dir", "", "directory to make (default <name>.etcd)")
	fs.StringVar(&t.WALDir, "wal-dir", "", "directory for the log, if it is to lie elsewhere")
	fs.StringVar(&t.Name, "name", "default", "name of the member")
	fs.StringVar(&t.InitialCluster, "initial-cluster", "default=http://localhost:2380", "all members of the new cluster, name=url with commas between")
	fs.StringVar(&t.InitialClusterToken, "initial-cluster-token", "etcd-cluster", "token that tells the new cluster from others")
	fs.StringVar(&t.InitialAdvertisePeerURLs, "initial-advertise-peer-urls", "http://localhost:2380", "peer URLs of this member, with commas between")
	fs.Uint64Var(&t.BumpRevision, "bump-revision", 0, "how much to add to the revision, so that no client is shown a revision that it has seen with other contents")
	fs.BoolVar(&t.MarkCompacted, "mark-compacted", false, "forbid what is before the revision, so that watches and caches begin anew (needed with --bump-revision)")
	fs.Uint64("initial-memory-map-size", 10<<30, "accepted, without effect: nothing is mapped into memory")
}

func (t *target) check() error {
	if t.BumpRevision > 0 && !t.MarkCompacted {
		return exit.BadArgs("--mark-compacted required if --revision-bump > 0")
	}
	if t.DataDir == "" {
		t.DataDir = t.Name + ".etcd"
	}
	return nil
}

func restoreCommand(s *session) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "restore <file> [flags]",
		Short: "Make the data directory of a member of a new cluster out of a backup.",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.BadArgs("snapshot restore requires exactly one argument")
			}
			if err := t.check(); err != nil {
				return err
			}
			file, err := open(args[0], s.timeout)
			if err != nil {
				return err
			}
			defer file.Close()
			t.Backup, t.Bytes, t.NoDigest = file, file.size, t.skipDigest
			return s.restore(t.Restore)
		},
	}
	t.register(cmd.Flags())
	cmd.Flags().BoolVar(&t.skipDigest, "skip-hash-check", false, "take a file without digest, such as a copy of a member's database")
	return cmd
}

func (s *session) restore(t Restore) error { return s.Process.Restore(t, s.log()) }

func hashKVCommand(s *session) *cobra.Command {
	var rev int64
	cmd := &cobra.Command{
		Use:   "hashkv <file>",
		Short: "Print the hash of the keys in a database file and their history.",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.BadArgs("hashkv requires exactly one argument")
			}
			p, err := s.printer()
			if err != nil {
				return err
			}
			file, err := open(args[0], s.timeout)
			if err != nil {
				return err
			}
			defer file.Close()
			size, err := file.database()
			if err != nil {
				return err
			}
			db, err := etcddb.Open(file, size)
			if err != nil {
				return err
			}
			h, err := db.HashKV(rev)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return p.BackupHashKV(print.BackupHashKV{Hash: h.Sum, HashRevision: h.Revision, CompactRevision: h.Compacted})
		},
	}
	cmd.Flags().Int64Var(&rev, "rev", 0, "highest revision in the hash; 0 is the last one")
	return cmd
}
