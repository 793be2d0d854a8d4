package mvcc

import (
	"fmt"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
)

// Horizon is what a reader must ask for once more after it has taken its
// iterator (rule 22): what has been forbidden since its View was made.
type Horizon struct {
	Compacted id.Revision
	// Loads counts the snapshots installed since the process began, and counts
	// one more while an installation is under way.
	Loads uint64
}

// maxReaders bounds the iterators that views hold at a time, below what the
// engine allows in all (rule 23): the applier must always get one, since a
// replica that cannot read cannot go on.
const maxReaders = 512

// View is a read-only look at the store at one revision. It never changes, holds
// nothing open, and may be used from any goroutine at any time.
type View struct {
	State
	group id.Group
	db    engine.Reader
	// ring is that of newest events, up to the view's revision.
	ring  ringView
	loads uint64
	// readers counts the iterators of all views of the store.
	readers *atomic.Int64
	// horizon returns what is published now.
	horizon func() Horizon
	rows    *rowCache // nil: there is none
	counted counted
	done    *Counts
}

// View makes a view of everything committed. horizon will be asked by readers,
// from any goroutine; loads is what its Loads is now.
func (s *Store) View(loads uint64, horizon func() Horizon) View {
	return View{State: s.now, group: s.group, db: s.db, ring: s.events.view(), readers: &s.readers, loads: loads, horizon: horizon, rows: s.rows, counted: s.counts.view(), done: &s.done}
}

// Range answers a range at the view's revision or an older one (spec 2.1).
// Errors: command.ErrCompacted, command.ErrFutureRevision, ErrReplaced,
// engine.ErrIterators, *DamageError.
func (v *View) Range(r *command.RangeRequest) (*command.RangeResponse, error) {
	rev := r.Revision
	if rev <= 0 {
		rev = v.Revision
	}
	if err := v.readable(rev); err != nil {
		return nil, err
	}
	v.done.Ranges.Add(1)
	return rangeAt(v, r, rev, v.Revision)
}

// readable judges a revision to read at. Errors: command.ErrCompacted,
// command.ErrFutureRevision.
func (v *View) readable(rev id.Revision) error {
	switch {
	case rev > v.Revision:
		return command.ErrFutureRevision
	case rev < v.Compacted:
		return command.ErrCompacted
	}
	return nil
}

// Txn answers a txn that only reads (command.TxnRequest.ReadOnly), all of it at
// the view's revision (spec 2.5). Errors: as of Range.
func (v *View) Txn(r *command.TxnRequest) (*command.TxnResponse, error) {
	v.done.Txns.Add(1)
	var path []bool
	if err := choose(v, r, v.Revision, &path); err != nil {
		return nil, err
	}
	ops := branch(r, path[0])
	for i := range ops {
		if err := checkRange(ops[i].Range.Revision, v.State); err != nil {
			return nil, err
		}
	}
	resp := &command.TxnResponse{Revision: v.Revision, Succeeded: path[0]}
	for i := range ops {
		q := ops[i].Range
		rev := q.Revision
		if rev <= 0 {
			rev = v.Revision
		}
		v.done.Ranges.Add(1)
		got, err := rangeAt(v, q, rev, v.Revision)
		if err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, command.OpResponse{Range: got})
	}
	return resp, nil
}

// scan is the reads of a view.
func (v *View) scan(key, end []byte, rev id.Revision) (*scan, error) {
	open := func(low, high []byte) (engine.Iterator, error) { return v.open(low, high, rev) }
	s := &scan{group: v.group, rev: rev, open: open, closed: func() { v.readers.Add(-1) }, counted: &v.counted}
	return s, s.start(key, end)
}

// newest reads a key at the view's revision.
func (v *View) newest(key []byte) (tip, bool, error) {
	s, err := v.scan(key, nil, v.Revision)
	defer s.close()
	if err != nil {
		return tip{}, false, err
	}
	_, found, err := s.next()
	if err != nil || found == nil {
		return tip{}, false, err
	}
	return tipOf(found), true, nil
}

// open takes an iterator first and looks at the horizon second: a compaction
// publishes its revision before it deletes, so what the iterator does not see is
// forbidden by then.
func (v *View) open(low, high []byte, rev id.Revision) (engine.Iterator, error) {
	if v.readers.Add(1) > maxReaders {
		v.readers.Add(-1)
		return nil, engine.ErrIterators
	}
	it, err := v.db.Iter(low, high)
	if err != nil {
		v.readers.Add(-1)
		return nil, fmt.Errorf("mvcc: read: %w", err)
	}
	now := v.horizon()
	switch {
	case now.Loads != v.loads:
		err = ErrReplaced
	case rev < now.Compacted:
		err = command.ErrCompacted
	default:
		return it, nil
	}
	it.Close()
	v.readers.Add(-1)
	return nil, err
}
