package simenv

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
)

// file is an open file or directory of one run.
type file struct {
	m        *mount
	name     string
	n        *inode
	writable bool
	closed   bool
	offset   int64 // of Read and Write
}

var (
	_ env.File   = (*file)(nil)
	_ env.Syncer = (*file)(nil)
)

// enter locks the disk for an operation on the handle.
func (f *file) enter() error {
	f.m.d.mu.Lock()
	var err error
	switch {
	case f.m.dead || f.m.d.down:
		err = ErrCrashed
	case f.closed:
		err = fs.ErrClosed
	default:
		return nil
	}
	f.m.d.mu.Unlock()
	return pathError("use", f.name, err)
}

// Close implements vfs.File. Like close(2) it syncs nothing.
func (f *file) Close() error {
	if err := f.enter(); err != nil {
		return err
	}
	f.closed = true
	f.m.d.mu.Unlock()
	return nil
}

// Read implements vfs.File.
func (f *file) Read(p []byte) (int, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.m.d.mu.Unlock()
	n, err := f.readAt(p, f.offset)
	f.offset += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt implements vfs.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.m.d.mu.Unlock()
	return f.readAt(p, off)
}

func (f *file) readAt(p []byte, off int64) (int, error) {
	if f.n.dir != nil {
		return 0, pathError("read", f.name, syscall.EISDIR)
	}
	flip := false
	if d := f.m.d; len(d.faults) > 0 {
		var err error
		if err, flip = d.strike(OpRead, f.name); err != nil {
			return 0, pathError("read", f.name, err)
		}
	}
	n := f.n.readAt(p, off)
	if flip && n > 0 {
		p[f.m.d.rand.Intn(n)] ^= 1 << f.m.d.rand.Intn(8)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Write implements vfs.File. Unlike the interface allows, p stays as it is.
func (f *file) Write(p []byte) (int, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.m.d.mu.Unlock()
	n, err := f.writeAt(p, f.offset)
	f.offset += int64(n)
	return n, err
}

// WriteAt implements vfs.File, for every file that is open for writing.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.m.d.mu.Unlock()
	return f.writeAt(p, off)
}

func (f *file) writeAt(p []byte, off int64) (int, error) {
	d := f.m.d
	if !f.writable {
		return 0, pathError("write", f.name, errReadOnly)
	}
	err := d.begin(f.m, OpWrite, f.name)
	if err != nil { // a part may have been written: whole sectors, no kernel or disk stops within one
		p = p[:d.rand.Intn(len(p)+1)]
		p = p[:max(0, (off+int64(len(p)))/sectorBytes*sectorBytes-off)]
	}
	if len(p) > 0 {
		end, full := d.reserve(f.n, off+int64(len(p)))
		p = p[:max(0, end-off)]
		if err == nil {
			err = full
		}
	}
	if len(p) > 0 {
		f.n.writeAt(p, off, &d.pool, d.rand)
		f.n.modified = d.now()
		d.fold(OpWrite, f.name, uint64(off), uint64(len(p)), contentHash(p))
	}
	if err != nil {
		return len(p), pathError("write", f.name, err)
	}
	return len(p), nil
}

// Preallocate implements vfs.File: it takes disk space, so that later writes
// find it, and leaves the size alone. Errors: ENOSPC.
func (f *file) Preallocate(offset, length int64) error {
	if err := f.enter(); err != nil {
		return err
	}
	defer f.m.d.mu.Unlock()
	before := f.n.alloc
	if _, err := f.m.d.reserve(f.n, offset+length); err != nil {
		// All or nothing, as fallocate(2).
		if f.n.links > 0 {
			f.m.d.used -= f.n.alloc - before
		}
		f.n.alloc = before
		return pathError("preallocate", f.name, err)
	}
	return nil
}

// Sync implements vfs.File: everything written, or for a directory everything
// done to its names, is durable when it returns nil. It does not make the file's
// own name durable.
func (f *file) Sync() error {
	if err := f.enter(); err != nil {
		return err
	}
	defer f.m.d.mu.Unlock()
	if f.n.dir != nil {
		return f.m.d.finishDirSync(f.m, f.name, f.n)
	}
	return f.m.d.finishSync(f.m, f.name, f.n, f.n.epoch)
}

// SyncData implements vfs.File as Sync.
func (f *file) SyncData() error { return f.Sync() }

// SyncTo implements vfs.File: it may fail as a sync does, and promises nothing,
// so nothing becomes durable.
func (f *file) SyncTo(int64) (fullSync bool, err error) {
	if err := f.enter(); err != nil {
		return false, err
	}
	defer f.m.d.mu.Unlock()
	if err := f.m.d.begin(f.m, OpSync, f.name); err != nil {
		return false, pathError("sync", f.name, err)
	}
	return false, nil
}

// StartSync implements env.Syncer. The sync covers what was written before; it
// ends when the simulator completes it (Disk.CompleteSync, CompleteDue), which
// calls done. A sync of a run that crashes first is never reported.
func (f *file) StartSync(_ bool, done func(error)) {
	if err := f.startSync(done); err != nil {
		done(err)
	}
}

func (f *file) startSync(done func(error)) error {
	if err := f.enter(); err != nil {
		return err
	}
	d := f.m.d
	defer d.mu.Unlock()
	if f.n.dir != nil {
		return pathError("sync", f.name, syscall.EISDIR)
	}
	if err := d.begin(f.m, OpStartSync, f.name); err != nil {
		return pathError("sync", f.name, err)
	}
	took := d.options.SyncMin + time.Duration(d.rand.Int64N(int64(d.options.SyncMax-d.options.SyncMin)+1))
	d.pending = append(d.pending, &pendingSync{
		m: f.m, name: f.name, n: f.n, epoch: f.n.epoch, due: d.now().Add(took), done: done,
	})
	d.fold(OpStartSync, f.name, uint64(f.n.epoch), uint64(took))
	f.n.epoch++
	return nil
}

// Prefetch implements vfs.File: everything is in memory.
func (f *file) Prefetch(int64, int64) error { return nil }

// Fd implements vfs.File.
func (f *file) Fd() uintptr { return vfs.InvalidFd }

// Stat implements vfs.File.
func (f *file) Stat() (vfs.FileInfo, error) {
	if err := f.enter(); err != nil {
		return nil, err
	}
	defer f.m.d.mu.Unlock()
	return f.n.info(f.name), nil
}

// info is a vfs.FileInfo.
type info struct {
	name     string
	size     int64
	modified env.Instant
	dir      bool
}

func (n *inode) info(name string) info {
	return info{path.Base("/" + name), n.size, n.modified, n.dir != nil}
}

func (i info) Name() string           { return i.name }
func (i info) Size() int64            { return i.size }
func (i info) ModTime() time.Time     { return firstDay.Add(time.Duration(i.modified)) }
func (i info) IsDir() bool            { return i.dir }
func (i info) Sys() any               { return nil }
func (i info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
