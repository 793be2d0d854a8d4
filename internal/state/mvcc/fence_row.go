package mvcc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// The fences lie in the store's rows as they were at some revision; with the
// changes after it they are what they are now. The rows are written in the batch
// that begins to remove changes up to a revision, as they are at that revision or
// later (so what is needed to go on from rows that are there is never gone), and
// whenever so many revisions have passed that reading the changes would take long.
// docs/format/engine-rows.md describes them.
const (
	rowFences = "fences"
	// saveRevisions is how many changes a start reads at most, about.
	saveRevisions = 50_000
)

func pieceRow(piece int64) string { return fmt.Sprintf("%s/%08x", rowFences, piece) }

// saveFences puts the fences into a batch.
func (s *Store) saveFences(batch engine.Batch) {
	c := &s.counts
	f := c.now.fences
	for i, chunk := range f.chunks {
		s.row = appendLeaves(s.row[:0], chunk.leaves)
		s.key = keys.AppendMeta(s.key[:0], s.group, pieceRow(int64(i)))
		batch.Set(s.key, s.row)
	}
	n := int64(len(f.chunks))
	for i := n; i < c.pieces; i++ {
		s.key = keys.AppendMeta(s.key[:0], s.group, pieceRow(i))
		batch.Delete(s.key)
	}
	s.row = appendNumbers(s.row[:0], int64(f.at), n)
	s.key = keys.AppendMeta(s.key[:0], s.group, rowFences)
	batch.Set(s.key, s.row)
	c.saved, c.pieces = f.at, n
}

// readFences takes the fences out of the store's rows, or begins to walk.
func (s *Store) readFences() error {
	c := &s.counts
	head := [...]int64{-1, 0}
	if err := s.meta(rowFences, head[:]); err != nil {
		return err
	}
	at, pieces := id.Revision(head[0]), head[1]
	if c.pieces = pieces; !s.fencesKnow(at) {
		c.begin(walking, s.now.Revision)
		return nil
	}
	c.begin(replaying, at)
	f := c.now.fences
	f.chunks, c.bytes, c.saved = f.chunks[:0], 0, at
	last := ""
	for i := range pieces {
		name := pieceRow(i)
		row, err := s.db.Get(keys.AppendMeta(nil, s.group, name), nil)
		var leaves []fenceLeaf
		if err == nil {
			leaves, err = decodeLeaves(row)
		}
		if err == nil && (leaves[0].low == "") != (i == 0) || i > 0 && err == nil && leaves[0].low <= last {
			err = errRow
		}
		if err != nil {
			return &DamageError{name, err}
		}
		f.chunks = append(f.chunks, &fenceChunk{leaves: leaves, made: c.made})
		for j := range leaves {
			c.bytes += leafBytes + len(leaves[j].low)
		}
		last = leaves[len(leaves)-1].low
	}
	if pieces == 0 {
		return &DamageError{rowFences, errRow}
	}
	c.replayed.main, c.replayed.sub = at+1, 0
	c.seal()
	return nil
}

// appendLeaves appends the row of a chunk.
func appendLeaves(dst []byte, leaves []fenceLeaf) []byte {
	dst = append(dst, metaFormat)
	before := ""
	for i := range leaves {
		low := leaves[i].low
		same := shared(before, low)
		dst = binary.AppendUvarint(dst, uint64(same))
		dst = binary.AppendUvarint(dst, uint64(len(low)-same))
		dst = append(dst, low[same:]...)
		dst = binary.AppendUvarint(dst, uint64(leaves[i].live))
		dst = binary.AppendUvarint(dst, uint64(leaves[i].rows-leaves[i].live))
		before = low
	}
	return dst
}

func shared(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

var errFormat = errors.New("row of unknown format")

// decodeLeaves reads the row of a chunk: at least one leaf, fences ascending.
func decodeLeaves(row []byte) ([]fenceLeaf, error) {
	if len(row) == 0 || row[0] != metaFormat {
		return nil, errFormat
	}
	var leaves []fenceLeaf
	before := ""
	for row = row[1:]; len(row) > 0; {
		same, rest, ok1 := uvarint(row)
		size, rest, ok2 := uvarint(rest)
		if !ok1 || !ok2 || same > uint64(len(before)) || size > uint64(len(rest)) {
			return nil, errRow
		}
		low := before[:same] + string(rest[:size])
		live, rest, ok1 := uvarint(rest[size:])
		more, rest, ok2 := uvarint(rest)
		if !ok1 || !ok2 || live > math.MaxInt32 || more > math.MaxInt32-live || len(low) > longestFence ||
			uint64(shared(before, low)) != same || len(leaves) > 0 && low <= before {
			return nil, errRow
		}
		leaves = append(leaves, fenceLeaf{low, int32(live), int32(live + more)})
		before, row = low, rest
	}
	if len(leaves) == 0 {
		return nil, errRow
	}
	return leaves, nil
}
