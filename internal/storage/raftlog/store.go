package raftlog

import (
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// Store is the log of every group of one process. Its methods are called from
// the persister's turn only, but for Entries and Bounds, which any goroutine may
// call.
type Store struct{}

// Open recovers the log in opts.Dir, or makes an empty one. It ends with a data
// sync of everything that it read (rule 4). Torn last frames are cut silently
// (rule 2). Damage does not fail Open: it is told by Damage and marks every
// group (rule 5). Errors are those of the file system.
func Open(opts Options) (*Store, error) { panic("contract only") }

// Damage is what recovery found damaged, or nil.
func (s *Store) Damage() *DamageError { return nil }

// Groups lists what was recovered, in order of group number.
func (s *Store) Groups() []Recovered { return nil }

// Create records a new group with its first configuration; Remove records its
// end. Both are durable with the next StartSync.
func (s *Store) Create(group id.Group, conf raft.Conf) {}

// Remove records the end of a group; its number is never used again.
func (s *Store) Remove(group id.Group) {}

// Append stages what one Output wants persisted into the next frame.
func (s *Store) Append(save Save) {}

// Staged says whether the next StartSync has anything to write.
func (s *Store) Staged() bool { return false }

// StartSync writes all that is staged as one frame and begins its sync. done is
// called once; nil says that all of it is durable. At most one is under way:
// the next may be called after done. An error is final.
func (s *Store) StartSync(done func(error)) {}

// Entries reads entries [low, high] back, cut to about maxBytes but at least
// one. Errors: ErrTrimmed, *DamageError, the file system's.
func (s *Store) Entries(group id.Group, low, high id.Index, maxBytes int) ([]raft.Entry, error) {
	return nil, nil
}

// Bounds says what a group's log holds.
func (s *Store) Bounds(group id.Group) Bounds { return Bounds{} }

// Retain tells what the group still needs: entries up to durable are in the
// store's durable state, entries from keep on are wanted by followers. Segments
// that nobody needs are recycled or removed in later turns.
func (s *Store) Retain(group id.Group, durable, keep id.Index) (base raft.Position) {
	return raft.Position{}
}

// BytesAfter estimates how much log the group has written after index: what a
// restart would have to replay (rule 7).
func (s *Store) BytesAfter(group id.Group, index id.Index) int64 { return 0 }

// Turn does the log's own housekeeping: the seal after 100 ms without a frame
// (rule 2), removal and recycling of segments, spares.
func (s *Store) Turn(now env.Instant) (worked bool, wake env.Instant) { return false, env.Never }

// Close seals and syncs the log and closes its files. Nothing is under way.
func (s *Store) Close() error { return nil }
