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
	"strconv"

	"github.com/kvorum/kvorum/internal/env"
)

// Errors of a store.
var (
	// ErrNotFound: the key is not there.
	ErrNotFound = errors.New("engine: not found")
	// ErrForeign: the directory holds something that is no store of this kind.
	// Nothing in it was touched.
	ErrForeign = errors.New("engine: the directory holds something else")
	// ErrIterators: too many iterators are open (rule 23). It passes when some
	// are closed.
	ErrIterators = errors.New("engine: too many open iterators")
	// ErrFailed marks the error of every write after the disk refused one, be it
	// full, broken or damaged. It is final: what was committed stays readable but
	// will not become durable, and the process must end. The cause is wrapped
	// beside it (errors.Is finds ENOSPC, errors.As a *CorruptionError).
	ErrFailed = errors.New("engine: the store has failed")
)

// CorruptionError names the file in which damage was found. Offset is where in
// the file, or -1 where that is not known.
type CorruptionError struct {
	File   string
	Offset int64
	Err    error
}

// Error says what is damaged and where.
func (e *CorruptionError) Error() string {
	where := e.File
	if e.Offset >= 0 {
		where += " at offset " + strconv.FormatInt(e.Offset, 10)
	}
	return "damaged store: " + where + ": " + e.Err.Error()
}

// Unwrap returns the engine's own error.
func (e *CorruptionError) Unwrap() error { return e.Err }

// Reader reads the latest committed state. Keys and bounds are made by the
// builders of engine/keys; anything else breaks an invariant. Any goroutine may
// read, also while another commits.
type Reader interface {
	// Get appends the key's value to buf. Errors: ErrNotFound, *CorruptionError.
	Get(key, buf []byte) ([]byte, error)
	// Iter returns an iterator over [lower, upper) that sees the state as of this
	// call, whatever is committed later; a nil bound is none. It must be closed
	// soon (rule 23). Bounds that lie around the versions of a single user key
	// (lower among them, upper AppendAfterUserKey) make a point read, which skips
	// the tables that cannot have the key. Errors: ErrIterators, *CorruptionError.
	Iter(lower, upper []byte) (Iterator, error)
}

// Iterator walks a range of keys in the order of keys.Compare. A new one stands
// nowhere: Next goes to the first row, Prev to the last. Having left the range
// at one end it comes back by the opposite move. Key and Value are valid until
// the next move or Close. An iterator belongs to one goroutine at a time.
type Iterator interface {
	// SeekGE moves to the first key at or after key, SeekLT to the last before it.
	SeekGE(key []byte) bool
	SeekLT(key []byte) bool
	// Bound gives the iterator another range, where it stands nowhere; it sees what it
	// saw. Rows that were deleted cost moves time as rows do, as far as they lie in the
	// range.
	Bound(lower, upper []byte)
	Steps
	Row
}

// Steps are the moves of an iterator from where it stands.
type Steps interface {
	Next() bool
	Prev() bool
	// NextPrefix moves from a row past all versions of its user key (keys.Split), at
	// less than a seek.
	NextPrefix() bool
}

// Row is where an iterator stands.
type Row interface {
	// Valid says whether there is a row here; Key and Value need one.
	Valid() bool
	Key() []byte
	// Value reads the value; a keys-only walk need not call it.
	Value() ([]byte, error)
	// Err is what ended the walk early: it must be asked when a move returns
	// false. Errors: *CorruptionError.
	Err() error
	// Close gives the iterator back; it must not be used again.
	Close() error
}

// Batch gathers writes; its bytes are copied in. A later write of a key wins.
// The zero number of writes is legal and commits nothing.
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
	// Close makes everything committed durable and ends the use of the store;
	// iterators and checkpoints must be closed before. A store that has failed is
	// closed without a flush, and Close says so.
	Close() error
}

// Writer changes the store. Commits come from one goroutine (the applier's), and
// so do all other calls of Writer and Keeper but Durable and Metrics.
type Writer interface {
	NewBatch() Batch
	// Commit makes the batch visible at once and durable some time later, after
	// every batch before it (rule 20). The batch is empty again afterwards. It
	// waits while the disk is far behind, never on a disk that has failed:
	// Metrics tells the backlog in time for the host to slow down first. Errors:
	// ErrFailed.
	Commit(b Batch) error
	// StartFlush begins to make everything committed so far durable, and returns;
	// Durable shows when it is. Errors: ErrFailed.
	StartFlush() error
	// Turn does the store's own housekeeping (the memory body's flushes).
	env.Turner
}

// Keeper knows what is durable, and saves and installs whole groups.
type Keeper interface {
	// Durable appends the value that key has in the part that is guaranteed to
	// survive a power loss. Errors: ErrNotFound, ErrFailed, *CorruptionError.
	Durable(key, buf []byte) ([]byte, error)
	// Checkpoint returns a frozen copy of everything committed so far, flushed
	// (rule 21). dir must not exist; it lies on the store's disk, holds what the
	// copy needs, and is removed when the checkpoint is closed. One left behind
	// by a crash is the caller's to remove. Errors: ErrFailed, *CorruptionError.
	Checkpoint(dir string) (Checkpoint, error)
	// Prepare begins to gather the rows that shall replace [lower, upper); nothing
	// changes before Commit. The bounds are keys without a version, such as a
	// group's. Any goroutine may call it.
	Prepare(lower, upper []byte) Installation
	// Metrics are the store's sizes for status and metrics.
	Metrics() Metrics
}

// Installation gathers rows on disk, beside the store, and puts them in the place
// of a span. What a crash leaves of it goes when the store is opened.
type Installation interface {
	// Add takes a row; rows are sorted, unique and inside the span. Any goroutine
	// may call it, one at a time, also while another commits to the store. After an
	// error, the file system's, the installation can only be closed.
	Add(key, value []byte) error
	// Seal says that no more rows come, and waits until those that came are on stable
	// storage; a disk that is full may be noticed only here. Otherwise as Add.
	Seal() error
	// Commit, after Seal, replaces the span by the rows in one atomic, durable step: after a
	// crash either all of the old rows are there or all of the new. A flush is done
	// and waited for first (rule 20). It is a call of Writer's goroutine. An error
	// leaves the span as it was. Errors: ErrFailed, *CorruptionError.
	Commit() error
	// Close gives up what was not committed and removes it.
	Close() error
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
	// Iterators counts the open ones (rule 23).
	Iterators int
}
