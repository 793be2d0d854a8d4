// Package engine is the embedded store behind a narrow interface: an ordered map
// of byte keys with atomic batches, consistent iterators and a flush whose
// completion is seen from a turn. What is on disk is always an exact prefix of
// the batches committed; nothing is synced by Commit, since the Raft log is the
// log (rules 7, 19-23, 28).
//
// Two bodies exist: engine/pebbledb on Pebble, and engine/memdb, a sorted one in
// memory with the same crash behaviour for seeded worlds with a trace hash.
package engine

import (
	"errors"

	"github.com/kvorum/kvorum/internal/env"
)

// ErrNotFound: the key is not there.
var ErrNotFound = errors.New("engine: not found")

// CorruptionError names the file in which damage was found.
type CorruptionError struct {
	File   string
	Offset int64
	Err    error
}

// Error says what is damaged and where.
func (e *CorruptionError) Error() string { return "damaged store: " + e.File + ": " + e.Err.Error() }

// Unwrap returns the engine's own error.
func (e *CorruptionError) Unwrap() error { return e.Err }

// Reader reads the latest committed state.
type Reader interface {
	// Get appends the key's value to buf. Errors: ErrNotFound, *CorruptionError.
	Get(key, buf []byte) ([]byte, error)
	// Iter returns an iterator over [lower, upper) that sees the state as of this
	// call, whatever is committed later. It must be closed soon (rule 23).
	Iter(lower, upper []byte) (Iterator, error)
}

// Iterator walks a range of keys in bytewise order of the builders' keys. Key
// and Value are valid until the next move.
type Iterator interface {
	// SeekGE moves to the first key at or after key, SeekLT to the last before it.
	SeekGE(key []byte) bool
	SeekLT(key []byte) bool
	Next() bool
	Prev() bool
	Row
}

// Row is where an iterator stands.
type Row interface {
	Valid() bool
	Key() []byte
	// Value reads the value; a keys-only walk need not call it.
	Value() ([]byte, error)
	// Err is what ended the walk early. Errors: *CorruptionError.
	Err() error
	Close() error
}

// Batch gathers writes; its bytes are copied in. A later write of a key wins.
type Batch interface {
	Set(key, value []byte)
	// Delete is an ordinary deletion; never a "single" one (rule 22).
	Delete(key []byte)
	// Bytes is about what the batch weighs; Reset empties it for use again.
	Bytes() int
	Reset()
	Close()
}

// DB is one open store.
type DB interface {
	Reader
	Writer
	Keeper
	Close() error
}

// Writer changes the store. Commits come from one goroutine (the applier's).
type Writer interface {
	NewBatch() Batch
	// Commit makes the batch visible at once and durable some time later, after
	// every batch before it (rule 20). The batch is empty again afterwards.
	Commit(b Batch) error
	// StartFlush begins to make everything committed so far durable, and returns.
	StartFlush() error
	// Turn does the store's own housekeeping (the memory body's flushes).
	env.Turner
}

// Keeper knows what is durable, and saves and installs whole groups.
type Keeper interface {
	// Durable appends the value that key has in the part that is guaranteed to
	// survive a power loss. Errors: ErrNotFound, *CorruptionError.
	Durable(key, buf []byte) ([]byte, error)
	// Checkpoint returns a frozen copy of everything committed so far, flushed
	// (rule 21). It is closed when the snapshot made from it is done with.
	Checkpoint(dir string) (Checkpoint, error)
	// Install replaces [lower, upper) by the sorted rows that next yields (until
	// ok is false) in one atomic, durable step. A flush is done first (rule 20).
	Install(lower, upper []byte, next func() (key, value []byte, ok bool)) error
	// Metrics are the store's sizes for status and metrics.
	Metrics() Metrics
}

// Checkpoint is a frozen copy of a store.
type Checkpoint interface {
	Reader
	Close() error
}

// Metrics are a store's sizes in bytes.
type Metrics struct {
	DiskBytes, MemtableBytes int64
	// StallBytes is the backlog that slows writers (level-0 and memtable debt).
	StallBytes int64
}
