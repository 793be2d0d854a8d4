package simenv

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
)

// mount is the file system of one run.
type mount struct {
	d    *Disk
	dead bool
}

var _ env.FS = (*mount)(nil)

// enter locks the disk and begins an operation on a path.
func (m *mount) enter(op Op, name string) error {
	m.d.mu.Lock()
	if err := m.d.begin(m, op, name); err != nil {
		m.d.mu.Unlock()
		return pathError(op.String(), name, err)
	}
	return nil
}

// Create implements vfs.FS: a file of that name makes room for a new one.
func (m *mount) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	name = clean(name)
	if err := m.enter(OpCreate, name); err != nil {
		return nil, err
	}
	defer m.d.mu.Unlock()
	return m.create(name)
}

func (m *mount) create(name string) (*file, error) {
	dir, base, err := m.d.parent("create", name)
	if err != nil {
		return nil, err
	}
	if old := dir.dir.entries[base]; old != nil && old.dir != nil {
		return nil, pathError("create", name, syscall.EISDIR)
	}
	n := &inode{epoch: 1, modified: m.d.now()}
	m.d.set(dir, base, n)
	m.d.fold(OpCreate, name)
	return m.handle(name, n, true), nil
}

func (m *mount) handle(name string, n *inode, writable bool) *file {
	return &file{m: m, name: name, n: n, writable: writable}
}

// Link implements vfs.FS.
func (m *mount) Link(oldname, newname string) error {
	oldname, newname = clean(oldname), clean(newname)
	if err := m.enter(OpLink, newname); err != nil {
		return err
	}
	defer m.d.mu.Unlock()
	n := m.d.lookup(oldname)
	if n == nil {
		return pathError("link", oldname, fs.ErrNotExist)
	}
	if n.dir != nil {
		return pathError("link", oldname, fs.ErrPermission)
	}
	dir, base, err := m.d.parent("link", newname)
	if err != nil {
		return err
	}
	if dir.dir.entries[base] != nil {
		return pathError("link", newname, fs.ErrExist)
	}
	m.d.set(dir, base, n)
	m.d.fold(OpLink, newname, hashString(oldname))
	return nil
}

// Open implements vfs.FS: for reading and syncing.
func (m *mount) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	name = clean(name)
	if err := m.enter(OpOpen, name); err != nil {
		return nil, err
	}
	n := m.d.lookup(name)
	m.d.mu.Unlock()
	if n == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	f := m.handle(name, n, false)
	for _, opt := range opts {
		opt.Apply(f)
	}
	return f, nil
}

// OpenReadWrite implements vfs.FS. It counts as a creation only if it is one.
func (m *mount) OpenReadWrite(
	name string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption,
) (vfs.File, error) {
	name = clean(name)
	f, err := m.openReadWrite(name)
	if err != nil {
		return nil, err
	}
	for _, opt := range opts {
		opt.Apply(f)
	}
	return f, nil
}

func (m *mount) openReadWrite(name string) (*file, error) {
	if err := m.enter(OpOpen, name); err != nil {
		return nil, err
	}
	defer m.d.mu.Unlock()
	switch n := m.d.lookup(name); {
	case n == nil:
		if err := m.d.begin(m, OpCreate, name); err != nil {
			return nil, pathError("create", name, err)
		}
		return m.create(name)
	case n.dir != nil:
		return nil, pathError("open", name, syscall.EISDIR)
	default:
		return m.handle(name, n, true), nil
	}
}

// OpenDir implements vfs.FS.
func (m *mount) OpenDir(name string) (vfs.File, error) {
	f, err := m.Open(name)
	if err == nil && f.(*file).n.dir == nil {
		return nil, pathError("open", name, syscall.ENOTDIR)
	}
	return f, err
}

// Remove implements vfs.FS.
func (m *mount) Remove(name string) error {
	name = clean(name)
	if err := m.enter(OpRemove, name); err != nil {
		return err
	}
	defer m.d.mu.Unlock()
	return m.remove(name)
}

func (m *mount) remove(name string) error {
	dir, base, err := m.d.parent("remove", name)
	if err != nil {
		return err
	}
	n := dir.dir.entries[base]
	if n == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if n.dir != nil && len(n.dir.entries) > 0 {
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	m.d.set(dir, base, nil)
	m.d.fold(OpRemove, name)
	return nil
}

// RemoveAll implements vfs.FS: one operation for each file and directory, so
// that a crash may come between any two.
func (m *mount) RemoveAll(name string) error {
	name = clean(name)
	if err := m.enter(OpOpen, name); err != nil {
		return err
	}
	defer m.d.mu.Unlock()
	n := m.d.lookup(name)
	if n == nil {
		return nil
	}
	return m.removeTree(name, n)
}

func (m *mount) removeTree(name string, n *inode) (first error) {
	if n.dir != nil {
		for _, child := range n.dir.names() {
			if err := m.removeTree(path.Join(name, child), n.dir.entries[child]); first == nil {
				first = err
			}
		}
	}
	if first != nil || name == "" {
		return first
	}
	if err := m.d.begin(m, OpRemove, name); err != nil {
		return pathError("remove", name, err)
	}
	return m.remove(name)
}

// Rename implements vfs.FS.
func (m *mount) Rename(oldname, newname string) error {
	oldname, newname = clean(oldname), clean(newname)
	if err := m.enter(OpRename, newname); err != nil {
		return err
	}
	defer m.d.mu.Unlock()
	return m.rename(oldname, newname)
}

func (m *mount) rename(oldname, newname string) error {
	from, oldbase, err := m.d.parent("rename", oldname)
	if err != nil {
		return err
	}
	n := from.dir.entries[oldbase]
	if n == nil {
		return pathError("rename", oldname, fs.ErrNotExist)
	}
	to, newbase, err := m.d.parent("rename", newname)
	if err != nil {
		return err
	}
	if n.dir != nil && strings.HasPrefix(newname+"/", oldname+"/") && newname != oldname {
		return pathError("rename", newname, fs.ErrInvalid)
	}
	switch over := to.dir.entries[newbase]; {
	case over == n: // two names of one file: rename(2) does nothing
		return nil
	case over == nil:
	case over.dir == nil && n.dir != nil:
		return pathError("rename", newname, syscall.ENOTDIR)
	case over.dir != nil && n.dir == nil:
		return pathError("rename", newname, syscall.EISDIR)
	case over.dir != nil && len(over.dir.entries) > 0:
		return pathError("rename", newname, syscall.ENOTEMPTY)
	}
	m.d.move(from, oldbase, to, newbase)
	m.d.fold(OpRename, newname, hashString(oldname))
	return nil
}

// ReuseForWrite implements vfs.FS: the file keeps its content, so that what a
// log recycles shows its stale blocks after a crash.
func (m *mount) ReuseForWrite(
	oldname, newname string, category vfs.DiskWriteCategory,
) (vfs.File, error) {
	if err := m.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return m.OpenReadWrite(newname, category)
}

// MkdirAll implements vfs.FS: one operation for each directory that is missing.
func (m *mount) MkdirAll(name string, _ fs.FileMode) error {
	name = clean(name)
	if err := m.enter(OpOpen, name); err != nil {
		return err
	}
	defer m.d.mu.Unlock()
	at, done := m.d.root, ""
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		done = path.Join(done, part)
		next := at.dir.entries[part]
		if next == nil {
			if err := m.d.begin(m, OpMkdir, done); err != nil {
				return pathError("mkdir", done, err)
			}
			next = newDirectory()
			m.d.set(at, part, next)
			m.d.fold(OpMkdir, done)
		}
		if next.dir == nil {
			return pathError("mkdir", done, syscall.ENOTDIR)
		}
		at = next
	}
	return nil
}

// Lock implements vfs.FS. It fails with env.ErrLocked if any run that is alive
// holds the lock.
func (m *mount) Lock(name string) (io.Closer, error) {
	name = clean(name)
	if err := m.enter(OpLock, name); err != nil {
		return nil, err
	}
	defer m.d.mu.Unlock()
	if m.d.locks[name] {
		return nil, pathError("lock", name, env.ErrLocked)
	}
	if m.d.lookup(name) == nil {
		if _, err := m.create(name); err != nil {
			return nil, err
		}
	}
	m.d.locks[name] = true
	return &heldLock{m, name}, nil
}

type heldLock struct {
	m    *mount
	name string
}

// Close releases the lock. A dead run's locks are released already.
func (l *heldLock) Close() error {
	l.m.d.mu.Lock()
	defer l.m.d.mu.Unlock()
	if l.m.dead {
		return pathError("unlock", l.name, ErrCrashed)
	}
	delete(l.m.d.locks, l.name)
	return nil
}

// List implements vfs.FS; the names come in order.
func (m *mount) List(name string) ([]string, error) {
	name = clean(name)
	if err := m.enter(OpList, name); err != nil {
		return nil, err
	}
	defer m.d.mu.Unlock()
	n := m.d.lookup(name)
	if n == nil {
		return nil, pathError("list", name, fs.ErrNotExist)
	}
	if n.dir == nil {
		return nil, pathError("list", name, syscall.ENOTDIR)
	}
	return n.dir.names(), nil
}

// Stat implements vfs.FS.
func (m *mount) Stat(name string) (vfs.FileInfo, error) {
	name = clean(name)
	if err := m.enter(OpOpen, name); err != nil {
		return nil, err
	}
	defer m.d.mu.Unlock()
	n := m.d.lookup(name)
	if n == nil {
		return nil, pathError("stat", name, fs.ErrNotExist)
	}
	return n.info(name), nil
}

// PathBase, PathJoin and PathDir work on slashes.
func (*mount) PathBase(p string) string       { return path.Base(p) }
func (*mount) PathJoin(elem ...string) string { return path.Join(elem...) }
func (*mount) PathDir(p string) string        { return path.Dir(p) }

// unlimitedBytes is what a disk without a capacity says it has.
const unlimitedBytes = 1 << 40

// GetDiskUsage implements vfs.FS.
func (m *mount) GetDiskUsage(name string) (vfs.DiskUsage, error) {
	if err := m.enter(OpOpen, clean(name)); err != nil {
		return vfs.DiskUsage{}, err
	}
	defer m.d.mu.Unlock()
	total := m.d.capacity
	if total == 0 {
		total = unlimitedBytes
	}
	return vfs.DiskUsage{
		AvailBytes: uint64(max(0, total-m.d.used)),
		TotalBytes: uint64(total),
		UsedBytes:  uint64(m.d.used),
	}, nil
}

// Unwrap implements vfs.FS: there is nothing below.
func (*mount) Unwrap() vfs.FS { return nil }

var errReadOnly = errors.New("file is not open for writing")
