package engine_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

const never = simenv.OpRead | simenv.OpOpen | simenv.OpList

// TestRefusedWriteIsFinalAndLosesNothingDurable lets the disk refuse each of its
// operations in turn, once. If the store was hurt it says so at every later
// commit; after a power loss it holds a prefix, and all that it called durable.
func TestRefusedWriteIsFinalAndLosesNothingDurable(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		stride, failed, bore := int64(1), 0, 0
		if testing.Short() {
			stride = 4
		}
		for nth := int64(1); nth < 150; nth += stride {
			disk := simenv.NewDisk(uint64(nth), simenv.DiskOptions{FailedSyncCleans: true})
			disk.Inject(simenv.Fault{Ops: simenv.OpAny &^ never, Nth: nth, Err: syscall.EIO})
			l := &life{disk: disk, rand: simenv.NewRand(3, "life"), states: []model{nil}}
			var err error
			l.db, err = b.open(disk.Mount(), "data/store")
			if err == nil {
				err = l.run(60, func() bool { return false })
				if err != nil {
					l.checkFailed(t, nth, err)
					failed++
				} else {
					bore++
				}
				_ = l.db.Close()
			} else if !errors.Is(err, syscall.EIO) {
				t.Fatalf("operation %d refused: Open says %v", nth, err)
			}
			crashed := disk.CrashClone(simenv.PowerCrash, "after")
			db := reopen(t, b, crashed.Mount(), uint64(nth), simenv.PowerCrash)
			l.findState(t, db, l.durable)
			must(t, db.Close())
		}
		t.Logf("%d lives failed, %d bore it", failed, bore)
		if failed == 0 {
			t.Error("no refused operation was ever noticed")
		}
	})
}

// checkFailed says what a store that failed owes: the cause, again and again.
func (l *life) checkFailed(t *testing.T, nth int64, err error) {
	t.Helper()
	if errors.Is(err, errDiffers) {
		t.Fatalf("operation %d refused: %v", nth, err)
	}
	if !errors.Is(err, engine.ErrFailed) {
		// An install or a checkpoint may fail alone; the store then goes on.
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("operation %d refused: %v", nth, err)
		}
		return
	}
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("operation %d refused: the cause is not told: %v", nth, err)
	}
	for range 3 {
		if err := l.change(); !errors.Is(err, engine.ErrFailed) {
			t.Errorf("operation %d refused: a later commit says %v", nth, err)
		}
	}
	if err := l.db.StartFlush(); !errors.Is(err, engine.ErrFailed) {
		t.Errorf("operation %d refused: a later flush says %v", nth, err)
	}
	if _, err := l.db.Checkpoint("late"); !errors.Is(err, engine.ErrFailed) {
		t.Errorf("operation %d refused: a later checkpoint says %v", nth, err)
	}
	if err := l.install(); !errors.Is(err, engine.ErrFailed) {
		t.Errorf("operation %d refused: a later install says %v", nth, err)
	}
	l.states = l.states[:len(l.states)-1]
	if err := sameRows(l.db, l.states[len(l.states)-1]); err != nil && !errors.Is(err, errDiffers) {
		t.Errorf("operation %d refused: what is in memory cannot be read: %v", nth, err)
	}
}

// TestFullDiskIsHeardOf fills the disk: commits go on until the store has to
// write, then they say ENOSPC instead of waiting for room for ever.
func TestFullDiskIsHeardOf(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		disk := simenv.NewDisk(1, simenv.DiskOptions{Capacity: 6 << 20})
		db, err := b.open(disk.Mount(), "data/store")
		must(t, err)
		noise := simenv.NewRand(1, "noise")
		last, value := 0, make([]byte, 4096)
		for i := 1; err == nil; i++ {
			if i > 20_000 {
				t.Fatal("80 MB went onto a disk of 6 MB")
			}
			for j := range value {
				value[j] = byte(noise.Uint64())
			}
			batch := db.NewBatch()
			batch.Set(keys.AppendMeta(nil, 1, fmt.Sprintf("%06d", i)), value)
			batch.Set(meta(changeKey), fmt.Append(nil, i))
			if err = db.Commit(batch); err == nil {
				last = i
			}
			batch.Close()
			db.Turn(0)
			disk.CompleteDue(env.Never)
		}
		if !errors.Is(err, engine.ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("commit on a full disk: %v", err)
		}
		if got := read(t, db, changeKey); got != fmt.Sprint(last) {
			t.Errorf("%s is readable, %d was committed", got, last)
		}
		if err := db.Close(); !errors.Is(err, engine.ErrFailed) {
			t.Errorf("Close of a store that failed: %v", err)
		}
		// With room again the store opens, with a prefix.
		disk.SetCapacity(0)
		db, err = b.open(disk.Mount(), "data/store")
		must(t, err)
		var n int
		fmt.Sscan(read(t, db, changeKey), &n)
		if n > last {
			t.Errorf("%d changes are there, %d were committed", n, last)
		}
		for i := 1; i <= n; i++ {
			if read(t, db, fmt.Sprintf("%06d", i)) == "-" {
				t.Fatalf("change %d of %d is missing", i, n)
			}
		}
		must(t, db.Close())
	})
}

func TestSecondOpenIsRefused(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		fs := simenv.NewDisk(1, simenv.DiskOptions{}).Mount()
		db := mustOpen(t, b, fs)
		if _, err := b.open(fs, "store"); !errors.Is(err, env.ErrLocked) {
			t.Errorf("a second Open says %v", err)
		}
		put(t, db, "a", "1")
		must(t, db.Close())
		db = mustOpen(t, b, fs)
		if got := read(t, db, "a"); got != "1" {
			t.Errorf("a=%s", got)
		}
		must(t, db.Close())
	})
}

func TestForeignDirectoryIsLeftAlone(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		fs := vfs.NewMem()
		must(t, fs.MkdirAll("store", 0o755))
		f, err := fs.Create("store/holiday.jpg", env.Other)
		must(t, err)
		must(t, f.Close())
		if _, err := b.open(fs, "store"); !errors.Is(err, engine.ErrForeign) {
			t.Errorf("Open of a directory with a picture says %v", err)
		}
		names, err := fs.List("store")
		must(t, err)
		for _, name := range names {
			if name != "holiday.jpg" && name != "LOCK" {
				t.Errorf("%s was left there", name)
			}
		}
	})
}

func TestIteratorsAreCountedAndCapped(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		db := mustOpen(t, b, vfs.NewMem())
		put(t, db, "a", "1")
		var open []engine.Iterator
		for {
			it, err := db.Iter(nil, nil)
			if err != nil {
				if !errors.Is(err, engine.ErrIterators) {
					t.Errorf("one iterator too many: %v", err)
				}
				break
			}
			open = append(open, it)
		}
		if n := db.Metrics().Iterators; n != 50 || len(open) != 50 {
			t.Errorf("%d iterators are open, %d are counted, 50 are allowed", len(open), n)
		}
		for _, it := range open {
			must(t, it.Close())
		}
		it, err := db.Iter(nil, nil)
		must(t, err)
		mustViolate(t, "a store closed under an iterator", func() { db.Close() })
		must(t, it.Close())
		mustViolate(t, "an iterator closed twice", func() { it.Close() })
		must(t, db.Close())
	})
}

func mustViolate(t *testing.T, what string, do func()) {
	t.Helper()
	defer func() {
		if _, ok := recover().(invariant.Violation); !ok {
			t.Errorf("%s goes unnoticed", what)
		}
	}()
	do()
}

// TestOnlyBuildersMakeKeys is rule 19: bytes without the shape of a key would
// break the order of the store for ever.
func TestOnlyBuildersMakeKeys(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		db := mustOpen(t, b, vfs.NewMem())
		raw := []byte("raw")
		batch := db.NewBatch()
		mustViolate(t, "Set of a raw key", func() { batch.Set(raw, nil) })
		mustViolate(t, "Delete of a raw key", func() { batch.Delete(raw) })
		batch.Close()
		mustViolate(t, "Get of a raw key", func() { db.Get(raw, nil) })
		mustViolate(t, "Durable of a raw key", func() { db.Durable(raw, nil) })
		mustViolate(t, "a raw bound", func() { db.Iter(raw, nil) })
		mustViolate(t, "a raw upper bound", func() { db.Iter(nil, raw) })
		it, err := db.Iter(nil, nil)
		must(t, err)
		mustViolate(t, "SeekGE to a raw key", func() { it.SeekGE(raw) })
		mustViolate(t, "SeekLT to a raw key", func() { it.SeekLT(raw) })
		must(t, it.Close())
		must(t, db.Close())
	})
}

// TestInstallOutsideItsSpanIsRefused: a row that leaves the span, or is out of
// order, would hide or resurrect another group's rows.
func TestInstallOutsideItsSpanIsRefused(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		lower, upper := keys.AppendGroupStart(nil, 2), keys.AppendGroupEnd(nil, 2)
		give := func(names ...[]byte) func() (key, value []byte, ok bool) {
			return func() (key, value []byte, ok bool) {
				if len(names) == 0 {
					return nil, nil, false
				}
				key, names = names[0], names[1:]
				return key, nil, true
			}
		}
		second := func(name string) []byte { return keys.AppendMeta(nil, 2, name) }
		for what, do := range map[string]func(db engine.DB){
			"a row of another group": func(db engine.DB) { install(db, lower, upper, give(meta("a"))) },
			"unsorted rows":          func(db engine.DB) { install(db, lower, upper, give(second("b"), second("a"))) },
			"a row twice":            func(db engine.DB) { install(db, lower, upper, give(second("a"), second("a"))) },
			"a span upside down":     func(db engine.DB) { install(db, upper, lower, give()) },
		} {
			db := mustOpen(t, b, vfs.NewMem())
			mustViolate(t, what, func() { do(db) })
		}
	})
}
