package pebbledb

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/syncmark"
)

// disk is the file system as Pebble sees it. It does three things of its own.
//
// It remembers the first write or sync that the disk refused, and from then on
// refuses all others: Pebble would try again, and a sync that succeeds after one
// that failed proves nothing. Nothing is removed any more either, since a file
// that the failed step was about may be in use after all.
//
// And it keeps a mark beside each MANIFEST: Pebble takes a MANIFEST with bad
// bytes for one with a torn end, opens the store as it was before them, and
// deletes the tables that it then does not know.
//
// And it slows flushes and compactions down, unless they are hurried.
type disk struct {
	env.FS

	told  func(error)         // Options.Failed
	pause func(time.Duration) // Options.Pause

	// hurried: the store is behind with its own work, or somebody waits for it. awaited
	// counts those who wait for a rewrite of the whole store.
	hurried atomic.Bool
	awaited atomic.Int32

	mu     sync.Mutex
	cause  error
	broken chan struct{} // closed when cause is set
	closed chan struct{} // closed when the store closes
}

func newDisk(fs env.FS, told func(error), pause func(time.Duration)) *disk {
	return &disk{FS: fs, told: told, pause: pause, broken: make(chan struct{}), closed: make(chan struct{})}
}

// fail remembers the first failure and passes err on.
func (d *disk) fail(err error) error {
	if err == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cause == nil {
		d.cause = fmt.Errorf("%w: %w", engine.ErrFailed, err)
		close(d.broken)
		if d.told != nil {
			d.told(d.cause)
		}
	}
	return err
}

// failure is why nothing is written any more, or nil.
func (d *disk) failure() error {
	select {
	case <-d.broken:
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.cause
	default:
		return nil
	}
}

const manifestPrefix = "MANIFEST-"

// What Pebble says it writes a table for.
const (
	flushCategory      vfs.DiskWriteCategory = "pebble-memtable-flush"
	compactionCategory vfs.DiskWriteCategory = "pebble-compaction"
)

func (d *disk) isManifest(name string) bool {
	base := d.PathBase(name)
	return strings.HasPrefix(base, manifestPrefix) && !strings.HasSuffix(base, syncmark.Suffix)
}

// Create makes a file whose failures are remembered.
func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.failure(); err != nil {
		if category == flushCategory || category == compactionCategory {
			// Here every flush and compaction begins to write, always in the
			// background, and Pebble begins a failed one again at once. They rest until
			// the store is closed.
			<-d.closed
		}
		return nil, err
	}
	f, err := d.FS.Create(name, category)
	if err != nil {
		return nil, d.fail(err)
	}
	own := &diskFile{File: f, disk: d, background: category == flushCategory || category == compactionCategory}
	if d.isManifest(name) {
		if own.mark, err = newManifestMark(d.FS, name); err != nil {
			return nil, d.fail(errors.Join(err, f.Close()))
		}
	}
	return own, nil
}

// Open opens a file to read. Compactions say that they read a table from its
// beginning to its end; nobody else does while the store is open.
func (d *disk) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.Open(name, opts...)
	if err != nil || !slices.Contains(opts, vfs.SequentialReadsOption) {
		return f, err
	}
	return &inputFile{File: f, disk: d}, nil
}

// inputFile is a table that a compaction reads: what it drops it never writes.
type inputFile struct {
	vfs.File
	disk *disk
	pace pace
}

// ReadAt is io.ReaderAt's.
func (f *inputFile) ReadAt(p []byte, off int64) (int, error) {
	f.pace.moved(f.disk, len(p))
	return f.File.ReadAt(p, off)
}

// OpenReadWrite is what Pebble uses for nothing but its log, which is off.
func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := d.failure(); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenReadWrite(name, category, opts...)
	if err != nil {
		return nil, d.fail(err)
	}
	return &diskFile{File: f, disk: d}, nil
}

// ReuseForWrite is, like OpenReadWrite, for Pebble's log.
func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.failure(); err != nil {
		return nil, err
	}
	f, err := d.FS.ReuseForWrite(oldname, newname, category)
	if err != nil {
		return nil, d.fail(err)
	}
	return &diskFile{File: f, disk: d}, nil
}

// OpenDir opens a directory whose failed sync is remembered.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &diskDir{File: f, disk: d}, nil
}

// diskDir is an open directory. Pebble answers a failed sync of one by a panic,
// also on goroutines of its own where nobody can catch it, so it does not hear of
// the failure: it may go on in memory, but not on disk any more, and whoever
// tells what is durable asks for the failure afterwards.
type diskDir struct {
	vfs.File
	disk *disk
}

// Sync is vfs.File's.
func (f *diskDir) Sync() error {
	if f.disk.failure() == nil {
		_ = f.disk.fail(f.File.Sync())
	}
	return nil
}

// Rename moves a file, if the disk still accepts writes.
func (d *disk) Rename(oldname, newname string) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.fail(d.FS.Rename(oldname, newname))
}

// Link makes a second name. Its failure is its caller's alone: Pebble copies
// where a disk cannot link.
func (d *disk) Link(oldname, newname string) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.FS.Link(oldname, newname)
}

// Remove removes a file and, with a MANIFEST, its mark.
func (d *disk) Remove(name string) error {
	if err := d.failure(); err != nil {
		return err
	}
	if d.isManifest(name) {
		if err := engine.RemoveIfThere(d.FS, name+syncmark.Suffix); err != nil {
			return err
		}
	}
	return d.FS.Remove(name)
}

// RemoveAll removes a tree, if the disk still accepts writes.
func (d *disk) RemoveAll(name string) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.FS.RemoveAll(name)
}

// Unwrap is vfs.FS's.
func (d *disk) Unwrap() vfs.FS { return d.FS }

// diskFile is one open file of a disk.
type diskFile struct {
	vfs.File
	disk *disk
	mark *manifestMark // of a MANIFEST
	// background: nobody waits for what is written.
	background bool
	pace       pace
}

// Write is io.Writer's.
func (f *diskFile) Write(p []byte) (int, error) {
	if err := f.disk.failure(); err != nil {
		return 0, err
	}
	if f.background {
		f.pace.moved(f.disk, len(p))
	}
	if f.mark != nil {
		f.mark.wrote(p)
	}
	n, err := f.File.Write(p)
	return n, f.disk.fail(err)
}

// A flush or compaction that is in no hurry rests for tableRest after every
// tableBurst that it reads from or writes to one table: at most 8 MB a second.
// Without it whoever has to answer finds a processor taken for as long as Go's
// scheduler and the system's let it run, and a put needs one several times on its
// way: on two cores the 99th percentile of 1000 puts a second more than doubled
// while a store was compacted. A burst is short: one of 64 KB was 2 to 6 ms of work
// where a table has few bytes for each row, as of rows that are deleted.
const (
	tableBurst = 16 << 10
	tableRest  = 2 * time.Millisecond
)

// pace counts what was moved since the last rest.
type pace int

func (p *pace) moved(d *disk, bytes int) {
	if *p += pace(bytes); *p >= tableBurst {
		*p = 0
		if d.pause != nil && !d.hurried.Load() && d.awaited.Load() == 0 {
			d.pause(tableRest)
		}
	}
}

// WriteAt is io.WriterAt's.
func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.disk.failure(); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(p, off)
	return n, f.disk.fail(err)
}

// Sync is vfs.File's.
func (f *diskFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData is vfs.File's.
func (f *diskFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *diskFile) sync(sync func() error) error {
	if err := f.disk.failure(); err != nil {
		return err
	}
	if err := sync(); err != nil {
		return f.disk.fail(err)
	}
	if f.mark != nil {
		return f.disk.fail(f.mark.synced())
	}
	return nil
}

// SyncTo is vfs.File's.
func (f *diskFile) SyncTo(length int64) (fullSync bool, err error) {
	if err := f.disk.failure(); err != nil {
		return false, err
	}
	fullSync, err = f.File.SyncTo(length)
	return fullSync, f.disk.fail(err)
}

// Close is vfs.File's.
func (f *diskFile) Close() error {
	err := f.File.Close()
	if f.mark != nil {
		err = errors.Join(err, f.mark.mark.Close())
	}
	return err
}

// manifestMark follows a MANIFEST as it grows and promises what was synced.
type manifestMark struct {
	fs       env.FS
	dir      string
	mark     *syncmark.Mark
	promise  syncmark.Promise
	promised int64
	entered  bool // the mark file's name is durable
}

func newManifestMark(fs env.FS, name string) (*manifestMark, error) {
	// A mark of that name is a leftover of an attempt that a crash ended.
	if err := engine.RemoveIfThere(fs, name+syncmark.Suffix); err != nil {
		return nil, err
	}
	mark, err := syncmark.Open(fs, name)
	if err != nil {
		return nil, err
	}
	return &manifestMark{fs: fs, dir: fs.PathDir(name), mark: mark}, nil
}

func (m *manifestMark) wrote(p []byte) {
	m.promise.Sum = crc32.Update(m.promise.Sum, syncmark.Table, p)
	m.promise.Length += int64(len(p))
}

// synced promises all that was written, before Pebble hears that it is synced.
func (m *manifestMark) synced() error {
	if m.promise.Length == m.promised {
		return nil
	}
	if err := m.mark.Write(m.promise); err != nil {
		return err
	}
	if err := m.mark.Sync(); err != nil {
		return err
	}
	m.promised = m.promise.Length
	if m.entered {
		return nil
	}
	m.entered = true
	return engine.SyncDir(m.fs, m.dir)
}
