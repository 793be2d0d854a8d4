package pebbledb

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// installTableBytes is about the size of one table that Install writes.
const installTableBytes = 32 << 20

// smoothBytes of a table are handed to the disk at a time, so that the sync at its
// end has little left and nobody else's sync waits long behind it.
const smoothBytes = 64 << 10

// installation is an engine.Installation: the rows go into tables of their own,
// which one edit of the MANIFEST then puts in the place of the whole span.
type installation struct {
	db           *DB
	lower, upper []byte
	paths        []string
	w            *sstable.Writer
	last         []byte
	sealed       bool
	unsound      bool // an Add or Seal has failed
}

// Prepare is engine.Keeper's.
func (db *DB) Prepare(lower, upper []byte) engine.Installation {
	for _, bound := range [][]byte{lower, upper} {
		checkBound(bound)
		invariant.Check(len(bound) > 0 && keys.Split(bound) == len(bound), "install: bound %s has a version", keys.Text(bound))
	}
	invariant.Check(keys.Compare(lower, upper) < 0, "an empty span to install")
	return &installation{db: db, lower: bytes.Clone(lower), upper: bytes.Clone(upper)}
}

// Add is engine.Installation's.
func (in *installation) Add(key, value []byte) error {
	if !in.fits(key) {
		invariant.Fail("install: row %s is out of place", keys.Text(key))
	}
	in.last = append(in.last[:0], key...)
	err := in.add(key, value)
	in.unsound = in.unsound || err != nil
	return err
}

func (in *installation) fits(key []byte) bool {
	return keys.Compare(in.lower, key) <= 0 && keys.Compare(key, in.upper) < 0 && keys.Valid(key) &&
		(in.last == nil || keys.Compare(in.last, key) < 0)
}

func (in *installation) add(key, value []byte) error {
	if in.w != nil && in.w.Raw().EstimatedSize() >= installTableBytes {
		if err := in.finish(); err != nil {
			return err
		}
	}
	if in.w == nil {
		if err := in.begin(); err != nil {
			return err
		}
	}
	return in.w.Set(key, value)
}

func (in *installation) begin() error {
	db := in.db
	// Not Pebble's view of the disk: a disk too full for the tables is no reason
	// to stop, they go away again.
	path := db.opts.FS.PathJoin(db.opts.Dir, fmt.Sprintf("%s%06d", installPrefix, db.installed.Add(1)))
	f, err := db.opts.FS.Create(path, env.Engine)
	if err != nil {
		return err
	}
	in.paths = append(in.paths, path)
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: smoothBytes})
	opts := db.pebbleOptions().MakeWriterOptions(6, db.p.TableFormat())
	in.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), opts)
	return nil
}

// Seal is engine.Installation's.
func (in *installation) Seal() error {
	err := in.finish()
	in.sealed, in.unsound = true, in.unsound || err != nil
	return err
}

// finish closes the present table, synced.
func (in *installation) finish() error {
	if in.w == nil {
		return nil
	}
	err := in.w.Close()
	in.w = nil
	return err
}

// Commit is engine.Installation's.
func (in *installation) Commit() error {
	db := in.db
	invariant.Check(in.sealed && !in.unsound, "install: a row is missing")
	if err := db.flushNow(); err != nil {
		return err
	}
	span := pebble.KeyRange{Start: in.lower, End: in.upper}
	_, err := db.p.IngestAndExcise(context.Background(), in.paths, nil, nil, span)
	if err == nil {
		in.paths = nil // Pebble has taken the tables over
		return db.disk.failure()
	}
	err = errors.Join(err, in.Close())
	if failure := db.disk.failure(); failure != nil {
		return failure
	}
	return db.named(err)
}

// Close is engine.Installation's.
func (in *installation) Close() (err error) {
	if in.w != nil {
		_ = in.w.Close() // it goes away, whatever is in it
		in.w = nil
	}
	for _, path := range in.paths {
		err = errors.Join(err, engine.RemoveIfThere(in.db.opts.FS, path))
	}
	in.paths, in.unsound = nil, true
	return err
}

// Checkpoint is engine.Keeper's: a directory of links to the tables.
func (db *DB) Checkpoint(dir string) (engine.Checkpoint, error) {
	if err := db.flushNow(); err != nil {
		return nil, err
	}
	err := db.p.Checkpoint(dir)
	if failure := db.disk.failure(); failure != nil {
		return nil, failure
	}
	if err != nil {
		return nil, db.named(err)
	}
	o := db.pebbleOptions()
	o.ReadOnly = true
	o.CacheSize = 4 << 20
	p, err := db.openIn(dir, o)
	if err != nil {
		return nil, errors.Join(err, db.disk.RemoveAll(dir))
	}
	return &checkpoint{db: db, p: p, dir: dir}, nil
}

type checkpoint struct {
	db  *DB
	p   *pebble.DB
	dir string
}

// Get is engine.Reader's.
func (c *checkpoint) Get(key, buf []byte) ([]byte, error) { return c.db.getFrom(c.p, key, buf) }

// Iter is engine.Reader's.
func (c *checkpoint) Iter(lower, upper []byte) (engine.Iterator, error) {
	return c.db.iterate(c.p, lower, upper)
}

// Close is engine.Checkpoint's.
func (c *checkpoint) Close() error {
	return errors.Join(c.p.Close(), c.db.disk.RemoveAll(c.dir))
}
