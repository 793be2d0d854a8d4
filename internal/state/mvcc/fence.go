package mvcc

import (
	"cmp"
	"slices"
	"sort"

	"github.com/kvorum/kvorum/internal/id"
)

// fences say how many keys live between keys, so that a range is counted without
// a walk over it: the keys in order are cut into leaves of about a hundred, and
// of each leaf its first possible key, its fence, and the number of its keys are
// in memory. A million keys are ten thousand leaves, less than a megabyte.
//
// Fences that a View has never change; the applier's counter makes the next ones
// from them and shares the chunks that stayed as they were.
type fences struct {
	// at is the revision whose keys are counted.
	at id.Revision
	// lows are the fences of the chunks' first leaves, before how many keys live in
	// the chunks before each, and in all of them.
	lows   []string
	chunks []*fenceChunk
	before []int64
}

// fenceChunk is a run of leaves, at least one.
type fenceChunk struct {
	leaves []fenceLeaf
	// live keys are in the leaves.
	live int64
	// made tells the applier whether a View may have the chunk.
	made uint64
}

// fenceLeaf counts the keys from its fence to the next leaf's.
type fenceLeaf struct {
	low string // of the first leaf it is empty
	// live keys are counted exactly; rows counts tombstones too, about: they are
	// what a walk over the leaf looks at.
	live, rows int32
}

// fencePlace is a leaf: its chunk and which leaf of it.
type fencePlace struct{ chunk, leaf int }

func (p fencePlace) before(q fencePlace) bool {
	return p.chunk < q.chunk || p.chunk == q.chunk && p.leaf < q.leaf
}

// place finds the leaf that key is of.
func (f *fences) place(key []byte) fencePlace {
	// The first fence is empty, so one is at or before every key.
	c := sort.Search(len(f.lows)-1, func(i int) bool { return f.lows[i+1] > string(key) })
	leaves := f.chunks[c].leaves
	return fencePlace{c, sort.Search(len(leaves)-1, func(i int) bool { return leaves[i+1].low > string(key) })}
}

// next is the leaf behind p.
func (f *fences) next(p fencePlace) fencePlace {
	if p.leaf+1 < len(f.chunks[p.chunk].leaves) {
		return fencePlace{p.chunk, p.leaf + 1}
	}
	return fencePlace{p.chunk + 1, 0}
}

// end is the place behind the last leaf.
func (f *fences) end() fencePlace { return fencePlace{len(f.chunks), 0} }

// low is the fence of a leaf; ok is false for the end.
func (f *fences) low(p fencePlace) (fence string, ok bool) {
	if p.chunk == len(f.chunks) {
		return "", false
	}
	return f.chunks[p.chunk].leaves[p.leaf].low, true
}

// liveBefore is the number of keys in the leaves before p.
func (f *fences) liveBefore(p fencePlace) int64 {
	n := f.before[p.chunk]
	if p.leaf > 0 {
		for i := range f.chunks[p.chunk].leaves[:p.leaf] {
			n += int64(f.chunks[p.chunk].leaves[i].live)
		}
	}
	return n
}

// recent remembers which keys were created and deleted lately, in order: what
// leads from the revision of the fences to those around it, and back. It grows
// at its end only, so that the applier may go on while a View reads what it has.
type recent struct {
	// since is the revision after which nothing is missing.
	since  id.Revision
	events []recentEvent
	keys   []byte
}

// recentEvent is a key created (net 1) or deleted (net -1) at a revision.
type recentEvent struct {
	rev   id.Revision
	keyAt int
	size  int32
	net   int32
}

func (r *recent) key(e *recentEvent) []byte { return r.keys[e.keyAt:][:e.size:e.size] }

// after is the number of events up to a revision.
func (r *recent) after(rev id.Revision) int {
	n, _ := slices.BinarySearchFunc(r.events, rev, func(e recentEvent, rev id.Revision) int {
		if e.rev <= rev {
			return -1
		}
		return 1
	})
	return n
}

// within sums some events over the keys from low to before high.
func (r *recent) within(events []recentEvent, low, high string, bounded bool) (net int64) {
	for i := range events {
		e := &events[i]
		if key := r.key(e); string(key) >= low && (!bounded || string(key) < high) {
			net += int64(e.net)
		}
	}
	return net
}

// counted is what a reader counts with. Without fences it has to walk.
type counted struct {
	fences *fences
	recent recent
}

// leap is a part of a scan that need not be walked: the keys from low to before
// high, or to the end of all keys. live of them are there at the scan's revision.
type leap struct {
	low, high string
	toEnd     bool
	live      int64
}

// eventsPerKey is how many events are looked at in the time of a step of a walk.
const eventsPerKey = 8

// leap finds the leaves that lie within a range as a whole: behind a key, or from
// it on, to before end, nil for none. ok is false if a walk is to be preferred.
func (c *counted) leap(key []byte, behind bool, end []byte, rev id.Revision) (l leap, ok bool) {
	f := c.fences
	if f == nil || rev < f.at && rev < c.recent.since {
		return leap{}, false
	}
	from, to := f.place(key), f.end()
	if low, _ := f.low(from); behind || low != string(key) {
		from = f.next(from)
	}
	if end != nil {
		to = f.place(end)
	}
	if !from.before(to) {
		return leap{}, false
	}
	l.low, _ = f.low(from)
	high, bounded := f.low(to)
	l.high, l.toEnd = high, !bounded
	l.live = f.liveBefore(to) - f.liveBefore(from)
	first, last := c.recent.after(min(f.at, rev)), c.recent.after(max(f.at, rev))
	if int64(last-first) > eventsPerKey*(l.live+1) {
		return leap{}, false
	}
	net := c.recent.within(c.recent.events[first:last], l.low, high, bounded)
	l.live += int64(cmp.Compare(rev, f.at)) * net
	return l, true
}
