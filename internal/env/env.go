// Package env is the outside world as a handful of small interfaces: the clock,
// randomness, background tasks and the file system. Everything below the
// assemblers (embed, sim) reaches the world through it and through nothing else
// (rule 31); that is what lets one seed replay a whole cluster.
//
// Two bodies exist: env/osenv is the real world, env/simenv a seeded one whose
// disks crash, tear, flip bits, fill up and stall.
package env

import (
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Instant is a point on a clock that only moves forward: nanoseconds since an
// arbitrary origin, the start of the process or of the world. Instants of
// different processes are not comparable.
type Instant int64

// Never is the wake-up time of a stage that waits for input only.
const Never Instant = math.MaxInt64

// Add returns the instant d later; Never stays Never.
func (i Instant) Add(d time.Duration) Instant {
	if i == Never {
		return Never
	}
	return i + Instant(d)
}

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Clock tells the time.
type Clock interface {
	// Now is monotonic: deadlines and time-outs are kept in it.
	Now() Instant
	// Wall is the calendar's time: it is only ever stamped on commands and
	// printed, never compared with a deadline.
	Wall() time.Time
}

// Rand is a source of randomness. The real one is cryptographically strong; the
// seeded one is a function of the world's seed.
type Rand interface {
	Uint64() uint64
	// Int64N returns a number in [0, n); n must be positive.
	Int64N(n int64) int64
}

// Tasks runs work that no stage should wait for, such as making a spare log
// segment or saving a snapshot.
type Tasks interface {
	// Go calls step until it reports that it is done. Each call is a bounded
	// slice of work (at most about 50 ms or 1 MB). The real body runs the calls
	// of one task on a goroutine of its own; the seeded one interleaves them
	// with everything else. Steps of one task never overlap.
	Go(name string, step func() (done bool))
}

// FS is the file system: Pebble's own interface, so that the engine and the log
// stand on one disk and share its faults (rule 27).
type FS = vfs.FS

// File is an open file of an FS.
type File = vfs.File

// A Syncer is a file that can sync its data without making its caller wait.
type Syncer interface {
	// StartSync begins a data sync (fdatasync) of everything written so far and
	// returns. done is called exactly once, with nil only when all of it is on
	// stable storage: before StartSync returns, from another goroutine (the real
	// body) or from another turn (the seeded body). An error is final: the process
	// must end, since a later sync proves nothing about this one.
	//
	// idle says that the caller has nothing to do meanwhile. The real body then
	// syncs before it returns, which is sooner known by the time of two changes of
	// thread; nothing else changes.
	StartSync(idle bool, done func(error))
}

// StartSync begins a data sync of f. A file that is no Syncer is synced at once.
func StartSync(f File, idle bool, done func(error)) {
	if s, ok := f.(Syncer); ok {
		s.StartSync(idle, done)
		return
	}
	done(f.SyncData())
}

// A Shrinker is a file whose end can be given back before the rest of it. A long file
// that is removed at once keeps the disk busy, and the syncs of others wait behind that.
type Shrinker interface {
	// Shrink cuts the file to a size, which is not above the one it has.
	Shrink(size int64) error
}

// WAL and Engine classify writes for the file system's statistics.
const (
	WAL    vfs.DiskWriteCategory = "kvorum-wal"
	Engine vfs.DiskWriteCategory = "kvorum-engine"
	Other  vfs.DiskWriteCategory = "kvorum-other"
)

// World bundles what one process is given at its birth.
type World struct {
	Clock Clock
	Rand  Rand
	Tasks Tasks
	FS    FS
}

// Turner is a stage or a duty: a plain struct driven by turns (decision 1).
// Turn does a bounded amount of work and never waits inside; worked says that
// another turn may find more to do, wake when a turn is due although nothing
// arrives (Never: only input wakes it).
type Turner interface {
	Turn(now Instant) (worked bool, wake Instant)
}
