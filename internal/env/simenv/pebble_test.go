package simenv_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

type quiet struct{ t *testing.T }

func (quiet) Infof(string, ...any)                {}
func (quiet) Errorf(string, ...any)               {}
func (q quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func openPebble(t *testing.T, fs env.FS) *pebble.DB {
	t.Helper()
	return must[*pebble.DB](t)(pebble.Open("data/store", &pebble.Options{
		FS: fs, Logger: quiet{t}, MemTableSize: 64 << 10, // flush and compact often
		L0CompactionThreshold: 2,
	}))
}

// A store writes with its own log; the power fails at a random moment of its
// life, in its flushes and compactions too. Every synced write is there, and of
// the later ones a prefix; then the store lives on from there.
func TestPebbleSurvivesPowerLoss(t *testing.T) {
	n := 12
	if testing.Short() {
		n = 4
	}
	seeds(t, n, func(t *testing.T, seed uint64) {
		r := simenv.NewRand(seed, "pebble")
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		durable := 0 // the newest value of the key that was synced before the crash
		for range 3 {
			crashed := d.CrashCloneAt(1+uint64(r.Int64N(400)), simenv.Crash(r.Intn(2)), "life")
			db := openPebble(t, d.Mount())
			last := checkPebble(t, db, durable)
			for i := last + 1; crashed() == nil; i++ {
				batch := db.NewBatch()
				ok(t, batch.Set([]byte("last"), fmt.Append(nil, i), nil))
				ok(t, batch.Set(fmt.Appendf(nil, "%08d", i), make([]byte, r.Intn(4000)), nil))
				sync := pebble.NoSync
				if r.OneIn(3) {
					sync = pebble.Sync
				}
				ok(t, batch.Commit(sync))
				if sync == pebble.Sync && crashed() == nil {
					durable = i
				}
			}
			ok(t, db.Close())
			d = crashed()
		}
		db := openPebble(t, d.Mount())
		checkPebble(t, db, durable)
		ok(t, db.Close())
	})
}

// checkPebble says which value was written last; all before it must be there.
func checkPebble(t *testing.T, db *pebble.DB, durable int) (last int) {
	t.Helper()
	value, closer, err := db.Get([]byte("last"))
	if err == nil {
		fmt.Sscan(string(value), &last)
		ok(t, closer.Close())
	} else if !errors.Is(err, pebble.ErrNotFound) {
		t.Fatal(err)
	}
	if last < durable {
		t.Fatalf("write %d was synced, but the store ends at %d", durable, last)
	}
	for i := 1; i <= last; i++ {
		_, closer, err := db.Get(fmt.Appendf(nil, "%08d", i))
		if err != nil {
			t.Fatalf("write %d of %d: %v", i, last, err)
		}
		ok(t, closer.Close())
	}
	return last
}
