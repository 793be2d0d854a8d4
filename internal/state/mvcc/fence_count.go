package mvcc

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

const (
	// mergeEvents is how many keys are created and deleted before the fences hear of
	// it; a reader makes up for as many at most, and for half a microsecond each
	// hundred. mergeRevisions is when they hear that nothing of the kind happened.
	mergeEvents    = 256
	mergeRevisions = 4096
	// recentEvents and recentBytes bound what is remembered of the past.
	recentEvents = 16 << 10
	recentBytes  = 1 << 20
	// chunkLeaves is how many leaves a chunk has at most: it is what the change of a
	// count copies.
	chunkLeaves = 64
	// fenceBytes is what fences may weigh before leaves become larger than they were
	// asked to be, and leafBytes what one weighs besides its key.
	fenceBytes = 1 << 20
	leafBytes  = 48
	// longestFence is the longest key that a leaf may begin with.
	longestFence = 1 << 10
)

// fenceStage is how much of the keys the fences know.
type fenceStage int

const (
	// unread: what the store's rows have of the fences is not read yet.
	unread fenceStage = iota
	// replaying: the changes since those rows were written are read.
	replaying
	// walking: there were none; the keys up to the cursor are counted.
	walking
	// whole: every key is.
	whole
)

// counter is the applier's side of the fences: it keeps them true to what the
// Store has committed. Between two publications it changes its own copy.
type counter struct {
	// most rows make a leaf; 0: nothing is counted.
	most  int
	stage fenceStage
	now   counted
	// merged of the recent events are in the fences.
	merged int
	// owned says that no view has the fences; chunks made since the last view has
	// them have this number.
	owned bool
	made  uint64
	// bytes is about what the fences weigh.
	bytes int
	// last is where the last change was, since the next one is often near.
	last fencePlace
	// heavy are leaves that look too large.
	heavy []heavyLeaf
	// cursor is the key that walking goes on with, replayed the change that
	// replaying does.
	cursor   []byte
	replayed struct {
		main id.Revision
		sub  uint32
	}
	// saved is the revision of the fences in the store's rows, pieces the number of
	// those rows.
	saved  id.Revision
	pieces int64
}

// heavyLeaf is a leaf to be split: behind its last keys, if they came in order.
type heavyLeaf struct {
	low       string
	ascending bool
}

// view is what readers may count with.
func (c *counter) view() counted {
	if c.stage != whole {
		return counted{}
	}
	if c.owned {
		c.owned = false
		c.made++
	}
	n, k := len(c.now.recent.events), len(c.now.recent.keys)
	return counted{c.now.fences, recent{c.now.recent.since, c.now.recent.events[:n:n], c.now.recent.keys[:k:k]}}
}

// counted is what the applier itself may count with, the batch in hand included.
func (c *counter) counted() *counted {
	if c.stage != whole {
		return nil
	}
	return &c.now
}

// reset forgets everything: the rows are others now.
func (c *counter) reset() { *c = counter{most: c.most, made: c.made + 1} }

// begin starts with no leaf but one, which has no key.
func (c *counter) begin(stage fenceStage, at id.Revision) {
	c.now = counted{fences: &fences{at: at}, recent: recent{since: at}}
	c.stage, c.merged, c.owned, c.bytes, c.heavy = stage, 0, true, leafBytes, nil
	c.now.fences.chunks = []*fenceChunk{{leaves: []fenceLeaf{{}}, made: c.made}}
	c.seal()
}

// record notes that the command in hand has created (1) or deleted (-1) a key.
func (c *counter) record(rev id.Revision, key []byte, net int32) {
	if c.stage < walking {
		return
	}
	r := &c.now.recent
	r.events = append(r.events, recentEvent{rev, len(r.keys), int32(len(key)), net})
	r.keys = append(r.keys, key...)
}

// merge brings the fences up to a revision, which is committed and has the last
// recent event.
func (c *counter) merge(at id.Revision) {
	c.edit()
	r := &c.now.recent
	for i := c.merged; i < len(r.events); i++ {
		e := &r.events[i]
		if key := r.key(e); c.stage == whole || bytes.Compare(key, c.cursor) < 0 {
			c.add(key, e.net)
		}
	}
	c.merged, c.now.fences.at = len(r.events), at
	c.seal()
	c.trim()
}

// trim forgets the older half of the events, if there are too many.
func (c *counter) trim() {
	r := &c.now.recent
	if len(r.events) <= recentEvents && len(r.keys) <= recentBytes {
		return
	}
	half := len(r.events) / 2
	kept := recent{since: r.events[half-1].rev}
	kept.events = append(make([]recentEvent, 0, min(2*half, recentEvents+mergeEvents)), r.events[half:]...)
	kept.keys = append(make([]byte, 0, min(cap(r.keys), recentBytes+recentBytes/8)), r.keys[kept.events[0].keyAt:]...)
	for i, from := 0, kept.events[0].keyAt; i < len(kept.events); i++ {
		kept.events[i].keyAt -= from
	}
	*r, c.merged = kept, len(kept.events)
}

// edit makes the fences the applier's own.
func (c *counter) edit() {
	if c.owned {
		return
	}
	f := *c.now.fences
	f.lows, f.chunks, f.before = slices.Clone(f.lows), slices.Clone(f.chunks), slices.Clone(f.before)
	c.now.fences, c.owned = &f, true
}

// chunk makes a chunk of the applier's fences its own.
func (c *counter) chunk(i int) *fenceChunk {
	f := c.now.fences
	if f.chunks[i].made != c.made {
		f.chunks[i] = &fenceChunk{leaves: slices.Clone(f.chunks[i].leaves), made: c.made}
	}
	return f.chunks[i]
}

// seal sums up what the chunks have.
func (c *counter) seal() {
	f := c.now.fences
	f.lows, f.before = f.lows[:0], append(f.before[:0], 0)
	sum := int64(0)
	for _, chunk := range f.chunks {
		if chunk.made == c.made {
			chunk.live = 0
			for i := range chunk.leaves {
				chunk.live += int64(chunk.leaves[i].live)
			}
		}
		sum += chunk.live
		f.lows, f.before = append(f.lows, chunk.leaves[0].low), append(f.before, sum)
	}
}

// catchingUp says that changes are still to be read.
func (c *counter) catchingUp() bool { return c.most > 0 && c.stage < walking }

// saveDue says that too much has changed since the fences were put into rows.
func (c *counter) saveDue() bool {
	return c.stage == whole && c.now.fences.at-c.saved >= saveRevisions
}

// limit is how many rows a leaf may have: as many as asked for, more when the
// fences outgrow their share of memory.
func (c *counter) limit() int {
	return c.most * max(c.bytes, fenceBytes) / fenceBytes
}

// has says whether a key is of a leaf.
func (f *fences) has(p fencePlace, key []byte) bool {
	if p.chunk >= len(f.chunks) || p.leaf >= len(f.chunks[p.chunk].leaves) {
		return false
	}
	low, _ := f.low(p)
	high, bounded := f.low(f.next(p))
	return low <= string(key) && (!bounded || string(key) < high)
}

// add counts a key that was created or deleted.
func (c *counter) add(key []byte, net int32) {
	f := c.now.fences
	if !f.has(c.last, key) {
		c.last = f.place(key)
	}
	leaf := &c.chunk(c.last.chunk).leaves[c.last.leaf]
	leaf.live += net
	if leaf.live < 0 {
		invariant.Fail("%d keys behind %q", leaf.live, leaf.low)
	}
	if net < 0 {
		return
	}
	if leaf.rows++; c.stage != whole {
		return
	}
	// Asked for once in a while only, and again if nothing came of it.
	if over := int(leaf.rows) - c.limit(); over > 0 && (over-1)%16 == 0 {
		c.heavy = append(c.heavy, heavyLeaf{leaf.low, c.ascending(c.last)})
	}
}

// ascendingKeys is how many keys have to come in order to be taken for a row of
// them that goes on.
const ascendingKeys = 4

// ascending says whether the last keys created in a leaf came in order.
func (c *counter) ascending(p fencePlace) bool {
	r := &c.now.recent
	var later []byte
	n := 0
	for i := len(r.events) - 1; i >= max(0, c.merged-mergeEvents) && n < ascendingKeys; i-- {
		e := &r.events[i]
		key := r.key(e)
		if e.net < 0 || !c.now.fences.has(p, key) {
			continue
		}
		if later != nil && bytes.Compare(key, later) >= 0 {
			return false
		}
		later, n = key, n+1
	}
	return n == ascendingKeys
}

// replace puts leaves in the place of one.
func (c *counter) replace(p fencePlace, leaves []fenceLeaf) {
	c.edit()
	chunk := c.chunk(p.chunk)
	c.bytes -= leafBytes + len(chunk.leaves[p.leaf].low)
	for i := range leaves {
		c.bytes += leafBytes + len(leaves[i].low)
	}
	chunk.leaves = slices.Replace(chunk.leaves, p.leaf, p.leaf+1, leaves...)
	c.divide(p.chunk)
}

// divide cuts a chunk that has become too large.
func (c *counter) divide(i int) {
	f := c.now.fences
	leaves := f.chunks[i].leaves
	if len(leaves) <= chunkLeaves {
		return
	}
	var parts []*fenceChunk
	var lows []string
	for part := range slices.Chunk(leaves, chunkLeaves*5/8) {
		parts = append(parts, &fenceChunk{leaves: slices.Clone(part), made: c.made})
		lows = append(lows, part[0].low)
	}
	f.chunks, f.lows = slices.Replace(f.chunks, i, i+1, parts...), slices.Replace(f.lows, i, i+1, lows...)
}

// buried says that compaction has removed a key's tombstone.
func (c *counter) buried(key []byte) {
	if c.stage != whole {
		return
	}
	p := c.now.fences.place(key)
	if leaf := c.now.fences.chunks[p.chunk].leaves[p.leaf]; leaf.rows <= leaf.live {
		return
	}
	c.edit()
	chunk := c.chunk(p.chunk)
	chunk.leaves[p.leaf].rows--
	if p.leaf == 0 || !c.join(chunk, p.leaf-1) {
		c.join(chunk, p.leaf)
	}
	c.joinChunks(p.chunk)
}

// buriedAll follows when nothing more is buried for now.
func (c *counter) buriedAll() {
	if c.stage == whole && c.owned {
		c.seal()
	}
}

// join makes one of two neighbouring leaves if they are small.
func (c *counter) join(chunk *fenceChunk, left int) bool {
	if left+1 >= len(chunk.leaves) {
		return false
	}
	a, b := &chunk.leaves[left], &chunk.leaves[left+1]
	if int(a.rows+b.rows) > c.limit()/2 {
		return false
	}
	a.live, a.rows = a.live+b.live, a.rows+b.rows
	c.bytes -= leafBytes + len(b.low)
	chunk.leaves = slices.Delete(chunk.leaves, left+1, left+2)
	return true
}

// joinChunks makes one of two neighbouring chunks if they are small.
func (c *counter) joinChunks(i int) {
	f := c.now.fences
	if len(f.chunks[i].leaves) > chunkLeaves/4 {
		return
	}
	if i+1 == len(f.chunks) {
		i--
	}
	if i < 0 || len(f.chunks[i].leaves)+len(f.chunks[i+1].leaves) > chunkLeaves*3/4 {
		return
	}
	into := c.chunk(i)
	into.leaves = append(into.leaves, f.chunks[i+1].leaves...)
	f.chunks, f.lows = slices.Delete(f.chunks, i+1, i+2), slices.Delete(f.lows, i+1, i+2)
}

// checkLeaf holds what a leaf was thought to have against what it has.
func checkLeaf(walked *fenceLeaf, live int32) {
	if invariant.Dear && walked.live != live {
		invariant.Fail("%d keys were counted behind %q, there are %d", live, walked.low, walked.live)
	}
}
