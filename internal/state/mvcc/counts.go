package mvcc

import "sync/atomic"

// Counts are what the replica of a store has done since it was opened: not part of
// the state. Any goroutine may read them.
type Counts struct {
	// Puts and Deletes are operations applied, those of txns and the ends of leases
	// too; PutBytes the keys and values of the puts. Txns are those that were applied
	// or read.
	Puts, Deletes, Txns, PutBytes atomic.Uint64
	// Ranges were answered, those inside of txns too; one that is answered in pieces
	// counts once.
	Ranges atomic.Uint64
	// Compacted are the versions and tombstones that compactions have removed.
	Compacted atomic.Uint64
}

// Counts are those of the store; they go on counting.
func (s *Store) Counts() *Counts { return &s.done }

// CountRange counts a range that is answered in pieces.
func (v *View) CountRange() { v.done.Ranges.Add(1) }
