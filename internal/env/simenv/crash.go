package simenv

import "slices"

// Crash is a way to die.
type Crash uint8

const (
	// ProcessCrash is kill -9: what was written stays readable for the next run,
	// and what was not synced is still not synced (rule 4).
	ProcessCrash Crash = iota
	// PowerCrash is a power loss: every unsynced block, size and directory
	// operation is kept, lost or torn by the seed. What then remains is durable.
	PowerCrash
)

// String names the crash for stories.
func (c Crash) String() string {
	if c == PowerCrash {
		return "power crash"
	}
	return "process crash"
}

// Crash ends every run that has the disk mounted: its files and locks fail with
// ErrCrashed from now on, syncs under way are never reported. Mount begins the
// next run.
func (d *Disk) Crash(c Crash) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crash(c)
}

func (d *Disk) crash(c Crash) {
	for _, m := range d.mounts {
		m.dead = true
	}
	d.mounts, d.pending, d.down, d.crashAt = nil, nil, false, 0
	clear(d.locks)
	d.fold(opCrash, "", uint64(c), d.rand.state)
	if c == PowerCrash {
		d.losePower()
	}
}

// CrashClone returns a copy of the disk after a crash and leaves the disk and
// its runs alone. The copy draws from a stream of its own that the name selects,
// so that many clones may be taken of one moment. Faults are not copied.
func (d *Disk) CrashClone(c Crash, name string) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.crashClone(c, name)
}

// CrashCloneAt takes a CrashClone just before the n-th counted operation from
// now (1 is the next), whoever makes it. clone returns it, nil until then. It is
// how to crash a store whose goroutines cannot bear a dying disk.
func (d *Disk) CrashCloneAt(n uint64, c Crash, name string) (clone func() *Disk) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &plannedClone{at: d.ops + n, crash: c, name: name}
	d.planned = append(d.planned, p)
	return func() *Disk {
		d.mu.Lock()
		defer d.mu.Unlock()
		return p.clone
	}
}

type plannedClone struct {
	at    uint64
	crash Crash
	name  string
	clone *Disk
}

// takePlanned takes the clones that are planned for the operation now beginning.
func (d *Disk) takePlanned() {
	d.planned = slices.DeleteFunc(d.planned, func(p *plannedClone) bool {
		if d.ops < p.at {
			return false
		}
		p.clone = d.crashClone(p.crash, p.name)
		return true
	})
}

func (d *Disk) crashClone(c Crash, name string) *Disk {
	clone := &Disk{
		options: d.options, now: d.now, rand: NewRand(d.rand.state, name),
		capacity: d.capacity, used: d.used, lastOp: d.lastOp, trace: d.trace,
		locks: map[string]bool{},
	}
	copies := map[*inode]*inode{}
	clone.root = d.root.cloneTree(copies)
	for _, dir := range d.unsynced {
		clone.unsynced = append(clone.unsynced, dir.cloneTree(copies))
	}
	clone.crash(c)
	return clone
}

// cloneTree copies everything that can be reached from n, now or by undoing
// unsynced operations. Each inode is copied once.
func (n *inode) cloneTree(copies map[*inode]*inode) *inode {
	if n == nil {
		return nil
	}
	if c := copies[n]; c != nil {
		return c
	}
	c := n.clone()
	copies[n] = c
	if n.dir == nil {
		return c
	}
	c.dir = &directory{entries: make(map[string]*inode, len(n.dir.entries))}
	for name, child := range n.dir.entries {
		c.dir.entries[name] = child.cloneTree(copies)
	}
	c.dir.journal = append([]dirOp(nil), n.dir.journal...)
	for i := range c.dir.journal {
		op := &c.dir.journal[i]
		for j := range op.n {
			op.changes[j].old = op.changes[j].old.cloneTree(copies)
			op.changes[j].new = op.changes[j].new.cloneTree(copies)
		}
	}
	return c
}

// survival is the temper of one power loss. Without it, every crash would lose
// about half and the extremes would never be seen.
type survival struct {
	losePermille int64 // how likely an unsynced thing is lost
	tearOneIn    int64 // how rarely a block is a mixture; 0: never
}

func drawSurvival(r *Rand, tear bool) survival {
	tempers := [...]int64{0, 50, 500, 500, 950, 1000}
	s := survival{losePermille: tempers[r.Intn(len(tempers))]}
	if tear && r.OneIn(2) {
		s.tearOneIn = 1 + r.Int64N(8)
	}
	return s
}

func (s survival) loses(r *Rand) bool { return r.Int64N(1000) < s.losePermille }

func (d *Disk) losePower() {
	s := drawSurvival(d.rand, !d.options.WholeBlocks)
	if d.options.ReorderDirOps {
		d.keepAnyDirOps(s)
	} else {
		d.keepFirstDirOps(s)
	}
	d.unsynced, d.used = nil, 0
	forgetLinks(d.root)
	d.settle(d.root, s)
}

// keepFirstDirOps keeps a prefix of each directory's journal.
func (d *Disk) keepFirstDirOps(s survival) {
	for _, dir := range d.unsynced {
		dir.dir.cut = 0
		for dir.dir.cut < len(dir.dir.journal) && !s.loses(d.rand) {
			dir.dir.cut++
		}
	}
	// An operation on two directories is in both or in none: keep it in both, and
	// so all that came before it.
	for again := true; again; {
		again = false
		for _, dir := range d.unsynced {
			for _, op := range dir.dir.journal[:dir.dir.cut] {
				again = op.shared && d.keepShared(op.id) || again
			}
		}
	}
	for _, dir := range d.unsynced {
		for i := len(dir.dir.journal) - 1; i >= dir.dir.cut; i-- {
			dir.dir.undo(&dir.dir.journal[i])
		}
		dir.dir.journal = nil
	}
}

// keepShared extends the prefixes that are kept to the operation; it says
// whether that changed any.
func (d *Disk) keepShared(id uint64) (changed bool) {
	for _, dir := range d.unsynced {
		if after := dir.dir.after(id); after > dir.dir.cut {
			dir.dir.cut = after
			changed = true
		}
	}
	return changed
}

// keepAnyDirOps keeps any of the operations, in their order.
func (d *Disk) keepAnyDirOps(s survival) {
	lost := map[uint64]bool{}
	for _, dir := range d.unsynced {
		for i := len(dir.dir.journal) - 1; i >= 0; i-- {
			dir.dir.undo(&dir.dir.journal[i])
		}
		for i := range dir.dir.journal {
			op := &dir.dir.journal[i]
			gone, drawn := lost[op.id]
			if !drawn {
				gone = s.loses(d.rand)
				lost[op.id] = gone
			}
			if !gone {
				dir.dir.redo(op)
			}
		}
		dir.dir.journal = nil
	}
}

// forgetLinks prepares the count of names that settle makes.
func forgetLinks(n *inode) {
	n.links, n.settled = 0, false
	if n.dir != nil {
		for _, child := range n.dir.entries {
			forgetLinks(child)
		}
	}
}

// settle decides the content of everything below a directory.
func (d *Disk) settle(dir *inode, s survival) {
	for _, name := range dir.dir.names() {
		n := dir.dir.entries[name]
		n.links++
		switch {
		case n.dir != nil:
			d.settle(n, s)
		case !n.settled:
			n.settled = true
			n.settle(s, d.rand)
			d.used += n.alloc
		}
	}
}

// settle decides which of a file's possible states the disk has.
func (n *inode) settle(s survival, r *Rand) {
	for _, i := range n.dirty {
		b := &n.blocks[i]
		*b = block{data: b.outcome(s, r)}
	}
	if len(n.sizes) > 0 && s.loses(r) {
		n.size = n.durable
		if between := r.Intn(len(n.sizes)); between > 0 && s.losePermille < 1000 {
			n.size = n.sizes[between-1].size
		}
	}
	n.durable, n.dirty, n.sizes = n.size, nil, nil
	whole := int((n.size + blockBytes - 1) / blockBytes)
	if whole < len(n.blocks) {
		clear(n.blocks[whole:])
		n.blocks = n.blocks[:whole]
	}
	if tail := int(n.size % blockBytes); tail > 0 && whole <= len(n.blocks) {
		last := &n.blocks[whole-1]
		last.data = last.data[:min(len(last.data), tail)]
	}
	n.alloc = int64(whole) * blockBytes
}

// outcome is one of the states that a dirty block may have on disk: an old one,
// the last, or sectors of one over another.
func (b *block) outcome(s survival, r *Rand) []byte {
	result := b.data
	if s.loses(r) {
		result = b.base
		if between := r.Intn(len(b.mid) + 1); between > 0 && s.losePermille < 1000 {
			result = b.mid[between-1].data
		}
	}
	if !r.OneIn(s.tearOneIn) {
		return result
	}
	from, to := b.base, b.data
	if between := r.Intn(len(b.mid) + 1); between > 0 {
		from = b.mid[between-1].data
	}
	torn := make([]byte, blockBytes)
	copy(torn, from)
	for at := 0; at < blockBytes; at += sectorBytes {
		if r.OneIn(2) {
			clear(torn[at : at+sectorBytes])
			if at < len(to) {
				copy(torn[at:at+sectorBytes], to[at:])
			}
		}
	}
	return torn
}
