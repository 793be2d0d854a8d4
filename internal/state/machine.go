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

// KeepKeys gives the memory of the keys of leases another budget in bytes; what leases
// end with does not depend on it.
func (m *Machine) KeepKeys(budget int) { m.leases.KeepKeys(budget) }

// KeepCounts makes the state count its keys, in leaves of so many rows (mvcc.Store.KeepCounts);
// 0, as at first, is no counting. Answers and hashes do not depend on it.
func (m *Machine) KeepCounts(rows int) {
	m.store.KeepCounts(rows)
	m.publish()
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

// Hash is a hash of the whole logical state at the mark: keys, versions, metadata,
// leases, member facts, alarms, users and roles, and compact revision, whatever is left
// to remove. Equal commands applied give equal hashes; the mark is not part of it. It
// reads everything. Errors: *mvcc.DamageError.
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
