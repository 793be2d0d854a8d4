package pebbledb

import (
	"context"
	"math"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Reclaim rewrites every table, so that the disk space of rows that were deleted is given
// back now: Pebble by itself does that only as new rows come. It needs as much room
// meanwhile as the rows that are left, and takes as long as to write them; readers and
// writers go on beside it. Any goroutine may call it, before Close. Errors: the context's,
// *engine.CorruptionError, the file system's.
func (db *DB) Reclaim(ctx context.Context) error {
	db.disk.awaited.Add(1)
	defer db.disk.awaited.Add(-1)
	low, high := keys.AppendGroupStart(nil, 0), keys.AppendGroupEnd(nil, id.Group(math.MaxUint32))
	return db.named(db.p.Compact(ctx, low, high, false))
}
