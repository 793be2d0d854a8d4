package state

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/alarm"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/lease"
	"github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// ErrTermOver refuses a duty that was made in another term than the one in which
// it stands in the log (rule 14).
var ErrTermOver = errors.New("state: duty of a term that is over")

// ClusterVersion is the newest cluster version whose commands this program
// obeys.
var ClusterVersion = command.Version{Major: 3, Minor: 7}

// Machine is the state of one group. All methods but View belong to the
// applier's goroutine. The first error that is not a refusal of a command is
// final: every later Apply returns it.
type Machine struct {
	group id.Group
	db    engine.DB
	dir   string // checkpoints are made inside
	saves int

	mark    raft.Position
	loaded  *raft.PlacedConf // if the mark is that of a loaded snapshot: what came with it
	store   *mvcc.Store
	leases  *lease.Table
	members member.Table
	alarms  alarm.Table
	auth    *auth.Table
	tokens  *auth.Tokens
	check   auth.Check // of cmd
	batch   engine.Batch
	cmd     command.Command
	entry   id.Index // of cmd
	grown   id.Index // the latest command that cost space
	failed  error
	// excused is View.Excused of all members; a change makes a new one.
	excused map[id.Member]id.Index

	counts Counts

	view atomic.Pointer[View]
	// published is told of every view that was published.
	published atomic.Pointer[func()]
	loads     uint64
	ask       func() mvcc.Horizon // horizon, bound once

	// restUntil is when the next slice of removal may begin; slices counts them.
	restUntil env.Instant
	slices    uint
	hurry     atomic.Int32 // how many wait for the end of removal
	// removalRest is the pause that PaceRemoval asks for.
	removalRest time.Duration

	markKey, markRow []byte
	// owed and shown serve the defects MarkOutsideBatch and CompactLate.
	owed  bool
	shown id.Revision
	// ahead serves the defect EventBeforeView: what watches see and readers do not.
	ahead atomic.Pointer[View]
}

// Open reads the state of a group from the store. dir is where Freeze makes its
// checkpoints, on the store's disk; what a crash left in it is the caller's to
// remove before. Errors: *mvcc.DamageError, *engine.CorruptionError.
func Open(group id.Group, db engine.DB, dir string) (*Machine, error) {
	m := &Machine{group: group, db: db, dir: dir, batch: db.NewBatch(), markKey: keys.AppendMeta(nil, group, rowMark), tokens: auth.NewTokens(), removalRest: removalRest}
	m.ask = m.horizon
	m.check = auth.Check{Strict: true, Keys: m.attached}
	var err error
	if m.store, err = mvcc.Open(group, db); err != nil {
		return nil, err
	}
	m.counts.init(m.store.Counts())
	if m.leases, err = lease.Open(group, db); err != nil {
		return nil, damagedLeases(err)
	}
	m.store.Heed(m.leases)
	if err := m.reload(); err != nil {
		return nil, err
	}
	m.publish()
	return m, nil
}

// KeepTips gives the applier a table of the newest versions of keys, of so many
// bytes (rule 24); 0, as at first, is none. Answers and rows do not depend on it.
func (m *Machine) KeepTips(budget int) { m.store.KeepTips(budget) }

// KeepRows gives the readers of single keys a cache of so many bytes; 0, as at
// first, is none. Answers do not depend on it.
func (m *Machine) KeepRows(budget int) {
	m.store.KeepRows(budget)
	m.publish()
}

// KeepCounts makes the state count its keys, in leaves of so many rows (mvcc.Store.KeepCounts);
// 0, as at first, is no counting. Answers and hashes do not depend on it.
func (m *Machine) KeepCounts(rows int) {
	m.store.KeepCounts(rows)
	m.publish()
}

// PaceRemoval has a step of the removal of what compactions freed look at no more than
// so many changes (below 1: mvcc.Store's own number), and gives the pause between two
// steps, up to 1 s (0: the usual). Whoever hurries removal waits for one such pause at
// most. It is the replica's own affair; call it before any turn.
func (m *Machine) PaceRemoval(changes int, rest time.Duration) {
	m.store.PaceRemoval(changes)
	m.removalRest = min(rest, longestRest)
	if rest == 0 {
		m.removalRest = removalRest
	}
}

// KeepEvents gives the ring of newest events another budget in bytes; what watches
// see does not depend on it.
func (m *Machine) KeepEvents(budget int) { m.store.KeepEvents(budget) }

// OnPublish has f called after each view that is published, in the applier's turn
// and before anything that the view shows is acknowledged. f must not wait. There is
// one f; any goroutine may set it.
func (m *Machine) OnPublish(f func()) { m.published.Store(&f) }

// reload reads what is kept in memory whole: mark, members, alarms, users and roles.
func (m *Machine) reload() (err error) {
	if m.mark, m.loaded, err = readMark(m.db.Get, m.markKey); err != nil {
		return err
	}
	if m.members, err = member.Load(m.group, m.db); err != nil {
		return fmt.Errorf("state: members: %w", err)
	}
	if m.alarms, err = alarm.Load(m.group, m.db); err != nil {
		return fmt.Errorf("state: alarms: %w", err)
	}
	if m.auth, err = auth.Load(m.group, m.db); err != nil {
		return fmt.Errorf("state: users and roles: %w", err)
	}
	m.shown = m.store.State().Compacted
	return nil
}

// The row of the applied mark: format, index, term, 1 if a snapshot brought it;
// then follow the index of the configuration that came with it, and that itself.
const (
	rowMark    = "mark"
	markFormat = 1
	markBytes  = 18
)

func appendMark(dst []byte, at raft.Position, loaded *raft.PlacedConf) []byte {
	dst = append(dst, markFormat)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(at.Index))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(at.Term))
	if loaded == nil {
		return append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint64(append(dst, 1), uint64(loaded.Index))
	return append(dst, raft.EncodeConf(loaded.Conf)...)
}

func decodeMark(row []byte) (at raft.Position, loaded *raft.PlacedConf, err error) {
	bad := func() (raft.Position, *raft.PlacedConf, error) {
		return raft.Position{}, nil, &mvcc.DamageError{Row: rowMark, Err: fmt.Errorf("not a mark: %x", row)}
	}
	if len(row) < markBytes || row[0] != markFormat || row[17] > 1 || row[17] == 0 && len(row) > markBytes {
		return bad()
	}
	at.Index = id.Index(binary.LittleEndian.Uint64(row[1:]))
	at.Term = id.Term(binary.LittleEndian.Uint64(row[9:]))
	if row[17] == 0 {
		return at, nil, nil
	}
	loaded = &raft.PlacedConf{}
	switch rest := row[markBytes:]; {
	case len(rest) == 0: // the first rows of this format had no configuration
	case len(rest) < 8:
		return bad()
	default:
		loaded.Index = id.Index(binary.LittleEndian.Uint64(rest))
		if loaded.Conf, err = raft.DecodeConf(rest[8:]); err != nil {
			return bad()
		}
	}
	return at, loaded, nil
}

func readMark(get func(key, buf []byte) ([]byte, error), key []byte) (at raft.Position, loaded *raft.PlacedConf, err error) {
	row, err := get(key, nil)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return raft.Position{}, nil, nil
	case err != nil:
		return raft.Position{}, nil, &mvcc.DamageError{Row: rowMark, Err: err}
	}
	return decodeMark(row)
}

// Mark is the position up to which the state has applied.
func (m *Machine) Mark() raft.Position { return m.mark }

// Loaded says whether a snapshot brought the mark and nothing was applied since,
// and which configuration came with it. Both are stored with the mark: after a
// crash between the loading of a snapshot and the reset of the log (rule 21) they
// tell a log that has not heard of the snapshot from one that has lost entries, and
// what that log does not know. A mark written by the first version has an empty
// configuration.
func (m *Machine) Loaded() (conf raft.PlacedConf, ok bool) {
	if m.loaded == nil {
		return raft.PlacedConf{}, false
	}
	return *m.loaded, true
}

// Durable is the mark in the part of the store that survives a power loss.
// Errors: *mvcc.DamageError.
func (m *Machine) Durable() (raft.Position, error) {
	at, _, err := readMark(m.db.Durable, m.markKey)
	return at, err
}

// StartFlush begins to make everything applied durable. Errors: those of
// engine.Writer.
func (m *Machine) StartFlush() error { return m.db.StartFlush() }

// Apply applies committed entries, in order and without gap after the mark. It
// commits one batch, publishes the new view, and returns an outcome for each
// command. Errors: *command.UnknownError and command.ErrMalformed for an entry
// that this program cannot read, *mvcc.DamageError, engine.ErrFailed.
func (m *Machine) Apply(entries []raft.Entry) ([]command.Outcome, error) {
	if m.failed != nil {
		return nil, m.failed
	}
	if len(entries) == 0 {
		return nil, nil
	}
	outcomes, err := m.apply(entries)
	if err != nil {
		m.failed = err
		m.store.Abandon()
		_ = m.leases.Abandon() // the failure has been told already
		return nil, err
	}
	m.publish()
	return outcomes, nil
}

func (m *Machine) apply(entries []raft.Entry) (outcomes []command.Outcome, err error) {
	if err := m.payMark(); err != nil {
		return nil, err
	}
	mark := m.mark
	m.store.Begin(m.batch)
	m.leases.Begin(m.batch)
	for i := range entries {
		e := &entries[i]
		if e.Index != mark.Index+1 || e.Term < mark.Term {
			invariant.Check(false, "entry %d of term %d applied after %d of term %d", e.Index, e.Term, mark.Index, mark.Term)
		}
		switch e.Kind {
		case raft.Batch:
			if outcomes, err = m.applyBatch(e, outcomes); err != nil {
				return nil, fmt.Errorf("state: entry %d: %w", e.Index, err)
			}
		case raft.Change:
			if err := m.change(e); err != nil {
				return nil, fmt.Errorf("state: entry %d: %w", e.Index, err)
			}
		case raft.Empty:
		default:
			return nil, fmt.Errorf("state: entry %d: %w", e.Index, &command.UnknownError{What: "kind of entry", Number: uint64(e.Kind)})
		}
		mark = raft.Position{Index: e.Index, Term: e.Term}
	}
	if err := m.store.Finish(); err != nil {
		return nil, err
	}
	if err := m.leases.Finish(); err != nil {
		return nil, damagedLeases(err)
	}
	m.mark, m.loaded = mark, nil
	if defect.On(defect.MarkOutsideBatch) {
		m.owed = true
	} else {
		m.setMark()
	}
	if err := m.db.Commit(m.batch); err != nil {
		return nil, err
	}
	return outcomes, m.store.Committed()
}

func (m *Machine) setMark() {
	m.markRow = appendMark(m.markRow[:0], m.mark, m.loaded)
	m.batch.Set(m.markKey, m.markRow)
}

// payMark writes the mark that the defect MarkOutsideBatch left out.
func (m *Machine) payMark() error {
	if !m.owed {
		return nil
	}
	m.owed = false
	m.setMark()
	return m.db.Commit(m.batch)
}

func (m *Machine) applyBatch(e *raft.Entry, outcomes []command.Outcome) ([]command.Outcome, error) {
	batch := command.ReadBatch(e.Data)
	for batch.Next() {
		if err := m.cmd.Decode(batch.Command()); err != nil {
			return nil, err
		}
		m.entry = e.Index
		response, err := m.do(e.Term)
		if fatal(err) {
			return nil, fmt.Errorf("%v of %v: %w", m.cmd.Kind, m.cmd.Origin, err)
		}
		outcomes = append(outcomes, command.Outcome{
			Origin: m.cmd.Origin, Term: e.Term, Index: e.Index, Response: response, Err: err,
		})
	}
	return outcomes, batch.Err()
}

// change applies the facts that came with a configuration.
func (m *Machine) change(e *raft.Entry) error {
	_, context, err := raft.DecodeChange(e.Data)
	if err != nil || len(context) == 0 {
		return err
	}
	c, err := command.DecodeChange(context)
	if err != nil {
		return err
	}
	m.members = m.members.Change(m.group, m.batch, c)
	return nil
}

// do applies the decoded command as part of an entry of a term.
func (m *Machine) do(term id.Term) (any, error) {
	needs := m.cmd.Needs
	if needs.Major > ClusterVersion.Major || needs.Major == ClusterVersion.Major && needs.Minor > ClusterVersion.Minor {
		return nil, &command.UnknownError{What: "cluster version", Number: uint64(needs.Major)<<8 | uint64(needs.Minor)}
	}
	if m.cmd.Class == command.Duty && m.cmd.Term != term && !defect.On(defect.DutyOutlivesTerm) {
		return nil, ErrTermOver
	}
	if defect.On(defect.AlarmsAfterRights) {
		if err := m.permit(); err != nil {
			return nil, err
		}
	}
	if err := stopped(m.alarms, m.cmd.Body); err != nil && !defect.On(defect.AlarmUnobeyed) {
		return nil, err
	}
	if err := m.permit(); err != nil {
		return nil, err
	}
	response, err := table[m.cmd.Kind].do(m, m.cmd.Body)
	if err == nil && m.cmd.Body.Cost() > 0 {
		m.grown = m.entry
	}
	return response, err
}

// fatal tells damage and the unknown from refusals.
func fatal(err error) bool {
	if err == nil {
		return false
	}
	var damage *mvcc.DamageError
	var unknown *command.UnknownError
	return errors.As(err, &damage) || errors.As(err, &unknown)
}

const (
	// removalRest is the pause after each slice of removal, so that writers find
	// the applier free and the disk's share of deletions is bounded. Once the store
	// has fallen behind with its own work the pause is a longer one: removal would
	// make writers wait.
	removalRest       = 16 * time.Millisecond
	removalRestBehind = 50 * time.Millisecond
	// longestRest is the longest that may be asked for: nothing ends a pause early.
	longestRest = time.Second
	// removalRestHurried is the pause while somebody waits for the end.
	removalRestHurried = time.Millisecond
	// backlogLook is how many slices pass between two looks at the store.
	backlogLook = 10
)

// Turn lets the store keep its house, removes a slice of compacted history, and
// counts a slice of the keys that are not counted yet.
func (m *Machine) Turn(now env.Instant) (worked bool, wake env.Instant) {
	worked, wake = m.db.Turn(now)
	if m.failed != nil {
		return worked, wake
	}
	if now < m.restUntil {
		return worked, min(wake, m.restUntil)
	}
	more, err := m.slice(now)
	if err != nil {
		m.failed = err
		return worked || more, wake
	}
	if more {
		m.restUntil = now.Add(m.rest())
		wake = min(wake, m.restUntil)
	}
	return worked, wake
}

// slice does a slice of everything that is done beside applying.
func (m *Machine) slice(now env.Instant) (worked bool, err error) {
	freeing := m.store.Freeing()
	freed, err := m.free()
	if err != nil {
		return true, err
	}
	if freeing {
		m.counts.measureRemoval(now, m.store.Freeing())
	}
	tallied, err := m.tally()
	return freed || tallied, err
}

// rest is the pause after a slice of removal, or of counting.
func (m *Machine) rest() time.Duration {
	if m.slices++; m.slices%backlogLook == 0 && m.db.Metrics().StallBytes > 0 {
		return max(m.removalRest, removalRestBehind)
	}
	if m.hurry.Load() > 0 {
		return removalRestHurried
	}
	if m.store.Freeing() {
		return m.removalRest
	}
	return removalRest
}

// HurryRemoval has removal go on faster than is good for writers, until enough is
// called: somebody waits for its end. Any goroutine may call it.
func (m *Machine) HurryRemoval() (enough func()) {
	m.hurry.Add(1)
	return func() { m.hurry.Add(-1) }
}

// free does one slice of removal.
func (m *Machine) free() (worked bool, err error) {
	if m.owed {
		return true, m.payMark()
	}
	if defect.On(defect.CompactLate) && m.shown < m.store.Removing() {
		m.shown = m.store.State().Compacted
		m.publish()
		return true, nil
	}
	if defect.On(defect.EventBeforeView) && m.ahead.Load() != nil {
		m.publish()
		return true, nil
	}
	if !m.store.Freeing() {
		return false, nil
	}
	if err := m.store.Remove(m.batch, m.hurry.Load() > 0); err != nil {
		return true, err
	}
	if err := m.db.Commit(m.batch); err != nil {
		return true, err
	}
	m.publish()
	return true, nil
}

// tally does one slice of counting keys.
func (m *Machine) tally() (worked bool, err error) {
	if worked, err = m.store.Tally(); worked && err == nil {
		m.publish()
	}
	return worked, err
}

// Hash is a hash of the whole logical state at the mark: keys, versions,
// metadata, leases, member facts, alarms, users and roles, and compact revision, whatever is left to remove. Equal
// commands applied give equal hashes; the mark is not part of it. It reads
// everything. Errors: *mvcc.DamageError.
func (m *Machine) Hash() (uint64, error) {
	h := sha256.New()
	h.Write(m.members.AppendTo(nil))
	h.Write(m.alarms.AppendTo(nil))
	h.Write(m.auth.AppendTo(nil))
	if err := m.leases.Hash(h); err != nil {
		return 0, damagedLeases(err)
	}
	if err := m.store.Hash(h); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(h.Sum(nil)), nil
}
