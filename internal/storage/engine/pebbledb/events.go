package pebbledb

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvorum/kvorum/internal/invariant"
)

// logger is what Pebble talks to.
type logger struct{ db *DB }

// Infof is for what Pebble does all day; metrics tell it better.
func (l logger) Infof(string, ...any) {}

// Errorf passes on what went wrong without stopping Pebble.
func (l logger) Errorf(format string, args ...any) { l.db.opts.Trouble(fmt.Sprintf(format, args...)) }

// Fatalf ends what cannot go on. Pebble says so when the disk has refused a
// write to the MANIFEST: the disk has remembered that, nothing will be written
// any more, and the next commit hears of it, so Pebble may return to its caller.
// Anything else is a promise broken inside Pebble.
func (l logger) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.db.opts.Trouble(text)
	invariant.Check(l.db.disk.failure() != nil, "pebble: %s", text)
}

// listener hears of what concerns the host.
func (db *DB) listener() *pebble.EventListener {
	l := &pebble.EventListener{
		// A flush or compaction that failed, or met damage, is tried again by
		// Pebble for ever; the host must hear of it.
		BackgroundError: func(err error) {
			db.opts.Trouble(err.Error())
			_ = db.disk.fail(db.named(err))
		},
		// Damage is told by the error of the read or of the background work that
		// met it; Pebble's default is to end the process here.
		DataCorruption:    func(info pebble.DataCorruptionInfo) { db.opts.Trouble(info.String()) },
		PossibleAPIMisuse: func(info pebble.PossibleAPIMisuseInfo) { db.opts.Misuse(info.String()) },
		FlushEnd:          func(pebble.FlushInfo) { db.signalRoom() },
		CompactionEnd:     func(pebble.CompactionInfo) { db.signalRoom() },
	}
	l.EnsureDefaults(nil)
	return l
}

// signalRoom wakes a commit that waits for the disk to catch up.
func (db *DB) signalRoom() {
	select {
	case db.room <- struct{}{}:
	default:
	}
}
