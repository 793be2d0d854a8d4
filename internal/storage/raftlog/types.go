package raftlog

import (
	"errors"
	"strconv"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// Options say where the log lives and how large it grows.
type Options struct {
	FS    env.FS
	Dir   string
	Rand  env.Rand
	Tasks env.Tasks
	Clock env.Clock
	// FirstSegmentBytes and MaxSegmentBytes bound a segment: it begins at the
	// former (default 4 MB) and doubles to the latter (default 32 MB, docs/decisions/0007) (rule 8).
	FirstSegmentBytes, MaxSegmentBytes int64
	// CacheBytes limits what the store may keep in memory of entries already
	// written. This version keeps none, whatever it says: raft has its own recent
	// ones, and older ones are in the system's page cache.
	CacheBytes int
}

// Save is what one Output of one group wants persisted.
type Save struct {
	Group id.Group
	// Hard is the group's complete current hard state.
	Hard raft.HardState
	// Reset, when set, comes before Entries: the log is discarded and restarts
	// empty at a position (after a snapshot, or by rule 12).
	Reset *Reset
	// Entries are appended; whatever the log has from Entries[0].Index on is
	// replaced.
	Entries []raft.Entry
}

// Reset restarts a group's log empty.
type Reset struct {
	At        raft.Position
	Conf      raft.Conf
	ConfIndex id.Index
}

// Bounds are what a group's log holds: entries (Base.Index, Last.Index].
type Bounds struct {
	Base, Last raft.Position
}

// Recovered is what Open found of one group.
type Recovered struct {
	Group id.Group
	// Start has Hard, Conf, ConfIndex, Previous, Base, Terms, Last and Damaged
	// filled in; Tail and Applied are the host's to fill (rule 12).
	Start raft.Start
}

// ErrTrimmed: the entries asked for are no longer in the log.
var ErrTrimmed = errors.New("raftlog: entries are trimmed")

// DamageError names what was found damaged, where, and which groups it marks.
type DamageError struct {
	File   string
	Offset int64
	Reason string
}

// Error says what is damaged and where.
func (e *DamageError) Error() string {
	return "damaged log: " + e.Reason + " in " + e.File + " at offset " + strconv.FormatInt(e.Offset, 10)
}
