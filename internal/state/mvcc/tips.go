package mvcc

import (
	"bytes"
	"hash/maphash"
	"math/bits"

	"github.com/kvorum/kvorum/internal/id"
)

// tip is what a put has to know of the version before it. It has no value, only
// the size of one.
type tip struct {
	create, mod id.Revision
	number      int64
	lease       id.Lease
	sub         uint32
	value       uint32 // bytes
	// The key lies in its generation's keys.
	keyAt  uint32
	keyLen uint16
	dead   bool
}

func tipOf(v *version) tip {
	return tip{create: v.create, mod: v.mod, number: v.number, lease: v.lease, sub: v.sub, value: uint32(len(v.value)), dead: v.dead}
}

// version is the version without its value.
func (t *tip) version() version {
	return version{create: t.create, mod: t.mod, sub: t.sub, number: t.number, lease: t.lease, dead: t.dead}
}

// superseding is the change that replaces the version.
func (t *tip) superseding() change {
	return change{prevMain: t.mod, prevSub: t.sub, prevValue: int(t.value)}
}

// tips is the applier's table of the newest versions of keys (rule 24), so that a
// put of a key that was put lately needs no seek: a seek takes a quarter of what a
// put costs a member. It knows every version that the Store has written since the
// key came into it, also those of the batch in hand; what it does not know the
// engine is asked. The seed of its hash decides where an entry lies, never whether
// it is found: replicas with other seeds, sizes or none come to the same rows.
//
// There are two generations. Entries go into the young one; when that is full the
// old one is dropped and the young one takes its place. Who is asked for moves up.
// Memory is fixed and has no pointers for the garbage collector to follow.
type tips struct {
	seed       maphash.Seed
	most       int // entries of a generation; 0: there is no table
	young, old *generation
	// complete: the store was empty when the table was, and nothing was forgotten
	// since. A key that is not here has no version at all.
	complete bool
}

// generation is a hash table with linear probing, from which nothing is deleted.
type generation struct {
	// slots are a power of two of them: an entry's number from 1, or 0, and above it
	// bits of the hash of its key. Where those differ, entry and key are not looked at,
	// which would rarely be in the processor's cache.
	slots   []uint32
	number  uint32 // mask of the number
	entries []tip
	keys    []byte
}

const (
	// tipBytes is what an entry takes, with its slots and a key of keyShare bytes.
	tipBytes = 48 + 4*slotsPerTip + keyShare
	// keyShare is how many bytes of keys a generation has for each entry.
	keyShare = 32
	// slotsPerTip keeps chains short.
	slotsPerTip = 3
	// longestTip is the longest key that is remembered.
	longestTip = 1 << 10
)

func newTips(budget int) tips {
	return tips{seed: maphash.MakeSeed(), most: budget / 2 / tipBytes}
}

func newGeneration(most int) *generation {
	slots := 4
	for slots < most*2 {
		slots *= 2
	}
	return &generation{
		slots: make([]uint32, slots), number: 1<<bits.Len(uint(most)) - 1,
		entries: make([]tip, 0, most), keys: make([]byte, 0, most*keyShare),
	}
}

func (g *generation) reset() {
	clear(g.slots)
	g.entries, g.keys = g.entries[:0], g.keys[:0]
}

// slot is where the key is, or where it would be.
func (g *generation) slot(hash uint64, key []byte) *uint32 {
	mask, tag := uint64(len(g.slots)-1), g.tag(hash)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := g.slots[i]
		if s == 0 {
			return &g.slots[i]
		}
		if s&^g.number != tag {
			continue
		}
		if e := g.entry(s); int(e.keyLen) == len(key) && bytes.Equal(g.keys[e.keyAt:][:len(key)], key) {
			return &g.slots[i]
		}
	}
}

// tag is what slots of keys of a hash have above the number.
func (g *generation) tag(hash uint64) uint32 { return uint32(hash>>32) &^ g.number }

// entry is that of a slot which is not 0.
func (g *generation) entry(slot uint32) *tip { return &g.entries[slot&g.number-1] }

// get returns the newest version of key, nil if it is not known here. The tip is
// valid until the next put.
func (t *tips) get(key []byte) *tip {
	if t.young == nil {
		return nil
	}
	hash := maphash.Bytes(t.seed, key)
	if s := *t.young.slot(hash, key); s != 0 {
		return t.young.entry(s)
	}
	if t.old != nil {
		if s := *t.old.slot(hash, key); s != 0 {
			return t.old.entry(s)
		}
	}
	return nil
}

// put remembers what is now the newest version of key.
func (t *tips) put(key []byte, v *version) {
	if len(key) > min(longestTip, t.most*keyShare) {
		t.complete = false
		return // no version of this key is ever remembered
	}
	if t.most == 0 {
		return
	}
	if t.young == nil {
		t.young = newGeneration(t.most)
	}
	hash := maphash.Bytes(t.seed, key)
	at := t.young.slot(hash, key)
	if *at != 0 {
		e := t.young.entry(*at)
		keyAt := e.keyAt
		*e = tipOf(v)
		e.keyAt, e.keyLen = keyAt, uint16(len(key))
		return
	}
	if len(t.young.entries) == cap(t.young.entries) || len(t.young.keys)+len(key) > cap(t.young.keys) {
		if t.old == nil {
			t.old = newGeneration(t.most)
		}
		t.young, t.old = t.old, t.young
		t.complete = t.complete && len(t.young.entries) == 0
		t.young.reset()
		at = t.young.slot(hash, key)
	}
	e := tipOf(v)
	e.keyAt, e.keyLen = uint32(len(t.young.keys)), uint16(len(key))
	t.young.keys = append(t.young.keys, key...)
	t.young.entries = append(t.young.entries, e)
	*at = uint32(len(t.young.entries)) | t.young.tag(hash)
}

// reset forgets everything.
func (t *tips) reset() { t.young, t.old, t.complete = nil, nil, false }
