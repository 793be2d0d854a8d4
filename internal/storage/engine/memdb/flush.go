package memdb

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/storage/engine"
)

// pollNanos is how soon a turn looks again whether a sync is done.
const pollNanos = 1_000_000

// replaceBytes is what a store file may always weigh before it is replaced.
const replaceBytes = 256 << 10

// point is a state of the store that a flush makes durable.
type point struct {
	root *node
	live int64
}

// flight is a flush under way. It has two syncs: of the file, then of its mark.
type flight struct {
	point
	marking  bool
	finished bool // the sync of this phase is done, with err
	err      error
}

// StartFlush is engine.Writer's: it marks what belongs to the flush, the turns
// do the work.
func (db *DB) StartFlush() error {
	if db.failed == nil {
		db.seal()
	}
	return db.failed
}

// seal moves what is committed to the part that the next flush writes.
func (db *DB) seal() {
	if len(db.pending) == 0 {
		return
	}
	db.sealed = append(db.sealed, db.pending...)
	db.pending, db.pendingBytes = nil, 0
	db.target = point{db.root.Load(), db.live}
}

// Turn starts a flush that is wanted or due, or takes one of the two steps that
// remain of one under way.
func (db *DB) Turn(now env.Instant) (worked bool, wake env.Instant) {
	if db.failed != nil {
		return false, env.Never
	}
	if db.flight == nil {
		if db.pendingBytes >= db.flushBytes {
			db.seal()
		}
		if len(db.sealed) == 0 {
			return false, env.Never
		}
		db.check(db.begin())
		return true, now + pollNanos
	}
	if !db.flight.finished {
		return false, now + pollNanos
	}
	db.check(db.proceed())
	return true, now + pollNanos
}

// begin writes what is sealed and starts to sync it.
func (db *DB) begin() error {
	if db.replace || db.file.size > 4*db.target.live+replaceBytes {
		return db.replaceFile()
	}
	if err := db.writeSealed(); err != nil {
		return err
	}
	db.flight = &flight{point: db.target}
	db.flight.start(func(done func(error)) { env.StartSync(db.file.f, true, done) })
	return nil
}

func (fl *flight) start(sync func(done func(error))) {
	fl.finished, fl.err = false, nil
	sync(func(err error) { fl.finished, fl.err = true, err })
}

// proceed takes the step after a sync.
func (db *DB) proceed() error {
	fl := db.flight
	if fl.err != nil {
		return fl.err
	}
	if fl.marking {
		db.flight = nil
		db.durable.Store(fl.root)
		return nil
	}
	fl.marking = true
	if err := db.file.mark.Write(db.file.promise()); err != nil {
		return err
	}
	fl.start(db.file.mark.StartSync)
	return nil
}

// flushNow makes everything committed durable before it returns. A flush under
// way is overtaken: its sync may still call back, to nobody.
func (db *DB) flushNow() error {
	if db.failed != nil {
		return db.failed
	}
	db.seal()
	if db.flight == nil && len(db.sealed) == 0 {
		return nil
	}
	db.flight = nil
	if db.replace {
		return db.check(db.replaceFile())
	}
	if err := db.check(db.writeSealed()); err != nil {
		return err
	}
	if err := db.check(db.file.settle()); err != nil {
		return err
	}
	db.durable.Store(db.target.root)
	return nil
}

func (db *DB) writeSealed() error {
	if len(db.sealed) == 0 {
		return nil
	}
	frame := appendFrame(nil, db.sealed...)
	db.sealed = nil
	defer db.measure()
	return db.file.write(frame)
}

// replaceFile goes over to a new file that holds the target and nothing else.
func (db *DB) replaceFile() error {
	db.sealed = nil
	next, err := newFile(db.fs, db.dir, db.number+1, db.target.root)
	if err != nil {
		return err
	}
	old, oldNumber := db.file, db.number
	db.file, db.number, db.replace = next, db.number+1, false
	db.durable.Store(db.target.root)
	db.measure()
	if old == nil {
		return nil
	}
	if err := old.close(); err != nil {
		return err
	}
	return removeFile(db.fs, db.fs.PathJoin(db.dir, fileName(oldNumber)))
}

// measure keeps the size of the file where any goroutine may read it.
func (db *DB) measure() { db.diskBytes.Store(db.file.size) }

// check remembers the first error of the disk; nothing is written afterwards.
func (db *DB) check(err error) error {
	if err != nil && db.failed == nil {
		db.failed = fmt.Errorf("%w: %w", engine.ErrFailed, err)
		db.flight = nil
	}
	return db.failed
}
