package simenv

import (
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Op is a set of kinds of operation.
type Op uint16

// The kinds. OpSync covers files and directories, begun by Sync, SyncData,
// SyncTo or the completion of a StartSync; OpStartSync is its beginning.
const (
	OpRead Op = 1 << iota
	OpWrite
	OpSync
	OpStartSync
	OpCreate
	OpOpen
	OpRemove
	OpRename
	OpLink
	OpMkdir
	OpLock
	OpList
	opCrash

	// OpChange are the kinds that Ops counts and CrashAfter strikes.
	OpChange = OpWrite | OpSync | OpStartSync | OpCreate | OpRemove | OpRename | OpLink | OpMkdir | OpLock
	// OpAny is every kind.
	OpAny = opCrash - 1
)

// Fault is something that goes wrong with operations of a kind.
type Fault struct {
	Ops Op
	// Match picks files by their clean path (no leading slash; the root is empty);
	// nil is all. It must not use the disk.
	Match func(path string) bool
	// Nth makes the n-th matching operation from now fail, counted from 1, and
	// those after it. With Nth 0, OneIn makes one in so many fail; if that is 0
	// too, every one does.
	Nth, OneIn int64
	// Times is how often the fault strikes before it is over; 0 is without end,
	// but for Nth once.
	Times int64

	// Err is what the operation fails with, such as syscall.EIO. A write that
	// fails may leave a part of its bytes, a sync some of its blocks.
	Err error
	// FlipBit makes a read return one wrong bit; the disk itself stays right.
	FlipBit bool
	// Stall is how long the operation takes in the world's time: the machine is
	// busy until then (Machine.BusyUntil). It goes together with Err or alone.
	Stall time.Duration
}

// EIO fails operations with an I/O error, always, until removed.
func EIO(ops Op) Fault { return Fault{Ops: ops, Err: syscall.EIO} }

// armed is a fault that is still active.
type armed struct {
	Fault
	seen, struck int64
}

// Inject arms a fault, until it has struck as often as it says or remove is
// called. Faults outlive crashes of the process.
func (d *Disk) Inject(f Fault) (remove func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.Nth > 0 && f.Times == 0 {
		f.Times = 1
	}
	a := &armed{Fault: f}
	d.faults = append(d.faults, a)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.faults = slices.DeleteFunc(d.faults, func(b *armed) bool { return a == b })
	}
}

// ClearFaults removes all faults.
func (d *Disk) ClearFaults() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
}

// strikes says whether the fault hits this operation.
func (a *armed) strikes(op Op, name string, r *Rand) bool {
	if a.Ops&op == 0 || a.Times > 0 && a.struck >= a.Times || a.Match != nil && !a.Match(name) {
		return false
	}
	a.seen++
	if a.Nth > 0 && a.seen < a.Nth || a.Nth == 0 && a.OneIn > 0 && !r.OneIn(a.OneIn) {
		return false
	}
	a.struck++
	return true
}

// strike applies all faults to an operation.
func (d *Disk) strike(op Op, name string) (err error, flip bool) {
	for _, a := range d.faults {
		if !a.strikes(op, name, d.rand) {
			continue
		}
		if a.Stall > 0 && d.stall != nil {
			d.stall(a.Stall)
		}
		if err == nil {
			err = a.Err
		}
		flip = flip || a.FlipBit
	}
	return err, flip
}

// begin is the start of every operation: it counts, crashes and fails.
func (d *Disk) begin(m *mount, op Op, name string) error {
	if m.dead || d.down {
		return ErrCrashed
	}
	if op&OpChange != 0 {
		d.ops++
		if len(d.planned) > 0 {
			d.takePlanned()
		}
		if d.crashAt > 0 && d.ops >= d.crashAt {
			d.down = true
			return ErrCrashed
		}
	}
	if len(d.faults) == 0 {
		return nil
	}
	err, _ := d.strike(op, name)
	return err
}

// Flip inverts one bit, 0 to 7, of a file's byte: on the disk, in the cache and
// in every state that a power loss may bring back. Errors: fs.ErrNotExist; the
// offset must lie in the file.
func (d *Disk) Flip(name string, offset int64, bit int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.mustFile("flip", name)
	if err != nil {
		return err
	}
	require(offset >= 0 && offset < n.size, "flip at %d of %d bytes of %s", offset, n.size, name)
	n.flip(offset, bit)
	d.fold(OpWrite, name, uint64(offset), uint64(bit))
	return nil
}

// FlipRandom inverts a random bit of bytes [from, to) and says which.
func (d *Disk) FlipRandom(name string, from, to int64) (offset int64, bit int, err error) {
	d.mu.Lock()
	offset, bit = from+d.rand.Int64N(to-from), d.rand.Intn(8)
	d.mu.Unlock()
	return offset, bit, d.Flip(name, offset, bit)
}

func (n *inode) flip(offset int64, bit int) {
	i, at := int(offset/blockBytes), int(offset%blockBytes)
	if i >= len(n.blocks) {
		n.blocks = append(n.blocks, make([]block, i+1-len(n.blocks))...)
	}
	b := &n.blocks[i]
	invert := func(data []byte) []byte {
		for len(data) <= at {
			data = append(data, 0)
		}
		data[at] ^= 1 << bit
		return data
	}
	b.data = invert(b.data)
	if b.dirty {
		b.base = invert(b.base)
		for j := range b.mid {
			b.mid[j].data = invert(b.mid[j].data)
		}
	}
}

// String names the kinds for stories.
func (o Op) String() string {
	names := [...]string{"read", "write", "sync", "start-sync", "create", "open", "remove",
		"rename", "link", "mkdir", "lock", "list", "crash"}
	text := ""
	for i, name := range names {
		if o&(1<<i) != 0 {
			text += "+" + name
		}
	}
	if text == "" {
		return "op " + strconv.Itoa(int(o))
	}
	return text[1:]
}
