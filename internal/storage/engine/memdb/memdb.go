// Package memdb is the engine's second body: a sorted tree in memory that obeys
// the same contract as the first, Pebble, and crashes like it (rule 28). What a
// power loss leaves is the prefix of the batches committed at the last flush
// that was completed; a flush begins, and is completed, in turns.
//
// It serves seeded worlds whose trace is hashed: it starts no goroutine and its
// behaviour is a function of its calls. Everything that is durable lies in one
// file on the world's file system, so the world's crashes and faults apply to it
// and damage in it is found and named.
package memdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/syncmark"
)

// Defaults of Options.
const (
	DefaultFlushBytes   = 1 << 20
	DefaultMaxIterators = 1024
)

// Options say where the store lives and when it flushes.
type Options struct {
	FS  env.FS
	Dir string
	// FlushBytes of committed batches make a turn flush unasked (default 1 MB).
	FlushBytes int
	// MaxIterators is how many may be open at once (default 1024).
	MaxIterators int
}

// DB is an open store. It implements engine.DB.
type DB struct {
	fs     env.FS
	dir    string
	lock   io.Closer
	file   *file
	number uint64

	flushBytes   int
	maxIterators int64
	iterators    atomic.Int64

	// root is what readers see, durable what a power loss leaves. Both are
	// published trees, which never change.
	root, durable atomic.Pointer[node]
	edits         uint64
	live          int64

	// pending are the operations committed since the last flush was asked for,
	// sealed those that wait for one or are being written: they lead to target.
	pending      [][]byte
	pendingBytes int
	sealed       [][]byte
	target       point
	flight       *flight
	diskBytes    atomic.Int64
	memoryBytes  atomic.Int64
	// replace asks for a new file at the next flush: the end of the present one
	// is torn.
	replace bool
	failed  error
}

var _ engine.DB = (*DB)(nil)

// Open opens the store in opts.Dir, or makes an empty one. What it reads is
// durable when it returns (rule 4). Errors: env.ErrLocked, engine.ErrForeign,
// *engine.CorruptionError, the file system's.
func Open(opts Options) (*DB, error) {
	db := &DB{fs: opts.FS, dir: opts.Dir, flushBytes: opts.FlushBytes, maxIterators: int64(opts.MaxIterators)}
	if db.flushBytes <= 0 {
		db.flushBytes = DefaultFlushBytes
	}
	if db.maxIterators <= 0 {
		db.maxIterators = DefaultMaxIterators
	}
	if err := engine.MakeDir(db.fs, db.dir); err != nil {
		return nil, err
	}
	lock, err := db.fs.Lock(db.fs.PathJoin(db.dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", db.dir, err)
	}
	db.lock = lock
	if err := db.load(); err != nil {
		if db.file != nil {
			err = errors.Join(err, db.file.close())
		}
		return nil, errors.Join(err, lock.Close())
	}
	return db, nil
}

func (db *DB) load() error {
	newest, leftovers, err := scan(db.fs, db.dir)
	if err != nil {
		return err
	}
	e := db.edit()
	if db.number = newest; newest > 0 {
		path := db.fs.PathJoin(db.dir, fileName(newest))
		if db.file, db.replace, err = recoverFile(db.fs, path, e); err != nil {
			return err
		}
	}
	if newest == 0 {
		if err := missing(db.fs, leftovers); err != nil {
			return err
		}
	}
	// Only now: where the newest file is damaged, nothing is touched.
	for _, path := range leftovers {
		if err := engine.RemoveIfThere(db.fs, path); err != nil {
			return err
		}
	}
	if newest == 0 {
		if err := db.replaceFile(); err != nil {
			return err
		}
	}
	if err := engine.SyncDir(db.fs, db.dir); err != nil {
		return err
	}
	db.publish(e)
	db.durable.Store(e.root)
	db.measure()
	return nil
}

func removeFile(fs env.FS, path string) error {
	for _, p := range []string{path, path + syncmark.Suffix} {
		if err := engine.RemoveIfThere(fs, p); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) edit() *edit {
	db.edits++
	return &edit{root: db.root.Load(), born: db.edits}
}

func (db *DB) publish(e *edit) {
	db.live += e.bytes
	db.memoryBytes.Store(db.live)
	db.root.Store(e.root)
}

// Get is engine.Reader's.
func (db *DB) Get(key, buf []byte) ([]byte, error) { return getFrom(db.root.Load(), key, buf) }

// Durable is engine.Keeper's.
func (db *DB) Durable(key, buf []byte) ([]byte, error) { return getFrom(db.durable.Load(), key, buf) }

func getFrom(root *node, key, buf []byte) ([]byte, error) {
	checkKey(key)
	n := get(root, key)
	if n == nil {
		return buf, engine.ErrNotFound
	}
	return append(buf, n.value...), nil
}

// Iter is engine.Reader's.
func (db *DB) Iter(lower, upper []byte) (engine.Iterator, error) {
	return db.iterate(db.root.Load(), lower, upper)
}

func (db *DB) iterate(root *node, lower, upper []byte) (engine.Iterator, error) {
	checkBound(lower)
	checkBound(upper)
	if db.iterators.Add(1) > db.maxIterators {
		db.iterators.Add(-1)
		return nil, engine.ErrIterators
	}
	closed := func() { db.iterators.Add(-1) }
	return newIterator(root, bytes.Clone(lower), bytes.Clone(upper), closed), nil
}

// NewBatch is engine.Writer's.
func (db *DB) NewBatch() engine.Batch { return &batch{} }

// Commit is engine.Writer's.
func (db *DB) Commit(b engine.Batch) error {
	if db.failed != nil {
		return db.failed
	}
	mine := b.(*batch)
	if len(mine.ops) == 0 {
		return nil
	}
	// The tree and the pending frame keep these bytes; the batch is used again.
	ops := bytes.Clone(mine.ops)
	mine.Reset()
	db.commit(ops)
	return nil
}

func (db *DB) commit(ops []byte) {
	e := db.edit()
	err := e.apply(ops)
	invariant.Check(err == nil, "a batch of our own does not decode: %v", err)
	db.publish(e)
	db.pending = append(db.pending, ops)
	db.pendingBytes += len(ops)
}

// installation is an engine.Installation: one batch that begins with a cut.
type installation struct {
	db           *DB
	lower, upper []byte
	ops, last    []byte
}

// Prepare is engine.Keeper's.
func (db *DB) Prepare(lower, upper []byte) engine.Installation {
	invariant.Check(keys.Compare(lower, upper) < 0, "an empty span to install")
	return &installation{db: db, lower: bytes.Clone(lower), upper: bytes.Clone(upper), ops: appendOp(nil, opCut, lower, upper)}
}

// Add is engine.Installation's.
func (in *installation) Add(key, value []byte) error {
	inside := keys.Compare(in.lower, key) <= 0 && keys.Compare(key, in.upper) < 0
	invariant.Check(inside && (in.last == nil || keys.Compare(in.last, key) < 0), "row %s is out of place", keys.Text(key))
	in.ops = appendOp(in.ops, opSet, key, value)
	in.last = append(in.last[:0], key...)
	return nil
}

// Seal is engine.Installation's.
func (in *installation) Seal() error { return nil }

// Commit is engine.Installation's.
func (in *installation) Commit() error {
	db := in.db
	if err := db.flushNow(); err != nil {
		return err
	}
	was := db.root.Load()
	db.commit(in.ops)
	in.ops = nil
	if err := db.flushNow(); err != nil {
		db.root.Store(was)
		return err
	}
	return nil
}

// Close is engine.Installation's.
func (in *installation) Close() error {
	in.ops = nil
	return nil
}

// Checkpoint is engine.Keeper's. The copy is a version of the tree: dir stays
// unused.
func (db *DB) Checkpoint(string) (engine.Checkpoint, error) {
	if err := db.flushNow(); err != nil {
		return nil, err
	}
	return &checkpoint{db: db, root: db.root.Load()}, nil
}

type checkpoint struct {
	db   *DB
	root *node
}

// Get is engine.Reader's.
func (c *checkpoint) Get(key, buf []byte) ([]byte, error) { return getFrom(c.root, key, buf) }

// Iter is engine.Reader's.
func (c *checkpoint) Iter(lower, upper []byte) (engine.Iterator, error) {
	return c.db.iterate(c.root, lower, upper)
}

// Close is engine.Checkpoint's.
func (c *checkpoint) Close() error {
	c.root = nil
	return nil
}

// Metrics is engine.Keeper's. The whole tree counts as memtable.
func (db *DB) Metrics() engine.Metrics {
	return engine.Metrics{
		DiskBytes:     db.diskBytes.Load(),
		MemtableBytes: db.memoryBytes.Load(),
		Iterators:     int(db.iterators.Load()),
	}
}

// Close is engine.DB's.
func (db *DB) Close() error {
	open := db.iterators.Load()
	invariant.Check(open == 0, "store closed under %d open iterators", open)
	err := db.flushNow()
	return errors.Join(err, db.file.close(), db.lock.Close())
}
