package osenv

import (
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
)

// WithoutSync is a file system that says that everything is on stable storage and
// syncs nothing (--unsafe-no-fsync): a crash of the machine takes what it likes. The
// end of the process alone does no harm.
func WithoutSync(fs env.FS) env.FS { return unsyncedFS{fs} }

type unsyncedFS struct{ vfs.FS }

func (s unsyncedFS) Unwrap() vfs.FS { return s.FS }

func (s unsyncedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return unsynced(s.FS.Create(name, category))
}

func (s unsyncedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return unsynced(s.FS.OpenReadWrite(name, category, opts...))
}

func (s unsyncedFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return unsynced(s.FS.ReuseForWrite(oldname, newname, category))
}

func (s unsyncedFS) OpenDir(name string) (vfs.File, error) { return unsynced(s.FS.OpenDir(name)) }

type unsyncedFile struct{ vfs.File }

func unsynced(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (unsyncedFile) Sync() error { return nil }

func (unsyncedFile) SyncData() error { return nil }

func (unsyncedFile) SyncTo(int64) (fullSync bool, err error) { return true, nil }

// StartSync implements env.Syncer.
func (unsyncedFile) StartSync(_ bool, done func(error)) { done(nil) }
