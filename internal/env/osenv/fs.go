package osenv

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
)

// FS returns the operating system's file system. It is vfs.Default with three
// differences: files opened for writing implement env.Syncer, a data sync that a
// signal interrupted is taken up again, and locks belong to the open file rather
// than to the process. Unwrap gives vfs.Default, so that vfs.Root recognises the
// real disk.
func FS() env.FS { return fileSystem{vfs.Default} }

type fileSystem struct{ vfs.FS }

func (s fileSystem) Unwrap() vfs.FS { return s.FS }

func (s fileSystem) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return wrap(s.FS.Create(name, category))
}

func (s fileSystem) OpenReadWrite(
	name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption,
) (vfs.File, error) {
	return wrap(s.FS.OpenReadWrite(name, category, opts...))
}

func (s fileSystem) ReuseForWrite(
	oldname, newname string, category vfs.DiskWriteCategory,
) (vfs.File, error) {
	return wrap(s.FS.ReuseForWrite(oldname, newname, category))
}

// Lock takes the exclusive lock of a file, made empty if it is missing. It fails
// with env.ErrLocked if anybody holds it, this process under another spelling of
// the path included. The lock ends with Close or with the process.
func (s fileSystem) Lock(name string) (io.Closer, error) { return lock(name) }

// file is a file of vfs.Default that was opened for writing. Reads, Fd and
// SyncTo go straight through: Pebble finds the descriptor that it preallocates
// and prefetches with.
type file struct{ vfs.File }

func wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

// StartSync implements env.Syncer. The process's ring syncs, if there is one, syncs are
// slow and the caller has something else to do; in any other case the caller does.
func (f file) StartSync(idle bool, done func(error)) {
	if r := theRing(); r != nil && !idle && syncs.slow() && r.start(f.Fd(), func(err error) { f.ended(err, done) }) {
		return
	}
	begun := time.Now()
	err := f.SyncData()
	syncs.took(time.Since(begun))
	done(err)
}

// syncs is the pace of this process's data syncs.
var syncs pace

// pace knows how long a data sync takes from those that callers made themselves.
type pace struct {
	last  atomic.Int64 // what the last such sync took, in nanoseconds
	asked atomic.Uint32
}

const (
	// slowSync is what a sync takes at least if it is to be worth two changes of
	// thread, each some tens of microseconds.
	slowSync = 40 * time.Microsecond
	// measuredSync is which of the slow ones is made by its caller all the same.
	measuredSync = 64
)

func (p *pace) took(d time.Duration) { p.last.Store(int64(d)) }

// slow says whether the next sync shall not be waited for by its caller.
func (p *pace) slow() bool {
	return p.last.Load() >= int64(slowSync) && p.asked.Add(1)%measuredSync != 0
}

// ended reports what the ring made of a sync. One that was interrupted, or given up
// before it began, is made here again, as SyncData does it.
func (f file) ended(err error, done func(error)) {
	if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ECANCELED) || errors.Is(err, syscall.EAGAIN) {
		go func() { done(f.SyncData()) }()
		return
	}
	done(err)
}

// Shrink implements env.Shrinker, where the operating system's file can be cut.
func (f file) Shrink(size int64) error {
	if cut, able := f.File.(interface{ Truncate(size int64) error }); able {
		return cut.Truncate(size)
	}
	return nil
}

// SyncData is fdatasync. An interrupted call has neither synced nor failed, so
// it is made again: its error would be final to every caller.
func (f file) SyncData() error {
	for {
		err := f.File.SyncData()
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// Preallocate reserves disk space without changing the file's size. A file
// system that cannot is no error: the space is then taken when it is written.
// Errors: ENOSPC and the like, which a caller may ignore as a hint or heed.
func (f file) Preallocate(offset, length int64) error {
	for {
		err := f.File.Preallocate(offset, length)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return nil
		default:
			return err
		}
	}
}
