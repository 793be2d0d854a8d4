// Package pebbledb is the engine's first body: Pebble without its own log, since
// the Raft log is the log. A batch goes whole into one memtable and memtables are
// flushed in order, so what is on disk is always an exact prefix of the batches
// committed (rule 20).
//
// Around Pebble it adds what Pebble leaves to its user: a MANIFEST whose synced
// bytes are promised in a mark file (disk, inspect), damage that is named, a disk
// failure that is final and is heard by the next commit (disk, events), and
// writers that never wait on a disk that has failed (DB.makeRoom).
package pebbledb

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/measure"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// DB is an open store. It implements engine.DB.
type DB struct {
	opts Options
	disk *disk
	p    *pebble.DB

	iterators atomic.Int64
	room      chan struct{} // a flush or compaction has ended
	installed atomic.Int64  // numbers the tables of installations
	commits   *measure.Histogram

	// The rest belongs to the committing goroutine.
	dirty    bool            // something was committed since the last flush began
	flushed  <-chan struct{} // closed when the last flush begun is done
	unlooked int             // bytes committed since makeRoom looked
	// flushLooks is how often in a row it found a full memtable waiting.
	flushLooks int
}

var _ engine.DB = (*DB)(nil)

// Open opens the store in opts.Dir, or makes an empty one. What it reads is
// durable when it returns (rule 4). Errors: env.ErrLocked, engine.ErrForeign,
// *engine.CorruptionError, the file system's.
func Open(opts Options) (*DB, error) {
	db := &DB{opts: opts.withDefaults(), disk: newDisk(opts.FS, opts.Failed, opts.Pause), room: make(chan struct{}, 1)}
	if err := engine.MakeDir(opts.FS, opts.Dir); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(opts.Dir, opts.FS)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", opts.Dir, err)
	}
	if db.opts.Clock != nil {
		db.commits = measure.NewDurations(time.Millisecond, 14)
	}
	o := db.pebbleOptions()
	o.Lock = lock
	db.disk.hurried.Store(true) // opening may wait for a compaction; a later look at the backlog ends the hurry
	if db.p, err = db.openIn(opts.Dir, o); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	// Pebble makes its MANIFEST with the first edit, and a checkpoint taken before
	// one is empty: the first flush is done even if there is nothing to flush.
	db.dirty = true
	// Pebble keeps a hold of its own.
	if err := lock.Close(); err != nil {
		return nil, errors.Join(err, db.p.Close())
	}
	return db, nil
}

func (db *DB) openIn(dir string, o *pebble.Options) (*pebble.DB, error) {
	if err := db.inspect(dir); err != nil {
		return nil, err
	}
	p, err := pebble.Open(dir, o)
	if err == nil {
		if failure := db.disk.failure(); failure != nil {
			return nil, errors.Join(failure, p.Close())
		}
		return p, nil
	}
	if missesTable.MatchString(err.Error()) && db.disk.failure() == nil {
		return nil, &engine.CorruptionError{File: db.fileOf(err), Offset: -1, Err: err}
	}
	return nil, db.named(err)
}

// Get is engine.Reader's.
func (db *DB) Get(key, buf []byte) ([]byte, error) { return db.getFrom(db.p, key, buf) }

func (db *DB) getFrom(r pebble.Reader, key, buf []byte) ([]byte, error) {
	checkKey(key)
	value, closer, err := r.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return buf, engine.ErrNotFound
		}
		return buf, db.named(err)
	}
	buf = append(buf, value...)
	return buf, closer.Close()
}

// Iter is engine.Reader's.
func (db *DB) Iter(lower, upper []byte) (engine.Iterator, error) {
	return db.iterate(db.p, lower, upper)
}

func (db *DB) iterate(r pebble.Reader, lower, upper []byte) (engine.Iterator, error) {
	checkBound(lower)
	checkBound(upper)
	if db.iterators.Add(1) > int64(db.opts.MaxIterators) {
		db.iterators.Add(-1)
		return nil, engine.ErrIterators
	}
	it, err := db.newIterator(r, lower, upper)
	if err != nil {
		db.iterators.Add(-1)
		return nil, err
	}
	return it, nil
}

// Durable is engine.Keeper's. It reads what the tables on disk have; of a store
// that has failed it says ErrFailed.
func (db *DB) Durable(key, buf []byte) ([]byte, error) {
	checkKey(key)
	it, err := db.p.NewIter(&pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil {
		return buf, db.named(err)
	}
	found := it.SeekPrefixGE(key) && keys.Equal(it.Key(), key)
	if found {
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			buf = append(buf, value...)
		}
	}
	if err = errors.Join(err, it.Close()); err == nil && !found {
		err = engine.ErrNotFound
	}
	// Asked last: what Pebble holds for durable is so only if nothing has failed.
	if failure := db.disk.failure(); failure != nil {
		return buf, failure
	}
	return buf, db.named(err)
}

// Metrics is engine.Keeper's.
func (db *DB) Metrics() engine.Metrics {
	m := db.p.Metrics()
	return engine.Metrics{
		DiskBytes:     int64(m.DiskSpaceUsage()),
		MemtableBytes: int64(m.MemTable.Size),
		StallBytes:    db.backlog(m),
		Iterators:     int(db.iterators.Load()),
	}
}

// Turn is env.Turner's: Pebble keeps house by itself.
func (db *DB) Turn(env.Instant) (worked bool, wake env.Instant) { return false, env.Never }

// Close is engine.DB's.
func (db *DB) Close() (err error) {
	open := db.iterators.Load()
	invariant.Check(open == 0, "store closed under %d open iterators", open)
	err = db.flushNow()
	close(db.disk.closed)
	if err == nil {
		return db.p.Close()
	}
	// After a failure in the middle of a step Pebble's own books may be open.
	defer func() {
		if r := recover(); r != nil {
			db.opts.Trouble(fmt.Sprint("closing a store that has failed: ", r))
		}
	}()
	return errors.Join(err, db.p.Close())
}
