package mvcc

import (
	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// removal is how far the rows that compactions have freed are deleted. It is the
// replica's own affair: replicas in the same state may differ in it.
type removal struct {
	// done is the compaction whose rows are all deleted; target the one under
	// way, equal to done when there is none.
	done, target id.Revision
	// main and sub are the next change to look at.
	main id.Revision
	sub  uint32
	// bytes is State.Removed.
	bytes int64
}

// PaceRemoval has a slice of removal look at no more than so many changes; below 1 is
// mostRows, as at first.
func (s *Store) PaceRemoval(changes int) {
	if s.mostRows = changes; changes < 1 {
		s.mostRows = mostRows
	}
}

// A removal is cut into about removalSlices slices, so that a large one takes about
// as long whatever its size: eight minutes with the rests that state.Machine makes
// between them. Where compactions come faster than that, each removal takes in what
// has come meanwhile. A slice looks at leastRows to mostRows changes, or to what
// PaceRemoval says, and puts about removalBytes of deletions into its batch.
const (
	removalSlices = 30_000
	leastRows     = 32
	mostRows      = 1000
	removalBytes  = 256 << 10
)

// rows is how many changes a slice of this removal looks at, of at most most.
func (p *removal) rows(hurried bool, most int) int {
	if hurried {
		return most
	}
	return int(min(max(int64(p.target-max(p.done, 0))/removalSlices, leastRows), int64(most)))
}

// Freeing says whether Remove has anything to do.
func (s *Store) Freeing() bool { return s.removal.done < s.now.Compacted }

// Removing is the compact revision below which removal has begun.
func (s *Store) Removing() id.Revision { return s.removal.target }

// Remove puts the next slice of deletions into a batch, with the row that says
// how far they have come; the batch is to be committed at once. What it deletes
// lies below the compact revision, which must have been published before. A hurried
// slice, for somebody who waits for the end, is as large as one may be.
//
// With prev the last completed compaction and C the one under way (rule 22): for
// each change in (prev, C] the version that it superseded goes; for each deletion
// in [prev, C) its tombstone; then the change itself, if it is below C. A change
// and what follows from it go in one batch, so the walk can be taken up after a
// crash wherever its row says. Fences that are read from their rows still need the
// changes after them: a removal begins when they have them.
func (s *Store) Remove(batch engine.Batch, hurried bool) error {
	p := s.removal
	if p.target == p.done {
		if s.counts.catchingUp() && !defect.On(defect.RemovalPassesFences) {
			_, err := s.Tally()
			return err
		}
		p.target, p.main, p.sub = s.now.Compacted, 0, 0
		if s.counts.stage == whole {
			s.counts.merge(s.now.Revision)
			s.saveFences(batch)
		}
	}
	low := keys.AppendHistory(nil, s.group, p.main, p.sub)
	high := keys.AppendHistory(nil, s.group, p.target+1, 0)
	it, err := s.db.Iter(low, high)
	if err != nil {
		return &DamageError{"of the changes", err}
	}
	defer it.Close()
	more := it.SeekGE(low)
	for rows, most := 0, p.rows(hurried, s.mostRows); more && rows < most && batch.Bytes() < removalBytes; rows++ {
		if err := s.removeChange(batch, it, &p); err != nil {
			return err
		}
		more = it.Next()
	}
	if err := it.Err(); err != nil {
		return &DamageError{"of the changes", err}
	}
	if !more {
		p.done = p.target
	} else {
		_, main, sub, ok := keys.DecodeHistory(it.Key())
		if !ok {
			return &DamageError{keys.Text(it.Key()).String(), errRow}
		}
		p.main, p.sub = main, sub
	}
	s.row = appendNumbers(s.row[:0], int64(p.done), int64(p.target), int64(p.main), int64(p.sub), p.bytes)
	s.key = keys.AppendMeta(s.key[:0], s.group, rowRemoval)
	batch.Set(s.key, s.row)
	s.counts.buriedAll()
	s.removal, s.now.Removed, s.now.Freed = p, p.bytes, p.done
	return nil
}

// removeChange deletes what one change lets go.
func (s *Store) removeChange(batch engine.Batch, it engine.Iterator, p *removal) error {
	_, main, sub, ok := keys.DecodeHistory(it.Key())
	if !ok {
		return &DamageError{keys.Text(it.Key()).String(), errRow}
	}
	row, err := it.Value()
	if err != nil {
		return &DamageError{keys.Text(it.Key()).String(), err}
	}
	c, err := decodeChange(row, main, sub)
	if err != nil {
		return &DamageError{keys.Text(it.Key()).String(), err}
	}
	if main > p.done && c.prevMain != 0 {
		s.key = keys.AppendVersion(s.key[:0], s.group, c.key, c.prevMain, c.prevSub)
		batch.Delete(s.key)
		s.done.Compacted.Add(1)
		p.bytes += command.VersionCost(len(c.key), c.prevValue)
	}
	if main == p.target {
		return nil
	}
	if c.dead {
		s.key = keys.AppendVersion(s.key[:0], s.group, c.key, main, sub)
		batch.Delete(s.key)
		s.done.Compacted.Add(1)
		p.bytes += command.VersionCost(len(c.key), 0)
		s.counts.buried(c.key)
	}
	batch.Delete(it.Key())
	return nil
}
