package pebbledb

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"regexp"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/syncmark"
)

// installPrefix is of tables on their way into the store; a crash may leave some.
const installPrefix = "install-"

var (
	errNoManifest = errors.New("the directory has tables but does not say which are in use")
	errNoFormat   = errors.New("the directory has tables but does not say in which format")
)

// pebblesFile are the names that Pebble gives files when it makes a store, before
// there is anything to lose.
var pebblesFile = regexp.MustCompile(`^(LOCK|MANIFEST-\d+(\.synced)?|OPTIONS-\d+|\d+\.(log|sst|dbtmp)|temporary\.\d+\.dbtmp|marker\..*|install-.*)$`)

// inspect looks at a directory before Pebble does, finds what Pebble would take
// for harmless, and makes durable what a killed process left unsynced (rule 4).
func (db *DB) inspect(dir string) error {
	fs := db.opts.FS
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	desc, err := pebble.Peek(dir, fs)
	if err != nil {
		return &engine.CorruptionError{File: dir, Offset: -1, Err: err}
	}
	tables := false
	for _, name := range names {
		if !desc.Exists && !pebblesFile.MatchString(name) {
			return fmt.Errorf("%w: %s", engine.ErrForeign, fs.PathJoin(dir, name))
		}
		tables = tables || strings.HasSuffix(name, ".sst")
		if strings.HasPrefix(name, installPrefix) {
			if err := fs.Remove(fs.PathJoin(dir, name)); err != nil {
				return err
			}
		}
	}
	if !desc.Exists {
		if tables {
			return &engine.CorruptionError{File: dir, Offset: -1, Err: errNoManifest}
		}
		return nil
	}
	if tables && desc.FormatMajorVersion == pebble.FormatDefault {
		return &engine.CorruptionError{File: dir, Offset: -1, Err: errNoFormat}
	}
	if desc.OptionsFilename != "" {
		if err := db.checkOptions(dir, desc.OptionsFilename); err != nil {
			return err
		}
	}
	return settleManifest(fs, dir, desc.ManifestFilename)
}

// checkOptions reads the last OPTIONS file as Pebble will, so that an error in it
// can be told from others.
func (db *DB) checkOptions(dir, path string) error {
	data, err := engine.ReadFile(db.opts.FS, path)
	if err != nil {
		return err
	}
	if err := db.pebbleOptions().CheckCompatibility(dir, string(data)); err != nil {
		return &engine.CorruptionError{File: path, Offset: -1, Err: err}
	}
	return nil
}

// settleManifest refuses a MANIFEST that does not keep its promise, then makes
// durable and promises all of it that can be read: it may hold an edit that a
// killed process wrote and did not sync, and Pebble will build on it.
func settleManifest(fs env.FS, dir, path string) error {
	data, err := engine.ReadFile(fs, path)
	if err != nil {
		return &engine.CorruptionError{File: path, Offset: -1, Err: err}
	}
	mark, err := syncmark.Open(fs, path)
	if err != nil {
		return err
	}
	err = func() error {
		promise, err := mark.Load(path)
		if err != nil {
			return err
		}
		good := goodRecords(data)
		if good < promise.Length || !promise.Check(data) {
			return &engine.CorruptionError{File: path, Offset: good, Err: syncmark.ErrPromise}
		}
		f, err := fs.OpenReadWrite(path, env.Engine)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		if good > promise.Length {
			next := syncmark.Promise{Length: good, Sum: crc32.Checksum(data[:good], syncmark.Table)}
			if err := mark.Write(next); err != nil {
				return err
			}
		}
		return mark.Sync()
	}()
	if err = errors.Join(err, mark.Close()); err != nil {
		return err
	}
	return engine.SyncDir(fs, dir)
}

// goodRecords returns where the last whole record of a MANIFEST ends.
func goodRecords(data []byte) (end int64) {
	r := record.NewReader(strings.NewReader(string(data)), 0)
	for {
		rec, err := r.Next()
		if err != nil {
			return end
		}
		if _, err := io.Copy(io.Discard, rec); err != nil {
			return end
		}
		end = r.Offset()
	}
}

// namedFile finds what Pebble says of a file in the text of an error: a name, or
// a level and a table's number.
var (
	namedFile = regexp.MustCompile(`(MANIFEST-\d+|OPTIONS-\d+|\d{6,}\.(?:sst|log))`)
	// missesTable begins the complaint about a table that is gone or has another
	// size than the MANIFEST says; Pebble does not call it corruption.
	missesTable = regexp.MustCompile(`^L\d: \d{6,}`)
	namedTable  = regexp.MustCompile(`(?:L\d: |file |table )(\d{6,})`)
)

// named turns Pebble's report of damage into ours.
func (db *DB) named(err error) error {
	if err == nil || errors.Is(err, engine.ErrFailed) || !pebble.IsCorruptionError(err) {
		return err
	}
	var already *engine.CorruptionError
	if errors.As(err, &already) {
		return err
	}
	damage := &engine.CorruptionError{File: db.fileOf(err), Offset: -1, Err: err}
	db.opts.Damaged(damage)
	return damage
}

func (db *DB) fileOf(err error) string {
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return info.Path
	}
	text := err.Error()
	if m := namedFile.FindStringSubmatch(text); m != nil {
		return db.opts.FS.PathJoin(db.opts.Dir, m[1])
	}
	if m := namedTable.FindStringSubmatch(text); m != nil {
		return db.opts.FS.PathJoin(db.opts.Dir, m[1]+".sst")
	}
	return db.opts.Dir
}
