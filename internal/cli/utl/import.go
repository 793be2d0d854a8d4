package utl

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

func importCommand(s *session) *cobra.Command {
	var t target
	var wal string
	cmd := &cobra.Command{
		Use:   "import <etcd's data directory> [flags]",
		Short: "Make the data directory of a member of a new cluster out of that of a stopped etcd.",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.BadArgs("import requires exactly one argument: the data directory of a stopped etcd")
			}
			if err := t.check(); err != nil {
				return err
			}
			file, err := open(filepath.Join(args[0], "member", "snap", "db"), s.timeout)
			if err != nil {
				return err
			}
			defer file.Close()
			if wal == "" {
				wal = filepath.Join(args[0], "member", "wal")
			}
			if err := complete(file, wal); err != nil {
				return err
			}
			t.Backup, t.Bytes, t.NoDigest = file, file.size, true
			return s.restore(t.Restore)
		},
	}
	t.register(cmd.Flags())
	cmd.Flags().StringVar(&wal, "etcd-wal-dir", "", "where that etcd has its log (default member/wal in its data directory)")
	return cmd
}

// complete refuses a database to which the log would add something: what the log
// says is not applied here.
func complete(file *database, wal string) error {
	db, err := etcddb.Open(file, file.size)
	if err != nil {
		return err
	}
	facts, err := db.ReadFacts()
	if err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(wal, "*.wal"))
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("no log in %s: name its directory with --etcd-wal-dir, or restore the database alone with snapshot restore --skip-hash-check", wal)
	}
	slices.Sort(names)
	var missing []uint64
	for _, name := range names {
		segment, err := os.Open(name)
		if err != nil {
			return err
		}
		err = etcddb.ReadWAL(segment, func(e etcddb.Entry) {
			replaced, _ := slices.BinarySearch(missing, e.Index)
			missing = missing[:replaced]
			if e.Index > facts.Index && e.Changes() {
				missing = append(missing, e.Index)
			}
		})
		segment.Close()
		if err != nil {
			return fmt.Errorf("%s: %w: start that etcd again, which mends a torn end, and stop it with SIGTERM", name, err)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the log in %s has %d entries, from index %d on, that the database, which is at index %d, may not have: start that etcd again and save a snapshot, "+
			"or put a key and stop it with SIGTERM", wal, len(missing), missing[0], facts.Index)
	}
	return nil
}
