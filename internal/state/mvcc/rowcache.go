package mvcc

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/id"
)

// rowCache keeps the rows of keys that were read one by one, so that reading them
// again needs no iterator: a seek through the levels of the engine takes twenty
// times as long as a look here (docs/decisions/0016).
//
// An entry is a row and the stamp of when it was the newest of its key. It may be used
// as long as the key was not written since, and that is what the applier leaves in
// changed, by the hash of the key: the stamp of the last change, stored before the view
// of that revision is published. So:
//
//   - A reader at R sees in changed every change up to R. An entry whose stamp is not
//     before the last change seen is the newest version at R, if its revision is not
//     beyond R.
//   - What a reader finds in changed beyond R, or of another key of the same hash,
//     only makes it ask the engine.
//
// A row that is here is brought up to date when its key is written, so that those who
// read what they have just written find it; what nobody has read is not put in. The
// applier never waits for a reader: while one copies, the entry stays as it was, and
// is older than the last change.
//
// When all rows of the group are replaced, there is a new cache with the next view.
type rowCache struct {
	seed    maphash.Seed
	changed []atomic.Uint64 // a power of two of them
	shards  [rowShards]rowShard
}

const (
	rowShards = 16
	// changedMarks remember changes: 512 KB.
	changedMarks = 1 << 16
	// rowWays is how many places an entry may have in the index.
	rowWays = 4
	// rowShare is what an entry is thought to take, for the size of the index: less
	// than most do, so that few sets are full before the ring is.
	rowShare = 128
	// longestKept is the longest row that is kept, with its key: what is longer costs
	// more to copy than to find.
	longestKept = 8 << 10
	rowHead     = 24
)

// A stamp orders, within a revision, its first change of a key (firstChange), and all
// others of that key and whoever reads when the revision is whole (wholeRevision): one
// command may change a key twice, and what the first change left is then not the row.
func firstChange(at id.Revision) uint64   { return 2 * uint64(at) }
func wholeRevision(at id.Revision) uint64 { return 2*uint64(at) + 1 }

// rowShard is a ring of entries, the latest written over the oldest, and an index
// from hashes to positions. Positions count bytes since the beginning and never
// come again; an entry stands at its position modulo the ring's length.
type rowShard struct {
	mu   sync.Mutex
	ring []byte
	// slots are in sets of rowWays.
	slots []rowSlot
	end   uint64
}

// rowSlot is the position of an entry from 1, and above it slotTagBits of the key's
// hash, so that other keys' entries need not be looked at; 0 is none.
type rowSlot uint64

const slotTagBits = 16

// slotTag is what slots of keys of a hash have in front: bits that choose neither the
// shard nor the set.
func slotTag(hash uint64) rowSlot { return rowSlot(hash<<4) &^ (1<<(64-slotTagBits) - 1) }

func (s rowSlot) tagged(hash uint64) bool { return (s^slotTag(hash))>>(64-slotTagBits) == 0 }

func (s rowSlot) position() uint64 { return uint64(s & (1<<(64-slotTagBits) - 1)) }

// newRowCache makes a cache of about so many bytes; nil for too few.
func newRowCache(budget int) *rowCache {
	ring := (budget - 8*changedMarks) / rowShards * rowShare / (rowShare + 8)
	if ring < 2*longestKept {
		return nil
	}
	c := &rowCache{seed: maphash.MakeSeed(), changed: make([]atomic.Uint64, changedMarks)}
	sets := 1 << (bits.Len(uint(ring/rowShare/rowWays)) - 1)
	for i := range c.shards {
		c.shards[i].ring = make([]byte, ring)
		c.shards[i].slots = make([]rowSlot, sets*rowWays)
	}
	return c
}

// wrote is told of every change, in the applier's turn: row is what the key's newest
// row is now, nil for a tombstone.
func (c *rowCache) wrote(key, row []byte, at id.Revision) {
	if c == nil {
		return
	}
	hash := maphash.Bytes(c.seed, key)
	mark := c.changedAt(hash)
	stamp := firstChange(at)
	if mark.Load() >= stamp {
		mark.Store(wholeRevision(at))
		return
	}
	mark.Store(stamp)
	if row == nil || rowHead+len(key)+len(row) > longestKept {
		return
	}
	s, slots := c.set(hash)
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if slot := s.find(slots, hash, key); slot != nil {
		s.fill(slot, hash, key, row, at, stamp)
	}
}

func (c *rowCache) changedAt(hash uint64) *atomic.Uint64 { return &c.changed[hash%changedMarks] }

// set is the shard of a hash and its places in the index.
func (c *rowCache) set(hash uint64) (*rowShard, []rowSlot) {
	s := &c.shards[hash>>60]
	at := (hash >> 16) % uint64(len(s.slots)/rowWays) * rowWays
	return s, s.slots[at : at+rowWays]
}

// appendNewest appends the newest version of a key at a revision as a pair, if it is
// here.
func (c *rowCache) appendNewest(dst, key []byte, at id.Revision, keysOnly bool) ([]byte, bool) {
	hash := maphash.Bytes(c.seed, key)
	changed := c.changedAt(hash).Load()
	s, slots := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(slots, hash, key)
	if slot == nil {
		return dst, false
	}
	e := s.entry(*slot)
	if e.stamp() < changed || e.mod() > uint64(at) {
		return dst, false
	}
	return appendItem(dst, key, e.row(), keysOnly), true
}

// keep puts in a row that was read as the newest of its key by a view of a revision.
func (c *rowCache) keep(key, row []byte, mod, readAt id.Revision) {
	if rowHead+len(key)+len(row) > longestKept {
		return
	}
	hash, stamp := maphash.Bytes(c.seed, key), wholeRevision(readAt)
	if c.changedAt(hash).Load() > stamp {
		return
	}
	s, slots := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	into := s.find(slots, hash, key)
	if into == nil {
		into = s.oldest(slots)
	} else if s.entry(*into).stamp() >= stamp {
		return
	}
	s.fill(into, hash, key, row, mod, stamp)
}

// find is the slot of a key's entry, nil if there is none.
func (s *rowShard) find(slots []rowSlot, hash uint64, key []byte) *rowSlot {
	for i, slot := range slots {
		if slot.tagged(hash) {
			if e := s.entry(slot); e != nil && bytes.Equal(e.key(), key) {
				return &slots[i]
			}
		}
	}
	return nil
}

// oldest is the slot to give up: one that says nothing, or that of the oldest entry.
func (s *rowShard) oldest(slots []rowSlot) *rowSlot {
	at := &slots[0]
	for i := range slots {
		if s.entry(slots[i]) == nil {
			return &slots[i]
		}
		if slots[i].position() < at.position() {
			at = &slots[i]
		}
	}
	return at
}

// fill makes a slot that of an entry; where the one before it has the same key and
// size, in its place.
func (s *rowShard) fill(slot *rowSlot, hash uint64, key, row []byte, mod id.Revision, stamp uint64) {
	e := s.entry(*slot)
	if e == nil || !bytes.Equal(e.key(), key) || len(e.row()) != len(row) {
		*slot = rowSlot(s.add(rowHead+len(key)+len(row))+1) | slotTag(hash)
		e = s.entry(*slot)
		binary.LittleEndian.PutUint32(e, uint32(len(key)))
		binary.LittleEndian.PutUint32(e[4:], uint32(len(row)))
		copy(e[rowHead:], key)
	}
	binary.LittleEndian.PutUint64(e[8:], stamp)
	binary.LittleEndian.PutUint64(e[16:], uint64(mod))
	copy(e[rowHead+len(key):], row)
}

// add makes room for an entry, which does not go around the ring's end.
func (s *rowShard) add(size int) (at uint64) {
	length := uint64(len(s.ring))
	if left := length - s.end%length; left < uint64(size) {
		s.end += left
	}
	at = s.end
	s.end += uint64(size)
	return at
}

// entry is what a slot says; nil if it says nothing or what was there is written
// over.
func (s *rowShard) entry(slot rowSlot) rowEntry {
	at := slot.position()
	if at == 0 || at-1+uint64(len(s.ring)) < s.end {
		return nil
	}
	return rowEntry(s.ring[(at-1)%uint64(len(s.ring)):])
}

// rowEntry begins with an entry: lengths of key and row (4 each), its stamp, its
// revision (8 each), key, row.
type rowEntry []byte

func (e rowEntry) stamp() uint64 { return binary.LittleEndian.Uint64(e[8:]) }
func (e rowEntry) mod() uint64   { return binary.LittleEndian.Uint64(e[16:]) }
func (e rowEntry) key() []byte   { return e[rowHead : rowHead+binary.LittleEndian.Uint32(e)] }
func (e rowEntry) row() []byte {
	return e[rowHead+binary.LittleEndian.Uint32(e):][:binary.LittleEndian.Uint32(e[4:])]
}
