package engine_test

import (
	"errors"
	"fmt"
	"path"
	"sort"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// damaged lives a life, stops it cleanly and returns its disk and its content.
func damaged(t *testing.T, b body) (*simenv.Disk, model) {
	l := newLife(t, b, 7)
	for range 2 {
		must(t, l.run(120, func() bool { return false }))
		must(t, l.db.Close())
		var err error
		l.db, err = b.open(l.disk.Mount(), "data/store")
		must(t, err)
	}
	must(t, l.change())
	// Enough that does not compress for tables of many blocks.
	rows, batch := l.states[len(l.states)-1], l.db.NewBatch()
	for i := range 150 {
		key := keys.AppendVersion(nil, 1, fmt.Appendf(nil, "bulk%d", i), 1, 0)
		value := make([]byte, 500)
		for j := range value {
			value[j] = byte(l.rand.Uint64())
		}
		batch.Set(key, value)
		rows = rows.set(key, value)
	}
	must(t, l.db.Commit(batch))
	batch.Close()
	must(t, l.db.Close())
	return l.disk, rows
}

// examine opens a store and reads all of it, also by a checkpoint, and says what
// was noticed.
func examine(b body, disk *simenv.Disk, want model) error {
	db, err := b.open(disk.Mount(), "data/store")
	if err != nil {
		return err
	}
	err = sameRows(db, want)
	for i := 0; i < len(want) && err == nil; i++ {
		var value []byte
		if value, err = db.Get(want[i].key, nil); err == nil && string(value) != string(want[i].value) {
			err = errDiffers
		}
		if err == nil {
			err = pointRead(db, want[i])
		}
	}
	if err == nil {
		var cp engine.Checkpoint
		if cp, err = db.Checkpoint("save"); err == nil {
			err = errors.Join(sameRows(cp, want), cp.Close())
		}
	}
	return errors.Join(err, db.Close())
}

// pointRead seeks a row as a reader of one key does, by way of the filters.
func pointRead(db engine.DB, r row) error {
	it, err := db.Iter(r.key, keys.AppendImmediateSuccessor(nil, r.key[:keys.Split(r.key)]))
	if err != nil {
		return err
	}
	if !it.SeekGE(r.key) {
		if err = it.Err(); err == nil {
			err = errDiffers
		}
	} else if value, valueErr := it.Value(); valueErr != nil {
		err = valueErr
	} else if string(value) != string(r.value) {
		err = errDiffers
	}
	return errors.Join(err, it.Close())
}

// TestOneFlippedBitIsFoundAndNamed flips one bit in every part of every file of a
// store that was stopped cleanly: each byte of the small ones, each 4 KiB block of
// the tables several times. Either the damage is found and the file named, or the
// content is what it was: then those bytes are provably unused.
func TestOneFlippedBitIsFoundAndNamed(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		disk, want := damaged(t, b)
		found, unused := map[string]int{}, map[string]int{}
		for _, file := range disk.Files() {
			kind := kindOfFile(file)
			for _, at := range damagePoints(t, disk, file) {
				clone := disk.CrashClone(simenv.ProcessCrash, fmt.Sprint(file, at))
				must(t, clone.Flip(file, at, int(at%8)))
				err := examine(b, clone, want)
				var named *engine.CorruptionError
				switch {
				case err == nil:
					unused[kind]++
				case errors.Is(err, errDiffers):
					t.Errorf("%s, byte %d: wrong data was served: %v", file, at, err)
				case !errors.As(err, &named):
					t.Errorf("%s, byte %d: found, but not as damage: %v", file, at, err)
				case path.Base(named.File) != path.Base(file):
					t.Errorf("%s, byte %d: the damage was seen in %s: %v", file, at, named.File, err)
				default:
					found[kind]++
				}
			}
		}
		var kinds []string
		for kind := range found {
			kinds = append(kinds, kind)
		}
		for kind := range unused {
			if found[kind] == 0 {
				kinds = append(kinds, kind)
			}
		}
		sort.Strings(kinds)
		for _, kind := range kinds {
			t.Logf("%-12s %4d found and named, %4d unused", kind, found[kind], unused[kind])
		}
		// Of MANIFESTs the one before is kept as well, and no longer used.
		for _, kind := range []string{"sst", "store"} {
			if unused[kind] > 0 {
				t.Errorf("%s: %d flips were not noticed", kind, unused[kind])
			}
		}
		if unused["MANIFEST"] > found["MANIFEST"] {
			t.Error("most flips in MANIFESTs were not noticed")
		}
	})
}

func kindOfFile(file string) string {
	name := path.Base(file)
	switch {
	case strings.HasSuffix(name, ".synced"):
		return "mark"
	case strings.Contains(name, "."):
		return path.Ext(name)[1:]
	}
	name, _, _ = strings.Cut(name, "-")
	return name
}

func damagePoints(t *testing.T, disk *simenv.Disk, file string) (points []int64) {
	info, err := disk.Mount().Stat(file)
	must(t, err)
	size, step := info.Size(), int64(1)
	switch {
	case size > 1<<14:
		step = 1021
	case size > 1<<10:
		step = 127
	case size > 64:
		step = 7
	}
	if testing.Short() {
		step = 9*step + 1
	}
	for at := int64(0); at < size; at += step {
		points = append(points, at)
	}
	return points
}

// TestLostFilesAreMissed takes away each file that a store cannot do without.
func TestLostFilesAreMissed(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		disk, want := damaged(t, b)
		for _, file := range disk.Files() {
			clone := disk.CrashClone(simenv.ProcessCrash, file)
			must(t, clone.Mount().Remove(file))
			err := examine(b, clone, want)
			var named *engine.CorruptionError
			if err != nil && !errors.As(err, &named) || errors.Is(err, errDiffers) {
				t.Errorf("without %s: %v", file, err)
			}
		}
	})
}
