package pebbledb

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/measure"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// batch is engine.Batch on Pebble's, whose buffer it keeps from use to use.
type batch struct{ b *pebble.Batch }

// NewBatch is engine.Writer's.
func (db *DB) NewBatch() engine.Batch { return &batch{db.p.NewBatch()} }

// checkKey asks before it makes arguments of the key: they would be allocated.
func checkKey(key []byte) {
	if !keys.Valid(key) {
		invariant.Fail("key %x was not made by a builder", key)
	}
}

// Set is engine.Batch's.
func (b *batch) Set(key, value []byte) {
	checkKey(key)
	err := b.b.Set(key, value, nil)
	invariant.Check(err == nil, "batch: %v", err)
}

// Delete is engine.Batch's.
func (b *batch) Delete(key []byte) {
	checkKey(key)
	err := b.b.Delete(key, nil)
	invariant.Check(err == nil, "batch: %v", err)
}

// Bytes is engine.Batch's.
func (b *batch) Bytes() int {
	if b.b.Empty() {
		return 0
	}
	return b.b.Len()
}

// Reset is engine.Batch's.
func (b *batch) Reset() { b.b.Reset() }

// Close is engine.Batch's.
func (b *batch) Close() {
	err := b.b.Close()
	invariant.Check(err == nil, "batch: %v", err)
}

// Commit is engine.Writer's.
func (db *DB) Commit(b engine.Batch) error {
	if err := db.disk.failure(); err != nil {
		return err
	}
	mine := b.(*batch)
	if mine.b.Empty() {
		return nil
	}
	if db.commits != nil {
		begun := db.opts.Clock.Now()
		defer func() { db.commits.Took(db.opts.Clock.Now().Sub(begun)) }()
	}
	if err := db.makeRoom(mine.b.Len()); err != nil {
		return err
	}
	db.dirty = true
	if err := db.p.Apply(mine.b, pebble.NoSync); err != nil {
		return db.disk.fail(db.named(err))
	}
	mine.b.Reset()
	return nil
}

// Commits are the durations of commits, the wait for a disk that is behind among
// them, since the store was opened; nil if it was given no clock.
func (db *DB) Commits() *measure.Histogram { return db.commits }

// makeRoom waits while the disk is too far behind. It looks once in a while only,
// since looking costs as much as a hundred small batches. Memtables are judged by
// their bytes, not their number: a young store begins with small ones and does not
// flush them before they weigh half a large one together.
func (db *DB) makeRoom(bytes int) error {
	db.unlooked += bytes
	if db.unlooked < db.opts.MemtableBytes/looksPerMemtable {
		return nil
	}
	db.unlooked = 0
	for waited := false; ; waited = true {
		m := db.p.Metrics()
		db.disk.hurried.Store(db.behind(m))
		if m.MemTable.Size <= memtables*uint64(db.opts.MemtableBytes) && int(m.Levels[0].Sublevels) < stopSublevels {
			return nil
		}
		if !waited {
			db.opts.Trouble(fmt.Sprintf("a commit waits for the disk: %d bytes of memtables, %d sublevels of level 0",
				m.MemTable.Size, m.Levels[0].Sublevels))
		}
		select {
		case <-db.room:
		case <-db.disk.broken:
			return db.disk.failure()
		}
	}
}

// behind is whether flushes and compactions shall go as fast as they can: else
// commits would soon wait for them. A full memtable may be flushed at leisure until
// the next one is about half full; Pebble does not tell how full that is, so looks
// are counted.
func (db *DB) behind(m *pebble.Metrics) bool {
	if m.MemTable.Size <= uint64(db.opts.MemtableBytes) {
		db.flushLooks = 0
	} else {
		db.flushLooks++
	}
	return db.flushLooks > looksPerMemtable/2 || m.Levels[0].Sublevels > stopSublevels/2 || m.Compact.EstimatedDebt > hurriedDebt
}

// backlog is what the disk owes: memtables beyond the one that fills, and level 0
// once it begins to slow readers.
func (db *DB) backlog(m *pebble.Metrics) (bytes int64) {
	if waiting := int64(m.MemTable.Size) - int64(db.opts.MemtableBytes); waiting > 0 {
		bytes += waiting
	}
	if m.Levels[0].Sublevels > stopSublevels/2 {
		bytes += m.Levels[0].TablesSize
	}
	return bytes
}

// StartFlush is engine.Writer's.
func (db *DB) StartFlush() error {
	db.disk.hurried.Store(true) // whoever asks waits for it, at a stop above all; the next look at the backlog ends the hurry
	if err := db.disk.failure(); err != nil {
		return err
	}
	if !db.dirty {
		return nil
	}
	flushed, err := db.p.AsyncFlush()
	if err != nil {
		return db.disk.fail(err)
	}
	db.dirty, db.flushed = false, flushed
	return nil
}

// flushNow waits until everything committed is durable. Memtables are flushed in
// order, so the last flush begun stands for all.
func (db *DB) flushNow() error {
	if err := db.StartFlush(); err != nil {
		return err
	}
	if db.flushed == nil {
		return nil
	}
	select {
	case <-db.flushed:
		db.flushed = nil
		return db.disk.failure()
	case <-db.disk.broken:
		return db.disk.failure()
	}
}
