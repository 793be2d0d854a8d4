package mvcc

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/id"
)

// HashKVIn is HashKV with another bound on what is held in memory.
func (v *View) HashKVIn(rev id.Revision, atOnce int) (KVHash, error) {
	return v.hashKV(rev, atOnce, GoOn)
}

// GoOn never stops a walk.
func GoOn() error { return nil }

// CheckFences holds every leaf against a walk over it. It returns the number of
// leaves, 0 if not every key is counted yet.
func (s *Store) CheckFences() (leaves int, err error) {
	c := &s.counts
	if c.stage != whole {
		return 0, nil
	}
	c.merge(s.now.Revision)
	f, bytes, live := c.now.fences, 0, int64(0)
	if len(f.lows) != len(f.chunks) || len(f.before) != len(f.chunks)+1 {
		return 0, fmt.Errorf("%d chunks, %d fences, %d sums", len(f.chunks), len(f.lows), len(f.before))
	}
	for i, chunk := range f.chunks {
		if f.lows[i] != chunk.leaves[0].low || f.before[i] != live || len(chunk.leaves) > chunkLeaves {
			return 0, fmt.Errorf("chunk %d begins with %q after %d keys of %d", i, f.lows[i], f.before[i], live)
		}
		for j, leaf := range chunk.leaves {
			p := fencePlace{i, j}
			if got := f.place([]byte(leaf.low)); got != p {
				return 0, fmt.Errorf("%q found at %v, is at %v", leaf.low, got, p)
			}
			var end []byte
			if high, ok := f.low(f.next(p)); ok {
				end = []byte(high)
			}
			sc, err := s.heads([]byte(leaf.low), end)
			if err != nil {
				return 0, err
			}
			parts, err := cut(sc, leaf.low, 1<<30)
			sc.close()
			if err != nil {
				return 0, err
			}
			if parts[0].live != leaf.live || leaf.rows < leaf.live || int(leaf.rows) > c.limit()+16 {
				return 0, fmt.Errorf("leaf %q has %+v, counted %+v", leaf.low, parts[0], leaf)
			}
			leaves, live, bytes = leaves+1, live+int64(leaf.live), bytes+leafBytes+len(leaf.low)
		}
	}
	if bytes != c.bytes || live != f.before[len(f.chunks)] {
		return 0, fmt.Errorf("%d bytes, counted %d; %d keys, counted %d", bytes, c.bytes, live, f.before[len(f.chunks)])
	}
	return leaves, nil
}

// AppendLeaves is appendLeaves of leaves given by their fields.
func AppendLeaves(dst []byte, lows []string, live, rows []int32) []byte {
	var leaves []fenceLeaf
	for i := range lows {
		leaves = append(leaves, fenceLeaf{lows[i], live[i], rows[i]})
	}
	return appendLeaves(dst, leaves)
}

// DecodeLeaves takes what decodeLeaves returns apart.
func DecodeLeaves(row []byte) (lows []string, live, rows []int32, err error) {
	leaves, err := decodeLeaves(row)
	for i := range leaves {
		lows, live, rows = append(lows, leaves[i].low), append(live, leaves[i].live), append(rows, leaves[i].rows)
	}
	return lows, live, rows, err
}

// RowKnown says whether the cache of rows answers for the newest version of a key.
func (v *View) RowKnown(key string) bool {
	_, ok := v.rows.appendNewest(nil, []byte(key), v.Revision, false)
	return ok
}
