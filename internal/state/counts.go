package state

import (
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/measure"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// Counts are what this replica has done since it was opened: not part of the state.
// Any goroutine may read them.
type Counts struct {
	// Store counts what was done to keys.
	Store *mvcc.Counts
	// Granted, Revoked and Expired are leases; one that has expired is revoked, too.
	// TTLs are those of the granted ones, in seconds.
	Granted, Revoked, Expired atomic.Uint64
	TTLs                      *measure.Histogram
	// LastCompaction is when the last compaction was proposed, in nanoseconds of its
	// proposer's calendar; 0 if there was none.
	LastCompaction atomic.Int64
	// Removals are how long the removal of what compactions freed took, from the first
	// slice to the last.
	Removals *measure.Histogram

	removing env.Instant // since when; of the applier
}

func (c *Counts) init(store *mvcc.Counts) {
	c.Store = store
	c.TTLs = measure.New(measure.Doubling(1, 24))
	c.Removals = measure.NewDurations(100*time.Millisecond, 14)
}

// Counts are what the machine has done so far; they go on counting.
func (m *Machine) Counts() *Counts { return &m.counts }

// measureRemoval takes in that a slice of removal was done, and whether there is more.
func (c *Counts) measureRemoval(now env.Instant, more bool) {
	if c.removing == 0 {
		c.removing = max(now, 1)
	}
	if !more {
		c.Removals.Took(now.Sub(c.removing))
		c.removing = 0
	}
}
