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
// An entry is a row and the revision of the view that read it as the newest of its
// key. It may be used as long as the key was not written since, and that is what
// the applier leaves in changed, by the hash of the key: the revision of the last
// change, stored before the view of that revision is published. So:
//
//   - A reader at R sees in changed every change up to R. An entry that was read at
//     or after the last change seen is the newest version at R, if its revision is
//     not beyond R.
//   - What a reader finds in changed beyond R, or of another key of the same hash,
//     only makes it ask the engine.
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

// rowShard is a ring of entries, the latest written over the oldest, and an index
// from hashes to positions. Positions count bytes since the beginning and never
// come again; an entry stands at its position modulo the ring's length.
type rowShard struct {
	mu   sync.Mutex
	ring []byte
	// slots are the positions of entries from 1, in sets of rowWays; 0 is none.
	slots []uint64
	end   uint64
}

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
		c.shards[i].slots = make([]uint64, sets*rowWays)
	}
	return c
}

// wrote is told of every change, in the applier's turn.
func (c *rowCache) wrote(key []byte, at id.Revision) {
	if c != nil {
		c.changedAt(maphash.Bytes(c.seed, key)).Store(uint64(at))
	}
}

func (c *rowCache) changedAt(hash uint64) *atomic.Uint64 { return &c.changed[hash%changedMarks] }

// set is the shard of a hash and its places in the index.
func (c *rowCache) set(hash uint64) (*rowShard, []uint64) {
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
	for _, slot := range slots {
		if e := s.entry(slot); e != nil && bytes.Equal(e.key(), key) {
			if e.readAt() < changed || e.mod() > uint64(at) {
				return dst, false
			}
			return appendItem(dst, key, e.row(), keysOnly), true
		}
	}
	return dst, false
}

// keep puts in a row that was read as the newest of its key by a view of a revision.
func (c *rowCache) keep(key, row []byte, mod, readAt id.Revision) {
	size := rowHead + len(key) + len(row)
	if size > longestKept {
		return
	}
	hash := maphash.Bytes(c.seed, key)
	if c.changedAt(hash).Load() > uint64(readAt) {
		return
	}
	s, slots := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	into := &slots[0]
	for i := range slots {
		e := s.entry(slots[i])
		if e == nil {
			slots[i] = 0
		} else if bytes.Equal(e.key(), key) {
			if e.readAt() >= uint64(readAt) {
				return
			}
			into = &slots[i]
			break
		}
		if slots[i] < *into {
			into = &slots[i]
		}
	}
	*into = s.add(size) + 1
	e := s.entry(*into)
	binary.LittleEndian.PutUint32(e, uint32(len(key)))
	binary.LittleEndian.PutUint32(e[4:], uint32(len(row)))
	binary.LittleEndian.PutUint64(e[8:], uint64(readAt))
	binary.LittleEndian.PutUint64(e[16:], uint64(mod))
	copy(e[rowHead:], key)
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
func (s *rowShard) entry(slot uint64) rowEntry {
	if slot == 0 || slot-1+uint64(len(s.ring)) < s.end {
		return nil
	}
	return rowEntry(s.ring[(slot-1)%uint64(len(s.ring)):])
}

// rowEntry begins with an entry: lengths of key and row (4 each), the revision it
// was read at, its own (8 each), key, row.
type rowEntry []byte

func (e rowEntry) readAt() uint64 { return binary.LittleEndian.Uint64(e[8:]) }
func (e rowEntry) mod() uint64    { return binary.LittleEndian.Uint64(e[16:]) }
func (e rowEntry) key() []byte    { return e[rowHead : rowHead+binary.LittleEndian.Uint32(e)] }
func (e rowEntry) row() []byte {
	return e[rowHead+binary.LittleEndian.Uint32(e):][:binary.LittleEndian.Uint32(e[4:])]
}
