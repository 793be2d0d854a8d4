package mvcc

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// A slice of work on the fences, between two batches of the applier, looks at
// sliceRows keys or changes, or reads about sliceBytes. A pace of 16 ms between
// slices makes 100,000 keys a second of it.
const (
	sliceRows = 1600
	// splitLeaves is how many leaves are split at a time.
	splitLeaves = 64
)

// KeepCounts makes the store count its keys, in leaves of so many rows, so that a
// count of a range need not walk over it; 0, as at first, is no counting. It
// changes how fast answers are, and nothing else. A store that has keys is counted
// by Tally; until then counts walk.
func (s *Store) KeepCounts(rows int) {
	s.counts = counter{most: rows, made: s.counts.made + 1}
	if rows > 0 && s.now.Written == 0 {
		s.counts.begin(whole, s.now.Revision)
	}
}

// Committed tells the store that its batch is. Errors: *DamageError.
func (s *Store) Committed() error {
	c := &s.counts
	if c.stage < walking {
		return nil
	}
	if len(c.now.recent.events)-c.merged >= mergeEvents || s.now.Revision-c.now.fences.at >= mergeRevisions {
		c.merge(s.now.Revision)
	}
	_, err := s.splitHeavy()
	return err
}

// Tally does a slice of what is left to do before every key is counted, between
// two batches. The view should be published if it worked. Errors: *DamageError.
func (s *Store) Tally() (worked bool, err error) {
	c := &s.counts
	if c.most == 0 {
		return false, nil
	}
	switch c.stage {
	case unread:
		return true, s.readFences()
	case replaying:
		return true, s.replay()
	case walking:
		return true, s.walkKeys()
	}
	return s.splitHeavy()
}

// heads opens a scan of the newest versions of keys, tombstones too.
func (s *Store) heads(key []byte, end []byte) (*scan, error) {
	if end == nil {
		end = []byte{0}
	}
	sc := &scan{group: s.group, rev: latest, open: s.db.Iter, graves: true}
	if err := sc.start(key, end); err != nil {
		return nil, &DamageError{"of the keys", err}
	}
	return sc, nil
}

// walkKeys counts the keys that come next. Nothing is uncommitted: what is behind
// the cursor is counted as it is now, and later as it changes.
func (s *Store) walkKeys() error {
	c := &s.counts
	c.merge(s.now.Revision)
	sc, err := s.heads(c.cursor, nil)
	if err != nil {
		return err
	}
	defer sc.close()
	c.edit()
	f := c.now.fences
	leaves := c.chunk(len(f.chunks) - 1)
	fill := c.limit() - c.limit()/8
	for rows, bytes := 0, 0; rows < sliceRows && bytes < sliceBytes; rows++ {
		key, v, err := sc.next()
		if err != nil {
			return err
		}
		if v == nil {
			c.cursor, c.stage = nil, whole
			c.seal()
			c.now.recent, c.merged = recent{since: c.now.fences.at}, 0
			return nil
		}
		bytes += len(key) + len(v.value)
		if at := &leaves.leaves[len(leaves.leaves)-1]; int(at.rows) >= fill && len(key) <= longestFence {
			if len(leaves.leaves) == chunkLeaves*3/4 {
				leaves = &fenceChunk{made: c.made}
				f.chunks = append(f.chunks, leaves)
			}
			leaves.leaves = append(leaves.leaves, fenceLeaf{low: string(key)})
			c.bytes += leafBytes + len(key)
		}
		at := &leaves.leaves[len(leaves.leaves)-1]
		at.rows++
		if !v.dead {
			at.live++
		}
		c.cursor = append(append(c.cursor[:0], key...), 0)
	}
	c.seal()
	return nil
}

// replay makes the changes that come next part of the fences that were read.
func (s *Store) replay() error {
	c := &s.counts
	low := keys.AppendHistory(nil, s.group, c.replayed.main, c.replayed.sub)
	it, err := s.db.Iter(low, keys.AppendHistoryEnd(nil, s.group))
	if err != nil {
		return &DamageError{"of the changes", err}
	}
	defer it.Close()
	c.edit()
	more := it.SeekGE(low)
	for rows := 0; more && rows < sliceRows; rows++ {
		if err := c.replayChange(it); err != nil {
			return err
		}
		more = it.Next()
	}
	if err := it.Err(); err != nil {
		return &DamageError{"of the changes", err}
	}
	if !more {
		c.now.fences.at, c.now.recent = s.now.Revision, recent{since: s.now.Revision}
		c.stage, c.merged = whole, 0
		c.weigh()
	}
	c.seal()
	return nil
}

// weigh looks for leaves that are too large after a replay.
func (c *counter) weigh() {
	for _, chunk := range c.now.fences.chunks {
		for i := range chunk.leaves {
			if int(chunk.leaves[i].rows) > c.limit() {
				c.heavy = append(c.heavy, heavyLeaf{low: chunk.leaves[i].low})
			}
		}
	}
}

func (c *counter) replayChange(it engine.Iterator) error {
	bad := func(err error) error { return &DamageError{keys.Text(it.Key()).String(), err} }
	_, main, sub, ok := keys.DecodeHistory(it.Key())
	if !ok {
		return bad(errRow)
	}
	row, err := it.Value()
	if err != nil {
		return bad(err)
	}
	ch, err := decodeChange(row, main, sub)
	if err != nil {
		return bad(err)
	}
	c.replayed.main, c.replayed.sub = main, sub+1
	switch {
	case ch.dead:
		c.add(ch.key, -1)
	case ch.prevMain == 0:
		c.add(ch.key, 1)
	}
	return nil
}

// splitHeavy splits leaves that have too many rows. The fences are those of the
// committed state then.
func (s *Store) splitHeavy() (worked bool, err error) {
	c := &s.counts
	if c.stage != whole || len(c.heavy) == 0 {
		return false, nil
	}
	if c.now.fences.at != s.now.Revision || c.merged < len(c.now.recent.events) {
		c.merge(s.now.Revision)
	}
	n := min(len(c.heavy), splitLeaves)
	for _, h := range c.heavy[:n] {
		if err := s.splitLeaf(h); err != nil {
			return true, err
		}
	}
	c.heavy = append(c.heavy[:0], c.heavy[n:]...)
	c.edit()
	c.seal()
	return true, nil
}

// splitLeaf looks at the rows of a leaf and cuts it.
func (s *Store) splitLeaf(h heavyLeaf) error {
	c := &s.counts
	p, limit := c.now.fences.place([]byte(h.low)), c.limit()
	leaf := c.now.fences.chunks[p.chunk].leaves[p.leaf]
	if leaf.low != h.low || int(leaf.rows) <= limit {
		return nil
	}
	var end []byte
	if high, ok := c.now.fences.low(c.now.fences.next(p)); ok {
		end = []byte(high)
	}
	sc, err := s.heads([]byte(h.low), end)
	if err != nil {
		return err
	}
	defer sc.close()
	fill := limit/2 + 1
	if h.ascending {
		fill = limit - limit/8
	}
	parts, err := cut(sc, h.low, fill)
	if err != nil {
		return err
	}
	all := fenceLeaf{low: h.low}
	for i := range parts {
		all.live, all.rows = all.live+parts[i].live, all.rows+parts[i].rows
	}
	checkLeaf(&all, leaf.live)
	if int(all.rows) <= limit-limit/4 {
		parts = []fenceLeaf{all}
	}
	c.replace(p, parts)
	return nil
}

// cut makes leaves of fill rows of what a scan yields.
func cut(sc *scan, low string, fill int) (parts []fenceLeaf, err error) {
	parts = []fenceLeaf{{low: low}}
	for {
		key, v, err := sc.next()
		if err != nil {
			return nil, err
		}
		if v == nil {
			break
		}
		if int(parts[len(parts)-1].rows) >= fill && len(key) <= longestFence {
			parts = append(parts, fenceLeaf{low: string(key)})
		}
		at := &parts[len(parts)-1]
		at.rows++
		if !v.dead {
			at.live++
		}
	}
	if n := len(parts); n > 1 && int(parts[n-1].rows) < fill/8 {
		parts[n-2].live, parts[n-2].rows = parts[n-2].live+parts[n-1].live, parts[n-2].rows+parts[n-1].rows
		parts = parts[:n-1]
	}
	return parts, nil
}

// fencesKnow says that the fences, as they were read, are those of a revision
// from which on every change can still be read.
func (s *Store) fencesKnow(at id.Revision) bool {
	return at > 0 && at <= s.now.Revision && at+1 >= s.removal.target
}
