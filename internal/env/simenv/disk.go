package simenv

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/internal/env"
)

// ErrCrashed is what every file, lock and file system of a crashed run returns.
var ErrCrashed = errors.New("simenv: the process has crashed")

// DiskOptions shape a disk. The zero value is a disk of unlimited size that
// tears blocks, keeps a prefix of each directory's unsynced operations and
// completes syncs within 50 microseconds to 5 milliseconds.
type DiskOptions struct {
	// Capacity in bytes; 0 is unlimited.
	Capacity int64
	// WholeBlocks: a power loss never tears a 4 KiB block into 512-byte sectors.
	WholeBlocks bool
	// ReorderDirOps: a power loss keeps any subset of a directory's unsynced
	// operations instead of a prefix, harsher than a journalled file system.
	ReorderDirOps bool
	// FailedSyncCleans: after a failed sync later ones pass over the blocks that
	// did not reach the disk, as Linux does, although they still read well.
	FailedSyncCleans bool
	// SyncMin and SyncMax bound how long a StartSync takes, in the world's time.
	SyncMin, SyncMax time.Duration
}

// Disk is the disk of one machine. It outlives the runs of its process; each run
// reaches it through a file system of its own, from Mount to Crash. The disk is
// safe for concurrent use; only one goroutine at a time gives the same trace
// twice.
type Disk struct {
	mu      sync.Mutex
	options DiskOptions
	now     func() env.Instant
	rand    *Rand
	stall   func(time.Duration) // tells the machine that an operation took time

	root     *inode
	unsynced []*inode // directories with a journal
	lastOp   uint64   // numbers directory operations
	mounts   []*mount
	locks    map[string]bool
	pending  []*pendingSync
	planned  []*plannedClone
	pool     buffers

	capacity, used int64
	faults         []*armed
	down           bool // CrashAfter has struck
	crashAt        uint64
	ops            uint64
	trace          uint64
}

// NewDisk makes an empty disk that stands alone: its time is always 0, so every
// sync is due at once, and stalls have no effect.
func NewDisk(seed uint64, options DiskOptions) *Disk {
	return newDisk(NewRand(seed, "disk"), options, func() env.Instant { return 0 })
}

func newDisk(r *Rand, options DiskOptions, now func() env.Instant) *Disk {
	if options.SyncMax == 0 {
		options.SyncMin, options.SyncMax = 50*time.Microsecond, 5*time.Millisecond
	}
	return &Disk{
		options: options, now: now, rand: r, root: newDirectory(),
		locks: map[string]bool{}, capacity: options.Capacity,
	}
}

// Mount returns the file system for one run of a process. It works until Crash.
func (d *Disk) Mount() env.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := &mount{d: d}
	d.mounts = append(d.mounts, m)
	return m
}

// Ops counts the operations so far that change something or sync it, whether
// they succeeded or not. Reads are not counted: a crash in a read is a crash
// before the next change.
func (d *Disk) Ops() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// CrashAfter makes the n-th counted operation from now (1 is the next) and every
// operation after it fail with ErrCrashed. A write that is struck leaves some of
// its bytes behind, anything else nothing. The disk is then down until Crash. 0
// disarms. Counting n up visits every crash point of a run.
func (d *Disk) CrashAfter(n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashAt = 0
	if n > 0 {
		d.crashAt = d.ops + n
	}
}

// Down says whether a CrashAfter has struck.
func (d *Disk) Down() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.down
}

// Trace folds every operation that changed something, its place and its bytes,
// and every crash. Two runs that did the same in the same order have one trace.
func (d *Disk) Trace() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trace
}

// SetCapacity changes the size of the disk in bytes; 0 is unlimited. What is
// stored stays even if it is more.
func (d *Disk) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = bytes
}

// Used is what the files take, in bytes of whole 4 KiB blocks.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// Files lists the paths of all files, in order, as they read now.
func (d *Disk) Files() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.files(nil, "")
}

func (n *inode) files(list []string, above string) []string {
	for _, name := range n.dir.names() {
		if child := n.dir.entries[name]; child.dir != nil {
			list = child.files(list, above+name+"/")
		} else {
			list = append(list, above+name)
		}
	}
	return list
}

// reserve makes the file take at least end bytes of disk; it returns how many of
// them it may write.
func (d *Disk) reserve(n *inode, end int64) (writable int64, err error) {
	need := (end + blockBytes - 1) / blockBytes * blockBytes
	if need <= n.alloc {
		return end, nil
	}
	if d.capacity > 0 && n.links > 0 {
		if room := max(0, d.capacity-d.used) / blockBytes * blockBytes; need-n.alloc > room {
			need, err = n.alloc+room, syscall.ENOSPC
			end = min(end, need)
		}
	}
	if n.links > 0 {
		d.used += need - n.alloc
	}
	n.alloc = need
	return end, err
}

// fold adds an operation to the trace.
func (d *Disk) fold(op Op, name string, values ...uint64) {
	t := mix(d.trace ^ uint64(op) ^ hashString(name))
	for _, v := range values {
		t = mix(t + v)
	}
	d.trace = t
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func contentHash(p []byte) uint64 { return uint64(crc32.Checksum(p, castagnoli)) }

// pendingSync is a StartSync that has not been reported.
type pendingSync struct {
	m     *mount
	name  string
	n     *inode
	epoch uint32
	due   env.Instant
	done  func(error)
}

// PendingSyncs counts the syncs under way.
func (d *Disk) PendingSyncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}

// NextDue is when, in the world's time, the first sync under way completes;
// env.Never if there is none.
func (d *Disk) NextDue() env.Instant {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.firstDue(); i >= 0 {
		return d.pending[i].due
	}
	return env.Never
}

func (d *Disk) firstDue() int {
	first := -1
	for i, p := range d.pending {
		if first < 0 || p.due < d.pending[first].due {
			first = i
		}
	}
	return first
}

// CompleteSync ends sync i, in [0, PendingSyncs()) in the order of their
// beginning, and calls its done in this call. What was written before its
// StartSync is then durable, unless a fault makes it fail.
func (d *Disk) CompleteSync(i int) {
	d.mu.Lock()
	p := d.pending[i]
	d.pending = slices.Delete(d.pending, i, i+1)
	err := d.finishSync(p.m, p.name, p.n, p.epoch)
	d.mu.Unlock()
	if !errors.Is(err, ErrCrashed) { // a dead process hears nothing
		p.done(err)
	}
}

// CompleteDue ends all syncs that are due by now, in the order in which they
// are, and returns how many.
func (d *Disk) CompleteDue(now env.Instant) (completed int) {
	for {
		d.mu.Lock()
		i := d.firstDue()
		due := i >= 0 && d.pending[i].due <= now
		d.mu.Unlock()
		if !due {
			return completed
		}
		d.CompleteSync(i)
		completed++
	}
}

// finishSync makes the epochs up to e of a file durable.
func (d *Disk) finishSync(m *mount, name string, n *inode, e uint32) error {
	if err := d.begin(m, OpSync, name); err != nil {
		if !errors.Is(err, ErrCrashed) {
			n.failSync(e, d.options.FailedSyncCleans, &d.pool, d.rand)
			d.fold(OpSync, name, uint64(e), d.rand.state)
		}
		return pathError("sync", name, err)
	}
	n.promote(e, &d.pool)
	d.fold(OpSync, name, uint64(e))
	return nil
}

// finishDirSync makes a directory's operations durable.
func (d *Disk) finishDirSync(m *mount, name string, n *inode) error {
	all := len(n.dir.journal)
	err := d.begin(m, OpSync, name)
	switch {
	case errors.Is(err, ErrCrashed):
		return pathError("sync", name, err)
	case err != nil:
		all = d.rand.Intn(all + 1)
	}
	d.syncDir(n, all)
	d.forgetSynced()
	d.fold(OpSync, name, uint64(all))
	if err != nil {
		return pathError("sync", name, err)
	}
	return nil
}

// mustFile finds a file for the functions that damage it.
func (d *Disk) mustFile(op, name string) (*inode, error) {
	n := d.lookup(clean(name))
	if n == nil || n.dir != nil {
		return nil, pathError(op, name, fs.ErrNotExist)
	}
	return n, nil
}
