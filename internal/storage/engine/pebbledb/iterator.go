package pebbledb

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// iterator is engine.Iterator on Pebble's. Between bounds that leave room for
// one prefix only, its seeks go by SeekPrefixGE, which asks the bloom filters;
// after one Pebble cannot step backwards, so Prev then seeks.
type iterator struct {
	it *pebble.Iterator
	db *DB
	// prefix is set when the bounds leave room for no other.
	prefix []byte
	// cut: the upper bound lies among the versions of a user key.
	cut bool
	// byPrefix: the last seek went by prefix.
	byPrefix bool
	// placed: some move was made. Before one Pebble stands nowhere and does not
	// step.
	placed bool
	buf    [64]byte
	opts   pebble.IterOptions
}

func checkBound(bound []byte) {
	if bound != nil {
		checkKey(bound)
	}
}

// newIterator opens an iterator on the store or on a checkpoint.
func (db *DB) newIterator(r pebble.Reader, lower, upper []byte) (*iterator, error) {
	own := &iterator{db: db}
	own.bound(lower, upper)
	// A point read may well be for a key that is not there, such as the last
	// version of one that is put for the first time: then the filters of the last
	// level spare reading a block.
	own.opts = pebble.IterOptions{LowerBound: lower, UpperBound: upper, UseL6Filters: own.prefix != nil}
	var err error
	if own.it, err = r.NewIter(&own.opts); err != nil {
		return nil, db.named(err)
	}
	return own, nil
}

// isNextPrefix says whether upper is the smallest prefix greater than prefix.
func isNextPrefix(prefix, upper []byte) bool {
	n := len(prefix)
	return n > 0 && len(upper) == n+1 && upper[n] == 0 && bytes.Equal(upper[:n], prefix)
}

// Bound is engine.Iterator's. The filters of the last level are asked as for the range
// that it was opened with.
func (it *iterator) Bound(lower, upper []byte) {
	checkBound(lower)
	checkBound(upper)
	it.bound(lower, upper)
	it.placed, it.byPrefix = false, false
	it.it.SetBounds(lower, upper)
}

// bound notes what moves need to know of the bounds.
func (it *iterator) bound(lower, upper []byte) {
	it.prefix = nil
	if prefix := lower[:keys.Split(lower)]; isNextPrefix(prefix, upper) {
		it.prefix = append(it.buf[:0], prefix...)
	}
	it.cut = keys.Split(upper) < len(upper)
}

// SeekGE is engine.Iterator's.
func (it *iterator) SeekGE(key []byte) bool {
	checkBound(key)
	it.placed = true
	if it.byPrefix = it.prefix != nil && bytes.Equal(key[:keys.Split(key)], it.prefix); it.byPrefix {
		return it.it.SeekPrefixGE(key)
	}
	return it.it.SeekGE(key)
}

// SeekLT is engine.Iterator's.
func (it *iterator) SeekLT(key []byte) bool {
	checkBound(key)
	it.placed, it.byPrefix = true, false
	return it.it.SeekLT(key)
}

// Next is engine.Iterator's.
func (it *iterator) Next() bool {
	if !it.placed {
		it.placed = true
		return it.it.First()
	}
	if it.byPrefix && !it.it.Valid() {
		return false
	}
	return it.it.Next()
}

// NextPrefix is engine.Iterator's. Pebble's does not go with every upper bound.
func (it *iterator) NextPrefix() bool {
	if it.byPrefix || !it.cut {
		return it.it.NextPrefix()
	}
	key := it.it.Key()
	return it.it.SeekGE(keys.AppendImmediateSuccessor(nil, key[:keys.Split(key)]))
}

// Prev is engine.Iterator's.
func (it *iterator) Prev() bool {
	if !it.placed {
		it.placed = true
		return it.it.Last()
	}
	if !it.byPrefix {
		return it.it.Prev()
	}
	it.byPrefix = false
	if it.it.Valid() {
		return it.it.SeekLT(bytes.Clone(it.it.Key()))
	}
	if it.it.Error() != nil {
		return false
	}
	return it.it.Last()
}

// Valid is engine.Row's.
func (it *iterator) Valid() bool { return it.it.Valid() }

// Key is engine.Row's.
func (it *iterator) Key() []byte { return it.it.Key() }

// Value is engine.Row's.
func (it *iterator) Value() ([]byte, error) {
	value, err := it.it.ValueAndErr()
	return value, it.db.named(err)
}

// Err is engine.Row's.
func (it *iterator) Err() error { return it.db.named(it.it.Error()) }

// Close is engine.Row's.
func (it *iterator) Close() error {
	invariant.Check(it.it != nil, "iterator closed twice")
	err := it.it.Close()
	it.it = nil
	it.db.iterators.Add(-1)
	return it.db.named(err)
}
