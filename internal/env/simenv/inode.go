package simenv

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/internal/env"
)

const (
	// blockBytes is the unit in which the page cache writes files back.
	blockBytes = 4096
	// sectorBytes is the unit that a disk writes whole or not at all.
	sectorBytes = 512
	// maxBetween limits how many states between the durable and the current one
	// are remembered of one block (beyond those that a pending sync needs) and
	// of a file's size.
	maxBetween = 4
)

// inode is a file or a directory, whatever its names.
//
// What a file promises after a power loss follows from its epochs. StartSync
// ends the current epoch e; when it completes, everything written in epochs up
// to e is durable. A block written in several unsynced epochs keeps its content
// at the end of each, and now and then one from the middle of an epoch, since a
// kernel writes pages back when it likes.
type inode struct {
	dir      *directory // nil: a file
	links    int        // names in the current tree
	modified env.Instant

	size    int64
	durable int64    // the size that a power loss keeps at least
	sizes   []sizeAt // what the size has been since, oldest first; the last is size
	alloc   int64    // bytes of disk that it takes, whole blocks
	epoch   uint32
	blocks  []block
	dirty   []int // blocks with unsynced content, in order of their first write
	settled bool  // during a power loss: done already under another name
}

type block struct {
	data  []byte    // as it reads now; what is missing to blockBytes is zero
	base  []byte    // if dirty: what is certainly on disk
	mid   []version // if dirty: states between base and data, oldest first
	epoch uint32    // if dirty: of the last write to data
	dirty bool
	stuck bool // a failed sync made the kernel forget that it is dirty
}

type version struct {
	epoch uint32
	data  []byte
}

type sizeAt struct {
	epoch uint32
	size  int64
}

// buffers keeps discarded block buffers for use again.
type buffers struct{ free [][]byte }

func (p *buffers) put(b []byte) {
	if cap(b) >= blockBytes && len(p.free) < 256 {
		p.free = append(p.free, b[:0])
	}
}

// get returns an empty buffer that holds at least n bytes.
func (p *buffers) get(n int) []byte {
	if last := len(p.free) - 1; last >= 0 {
		b := p.free[last]
		p.free = p.free[:last]
		return b
	}
	room := 64
	for room < n {
		room *= 2
	}
	return make([]byte, 0, room)
}

func (p *buffers) clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append(p.get(len(b)), b...)
}

// readAt copies what is there from off on; n is short only at the end.
func (n *inode) readAt(p []byte, off int64) int {
	if off >= n.size {
		return 0
	}
	p = p[:min(int64(len(p)), n.size-off)]
	for done := 0; done < len(p); {
		i, at := int(off/blockBytes), int(off%blockBytes)
		part := p[done:min(len(p), done+blockBytes-at)]
		copied := 0
		if i < len(n.blocks) && at < len(n.blocks[i].data) {
			copied = copy(part, n.blocks[i].data[at:])
		}
		clear(part[copied:])
		done += len(part)
		off += int64(len(part))
	}
	return len(p)
}

// writeAt changes the content from off on; the file grows if need be.
func (n *inode) writeAt(p []byte, off int64, pool *buffers, r *Rand) {
	end := off + int64(len(p))
	if need := int((end + blockBytes - 1) / blockBytes); need > len(n.blocks) {
		n.blocks = append(n.blocks, make([]block, need-len(n.blocks))...)
	}
	for len(p) > 0 {
		at := int(off % blockBytes)
		part := p[:min(len(p), blockBytes-at)]
		n.writeBlock(int(off/blockBytes), at, part, pool, r)
		p = p[len(part):]
		off += int64(len(part))
	}
	if end > n.size {
		n.size = end
		last := len(n.sizes) - 1
		if last >= maxBetween && n.sizes[last].epoch == n.epoch {
			n.sizes[last].size = end
		} else {
			n.sizes = append(n.sizes, sizeAt{n.epoch, end})
		}
	}
}

func (n *inode) writeBlock(i, at int, p []byte, pool *buffers, r *Rand) {
	b := &n.blocks[i]
	keep := true // whether the content so far is one that a power loss may show
	switch {
	case !b.dirty:
		b.base, b.dirty = b.data, true
		n.dirty = append(n.dirty, i)
	case b.epoch != n.epoch, len(b.mid) < maxBetween && r.OneIn(16):
		b.mid = append(b.mid, version{b.epoch, b.data})
	default:
		keep = false
	}
	b.epoch, b.stuck = n.epoch, false
	whole := len(p) == blockBytes
	if whole && isZero(p) { // zero-filled files cost no memory
		if !keep {
			pool.put(b.data)
		}
		b.data = nil
		return
	}
	switch {
	case keep && whole:
		b.data = nil
	case keep:
		b.data = pool.clone(b.data)
	}
	if end := at + len(p); end > len(b.data) {
		if end > cap(b.data) {
			grown := append(pool.get(end), b.data...)
			pool.put(b.data)
			b.data = grown
		}
		old := len(b.data)
		b.data = b.data[:end]
		if old < at {
			clear(b.data[old:at])
		}
	}
	copy(b.data[at:], p)
}

var zeroBlock [blockBytes]byte

func isZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p, zeroBlock[:len(p)]) }

// promote makes everything written in the epochs up to e durable.
func (n *inode) promote(e uint32, pool *buffers) {
	n.promoteSize(e)
	n.dirty = slices.DeleteFunc(n.dirty, func(i int) bool {
		b := &n.blocks[i]
		if !b.stuck {
			b.promote(e, pool)
		}
		return !b.dirty
	})
}

// promote makes the block's newest content of the epochs up to e durable.
func (b *block) promote(e uint32, pool *buffers) {
	if b.epoch <= e {
		pool.put(b.base)
		for _, v := range b.mid {
			pool.put(v.data)
		}
		b.base, b.mid, b.dirty = nil, nil, false
		return
	}
	done := 0
	for done < len(b.mid) && b.mid[done].epoch <= e {
		done++
	}
	if done > 0 {
		pool.put(b.base)
		for _, v := range b.mid[:done-1] {
			pool.put(v.data)
		}
		b.base, b.mid = b.mid[done-1].data, b.mid[done:]
	}
}

func (n *inode) promoteSize(e uint32) {
	done := 0
	for done < len(n.sizes) && n.sizes[done].epoch <= e {
		n.durable = n.sizes[done].size
		done++
	}
	n.sizes = n.sizes[done:]
	if len(n.sizes) == 0 {
		n.sizes = nil
	}
}

// failSync is a sync of the epochs up to e that reports an error: each block and
// the size may have reached the disk or not. With forget the kernel takes the
// others for clean, and later syncs pass them over.
func (n *inode) failSync(e uint32, forget bool, pool *buffers, r *Rand) {
	if r.OneIn(2) {
		n.promoteSize(e)
	}
	n.dirty = slices.DeleteFunc(n.dirty, func(i int) bool {
		b := &n.blocks[i]
		if r.OneIn(2) {
			b.promote(e, pool)
		} else if forget && b.epoch <= e {
			b.stuck = true
		}
		return !b.dirty
	})
}

// clone copies a file with everything that is still in doubt.
func (n *inode) clone() *inode {
	c := *n
	c.sizes, c.dirty = slices.Clone(n.sizes), slices.Clone(n.dirty)
	c.blocks = slices.Clone(n.blocks)
	for i := range c.blocks {
		b := &c.blocks[i]
		b.data, b.base, b.mid = slices.Clone(b.data), slices.Clone(b.base), slices.Clone(b.mid)
		for j := range b.mid {
			b.mid[j].data = slices.Clone(b.mid[j].data)
		}
	}
	return &c
}
