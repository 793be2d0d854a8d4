package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/osenv"
)

// A member's disk has faults while files of these names stand in the directory
// that faultsVariable names to its process: the process itself looks for them, so
// that they come and go while it runs.
const (
	faultsVariable = "KVORUM_CLUSTER_FAULTS"
	stallFile      = "stall"
	fullFile       = "full"
)

// World is the real world for a program of a cluster, whose disk has the faults
// that the test asks for.
func World() *osenv.World {
	w := osenv.New()
	if dir := os.Getenv(faultsVariable); dir != "" {
		w.FS = faultyFS{w.FS, dir}
	}
	return w
}

func (m *Member) faults() string { return filepath.Join(filepath.Dir(m.Dir), "faults") }

// StallDisk has every sync of the member wait, from now on until it is called with
// false.
func (m *Member) StallDisk(on bool) { m.setFault(stallFile, on) }

// FillDisk has every write of the member fail for want of space, from now on until
// it is called with false.
func (m *Member) FillDisk(on bool) { m.setFault(fullFile, on) }

func (m *Member) setFault(name string, on bool) {
	m.c.t.Helper()
	path := filepath.Join(m.faults(), name)
	err := os.Remove(path)
	if on {
		if err = os.MkdirAll(m.faults(), 0o700); err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
	}
	if err != nil {
		m.c.t.Fatal(err)
	}
}

// faultyFS is a file system with the faults that stand in a directory.
type faultyFS struct {
	env.FS
	dir string
}

func (f faultyFS) has(fault string) bool {
	_, err := os.Stat(filepath.Join(f.dir, fault))
	return !errors.Is(err, fs.ErrNotExist)
}

// lookAgain is how often a stalled sync looks whether it may go on.
const lookAgain = 2 * time.Millisecond

func (f faultyFS) awaitSync() {
	for f.has(stallFile) {
		time.Sleep(lookAgain)
	}
}

func (f faultyFS) space(name string) error {
	if f.has(fullFile) {
		return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	return nil
}

func (f faultyFS) wrap(name string, file env.File, err error) (env.File, error) {
	if err != nil {
		return nil, err
	}
	return faultyFile{file, f, name}, nil
}

func (f faultyFS) Create(name string, c vfs.DiskWriteCategory) (env.File, error) {
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f faultyFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (env.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return f.wrap(name, file, err)
}

func (f faultyFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (env.File, error) {
	file, err := f.FS.ReuseForWrite(from, to, c)
	return f.wrap(to, file, err)
}

func (f faultyFS) OpenDir(name string) (env.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.wrap(name, file, err)
}

// faultyFile is a file that was opened for writing, or a directory.
type faultyFile struct {
	env.File
	fs   faultyFS
	name string
}

func (f faultyFile) Write(data []byte) (int, error) {
	if err := f.fs.space(f.name); err != nil {
		return 0, err
	}
	return f.File.Write(data)
}

func (f faultyFile) WriteAt(data []byte, at int64) (int, error) {
	if err := f.fs.space(f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(data, at)
}

func (f faultyFile) Preallocate(offset, length int64) error {
	if err := f.fs.space(f.name); err != nil {
		return err
	}
	return f.File.Preallocate(offset, length)
}

func (f faultyFile) Sync() error {
	f.fs.awaitSync()
	return f.File.Sync()
}

func (f faultyFile) SyncData() error {
	f.fs.awaitSync()
	return f.File.SyncData()
}

func (f faultyFile) SyncTo(length int64) (bool, error) {
	f.fs.awaitSync()
	return f.File.SyncTo(length)
}

// StartSync implements env.Syncer as the real file does: in a caller who is idle,
// elsewhere for others.
func (f faultyFile) StartSync(idle bool, done func(error)) {
	if idle {
		done(f.SyncData())
		return
	}
	go func() {
		f.fs.awaitSync()
		env.StartSync(f.File, false, done)
	}()
}
