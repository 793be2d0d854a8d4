package engine_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
)

// body is one implementation of the engine under test.
type body struct {
	name string
	open func(fs env.FS, dir string) (engine.DB, error)
}

func bodies(t testing.TB) []body {
	return []body{
		{"pebble", func(fs env.FS, dir string) (engine.DB, error) {
			return noNil(pebbledb.Open(pebbledb.Options{
				FS: fs, Dir: dir, MaxIterators: 50, MemtableBytes: 1 << 20, CacheBytes: 1 << 20,
				Misuse: func(text string) { t.Error("misuse of Pebble:", text) },
			}))
		}},
		{"memory", func(fs env.FS, dir string) (engine.DB, error) {
			return noNil(memdb.Open(memdb.Options{FS: fs, Dir: dir, MaxIterators: 50}))
		}},
	}
}

// noNil keeps a nil *DB from becoming a DB that is not nil.
func noNil[D engine.DB](db D, err error) (engine.DB, error) {
	if err != nil {
		return nil, err
	}
	return db, nil
}

// eachBody runs a story against both bodies on a fresh disk.
func eachBody(t *testing.T, story func(t *testing.T, b body)) {
	for _, b := range bodies(t) {
		t.Run(b.name, func(t *testing.T) { story(t, b) })
	}
}

func mustOpen(t testing.TB, b body, fs env.FS) engine.DB {
	t.Helper()
	db, err := b.open(fs, "store")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func meta(name string) []byte { return keys.AppendMeta(nil, 1, name) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put commits one batch of rows given as name, value, name, value.
func put(t testing.TB, db engine.DB, rows ...string) {
	t.Helper()
	b := db.NewBatch()
	defer b.Close()
	for i := 0; i < len(rows); i += 2 {
		b.Set(meta(rows[i]), []byte(rows[i+1]))
	}
	must(t, db.Commit(b))
}

func read(t testing.TB, r engine.Reader, name string) string {
	t.Helper()
	return text(t)(r.Get(meta(name), nil))
}

func text(t testing.TB) func(value []byte, err error) string {
	return func(value []byte, err error) string {
		t.Helper()
		if errors.Is(err, engine.ErrNotFound) {
			return "-"
		}
		must(t, err)
		return string(value)
	}
}

// durable turns the store until name has value in its durable part.
func waitDurable(t testing.TB, db engine.DB, name, value string) {
	t.Helper()
	for range 1_000_000 {
		db.Turn(0)
		if text(t)(db.Durable(meta(name), nil)) == value {
			return
		}
	}
	t.Fatalf("%s=%s does not become durable", name, value)
}

// install puts the rows that next yields in the place of a span.
func install(db engine.DB, lower, upper []byte, next func() (key, value []byte, ok bool)) error {
	in := db.Prepare(lower, upper)
	for {
		key, value, ok := next()
		if !ok {
			break
		}
		if err := in.Add(key, value); err != nil {
			return errors.Join(err, in.Close())
		}
	}
	if err := in.Seal(); err != nil {
		return errors.Join(err, in.Close())
	}
	return errors.Join(in.Commit(), in.Close())
}

func TestLaterWriteWins(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		db := mustOpen(t, b, vfs.NewMem())
		defer func() { must(t, db.Close()) }()
		batch := db.NewBatch()
		batch.Set(meta("a"), []byte("1"))
		batch.Delete(meta("a"))
		batch.Set(meta("b"), []byte("1"))
		batch.Set(meta("b"), []byte("2"))
		batch.Set(meta("c"), []byte("1"))
		if batch.Bytes() < 10 {
			t.Errorf("a batch of five writes weighs %d bytes", batch.Bytes())
		}
		must(t, db.Commit(batch))
		if batch.Bytes() != 0 {
			t.Errorf("a batch that was committed weighs %d bytes", batch.Bytes())
		}
		batch.Set(meta("c"), []byte("dropped"))
		batch.Reset()
		batch.Delete(meta("c"))
		must(t, db.Commit(batch))
		must(t, db.Commit(batch)) // empty
		batch.Close()
		got := fmt.Sprint(read(t, db, "a"), read(t, db, "b"), read(t, db, "c"))
		if got != "-2-" {
			t.Errorf("a, b, c are %s, want -2-", got)
		}
		value, err := db.Get(meta("b"), []byte("front "))
		if must(t, err); string(value) != "front 2" {
			t.Errorf("Get made %q of its buffer", value)
		}
	})
}

func TestDurableFollowsTheFlush(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		fs := vfs.NewMem()
		db := mustOpen(t, b, fs)
		put(t, db, "a", "1")
		if got := text(t)(db.Durable(meta("a"), nil)); got != "-" {
			t.Errorf("a=%s is durable before any flush", got)
		}
		must(t, db.StartFlush())
		put(t, db, "a", "2")
		waitDurable(t, db, "a", "1")
		if got := read(t, db, "a"); got != "2" {
			t.Errorf("a=%s, want 2", got)
		}
		must(t, db.StartFlush())
		waitDurable(t, db, "a", "2")
		put(t, db, "a", "3")
		must(t, db.Close())
		db = mustOpen(t, b, fs)
		if got := read(t, db, "a"); got != "3" {
			t.Errorf("after a clean stop a=%s, want 3", got)
		}
		must(t, db.Close())
	})
}
