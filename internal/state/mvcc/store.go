package mvcc

import (
	"bytes"
	"errors"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// State is what is known of a store besides its rows.
type State struct {
	// Revision is that of the last change; a new store is at 1.
	Revision id.Revision
	// Compacted is the revision below which history may not be read, -1 if there
	// was no compaction yet.
	Compacted id.Revision
	// Written counts the bytes of every version ever stored (rule 17: 256 + key +
	// value each), Removed those that compaction has removed from this replica.
	// The first is the same on every replica at the same position.
	Written, Removed int64
	// Freed is the latest compaction of which this replica has removed everything.
	Freed id.Revision
}

// Bytes is what the store holds, as rule 17 counts.
func (s State) Bytes() int64 { return s.Written - s.Removed }

// Store is the applier's side of the store. It is not safe for concurrent use.
//
// The applier calls Begin with an empty batch, then commands, then Finish, commits
// the batch, and says so by Committed; a command that fails has written nothing. An error that is
// none of package command's sentinels is damage: the replica cannot go on, and
// neither the batch nor the Store may be used again.
type Store struct {
	group   id.Group
	db      engine.DB
	now     State
	removal removal
	// mostRows bounds a slice of removal; see PaceRemoval.
	mostRows int
	leases   Leases
	readers  atomic.Int64
	done     Counts

	batch   engine.Batch
	past    pastRows
	over    overlay
	tips    tips
	rows    *rowCache // of readers; nil: there is none
	rowMost int       // its budget in bytes
	counts  counter
	events  ring
	points  engine.Iterator // of this batch, for keys read one by one
	sub     uint32          // changes of the command in hand
	changed bool

	low, high      []byte // bounds of all keys
	seek, row, key []byte
}

// Open reads what is known of a group's store; a group without rows is a new
// store. Errors: *DamageError.
func Open(group id.Group, db engine.DB) (*Store, error) {
	s := &Store{group: group, db: db, mostRows: mostRows, low: keys.AppendUserKey(nil, group, nil), high: keys.AppendDataEnd(nil, group)}
	s.events.budget = ringBudget
	return s, s.Reload()
}

// KeepTips gives the table of newest versions a budget in bytes; 0, as at first,
// is no table. It changes how fast commands are, and nothing else.
func (s *Store) KeepTips(budget int) {
	s.tips = newTips(budget)
	s.tips.complete = s.tips.most > 0 && s.now.Written == 0
}

// KeepRows gives the readers of single keys a cache of rows with a budget in bytes;
// 0, as at first, is none. Views made before do not have it.
func (s *Store) KeepRows(budget int) {
	s.rowMost = budget
	s.rows = newRowCache(budget)
}

// KeepEvents gives the ring of newest events another budget in bytes; it has
// the last event at least. What watches see does not depend on it.
func (s *Store) KeepEvents(budget int) { s.events.budget = budget }

// Reload reads it anew, after all rows of the group were replaced.
func (s *Store) Reload() error {
	s.tips.reset()
	s.rows = newRowCache(s.rowMost)
	if !defect.On(defect.FencesOutliveLoad) {
		s.counts.reset()
	}
	state := [...]int64{1, -1, 0}
	if err := s.meta(rowState, state[:]); err != nil {
		return err
	}
	progress := [...]int64{-1, -1, 0, 0, 0}
	if err := s.meta(rowRemoval, progress[:]); err != nil {
		return err
	}
	s.removal = removal{
		done: id.Revision(progress[0]), target: id.Revision(progress[1]),
		main: id.Revision(progress[2]), sub: uint32(progress[3]), bytes: progress[4],
	}
	s.now = State{Revision: id.Revision(state[0]), Compacted: id.Revision(state[1]), Written: state[2], Removed: s.removal.bytes, Freed: s.removal.done}
	if s.now.Revision < 1 || s.now.Compacted > s.now.Revision || s.removal.target > s.now.Compacted {
		return &DamageError{rowState, errRow}
	}
	if !defect.On(defect.RingOutlivesLoad) || s.events.low == 0 {
		s.events.reset(s.now.Revision + 1)
	}
	return nil
}

func (s *Store) meta(name string, numbers []int64) error {
	return readNumbers(s.db, s.group, name, numbers)
}

// readNumbers reads a row about the store as a whole; without it numbers stay.
func readNumbers(from engine.Reader, group id.Group, name string, numbers []int64) error {
	row, err := from.Get(keys.AppendMeta(nil, group, name), nil)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = decodeNumbers(row, numbers)
	}
	if err != nil {
		return &DamageError{name, err}
	}
	return nil
}

// State is the state with all that the batch in hand has done.
func (s *Store) State() State { return s.now }

// Begin starts a batch.
func (s *Store) Begin(batch engine.Batch) { s.batch, s.changed = batch, false }

// Finish adds the row of the state and ends the batch, which is then committed.
func (s *Store) Finish() error {
	if s.changed {
		s.row = appendNumbers(s.row[:0], int64(s.now.Revision), int64(s.now.Compacted), s.now.Written)
		s.key = keys.AppendMeta(s.key[:0], s.group, rowState)
		s.batch.Set(s.key, s.row)
	}
	if s.counts.saveDue() {
		s.saveFences(s.batch)
	}
	s.past.moveTo(s.batch)
	s.over.reset()
	s.batch = nil
	if s.points == nil {
		return nil
	}
	it := s.points
	s.points = nil
	return it.Close()
}

// Abandon gives back what a batch that failed holds of the engine, so that the
// engine can be closed. The Store may not be used again.
func (s *Store) Abandon() {
	if s.points != nil {
		s.points.Close() // the failure has been told already
		s.points = nil
	}
}

// find returns the version of key seen at rev; ok is false for none and for a
// tombstone. Its value is valid until the next read.
func (s *Store) find(key []byte, rev id.Revision) (v version, ok bool, err error) {
	if v := s.over.find(key, rev); v != nil {
		return *v, !v.dead, nil
	}
	if s.points == nil {
		it, err := s.db.Iter(s.low, s.high)
		if err != nil {
			return version{}, false, &DamageError{"of the keys", err}
		}
		s.points = it
	}
	s.seek = keys.AppendAtOrBelow(s.seek[:0], s.group, key, rev)
	if !s.points.SeekGE(s.seek) {
		if err := s.points.Err(); err != nil {
			return version{}, false, &DamageError{keys.Text(s.seek).String(), err}
		}
		return version{}, false, nil
	}
	at := s.points.Key()
	_, user, main, sub, decoded := keys.DecodeVersion(at)
	if !decoded {
		return version{}, false, &DamageError{keys.Text(at).String(), errRow}
	}
	if !bytes.Equal(user, key) {
		return version{}, false, nil
	}
	if v, err = versionAt(s.points, at, main, sub); err != nil {
		return version{}, false, err
	}
	return v, !v.dead, nil
}

// newest is find of the newest version, for those who need no value of it. What the
// engine said is remembered, a key that is not there like one that was deleted: who
// asks what a txn is to compare asks once more when it puts.
func (s *Store) newest(key []byte) (t tip, ok bool, err error) {
	if t := s.tips.get(key); t != nil {
		return *t, !t.dead, nil
	}
	if s.tips.complete {
		return tip{}, false, nil
	}
	v, ok, err := s.find(key, latest)
	if err != nil {
		return tip{}, false, err
	}
	v.dead = !ok
	s.tips.put(key, &v)
	return tipOf(&v), ok, nil
}

// scan is the reads of commands: they see what was written before them.
func (s *Store) scan(key, end []byte, rev id.Revision) (*scan, error) {
	if len(end) == 0 {
		v, ok, err := s.find(key, rev)
		if err != nil || !ok {
			return &scan{done: true}, err
		}
		return &scan{rev: rev, one: true, have: true, user: key, found: v}, nil
	}
	sc := &scan{group: s.group, rev: rev, open: s.db.Iter, over: &s.over, counted: s.counts.counted()}
	if err := sc.start(key, end); err != nil {
		return nil, &DamageError{"of the keys", err}
	}
	if !sc.done {
		if fromKey(end) {
			end = nil
		}
		sc.chains = s.over.within(key, end)
	}
	return sc, nil
}

// head is the revision that the command in hand has reached: one more than
// before it as soon as it has changed a key.
func (s *Store) head() id.Revision {
	if s.sub > 0 {
		return s.now.Revision + 1
	}
	return s.now.Revision
}

// settle ends a command that may have changed keys.
func (s *Store) settle() id.Revision {
	s.now.Revision = s.head()
	s.sub = 0
	return s.now.Revision
}

// write stores the next change of the command in hand: v, whose mod and sub are
// set here, and the change that it is from prev.
func (s *Store) write(key []byte, v *version, c *change) {
	v.mod, v.sub = s.now.Revision+1, s.sub
	if !v.dead && v.number == 1 {
		v.create = v.mod
	}
	s.row = appendVersion(s.row[:0], v)
	s.key = keys.AppendVersion(s.key[:0], s.group, key, v.mod, v.sub)
	s.batch.Set(s.key, s.row)
	if v.dead {
		s.rows.wrote(key, nil, v.mod)
	} else {
		s.rows.wrote(key, s.row, v.mod)
	}
	c.key, c.dead = key, v.dead
	s.events.add(key, s.row, v.mod, v.sub, c)
	s.past.add(s.group, c, v.mod, v.sub)
	s.over.add(key, v)
	s.tips.put(key, v)
	switch {
	case v.dead && (!defect.On(defect.CountForgetsDelete) || s.sub == 0):
		s.counts.record(v.mod, key, -1)
	case v.number == 1:
		s.counts.record(v.mod, key, 1)
	}
	s.now.Written += command.VersionCost(len(key), len(v.value))
	s.sub++
	s.changed = true
}
