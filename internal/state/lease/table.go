// Package lease keeps the facts about leases: which there are, their times to live,
// what the leader has told of the time that is left, and which keys are attached to
// which. When a lease ends is no fact but a matter of the leader's clock
// (server/expire.go); it becomes one when a command revokes the lease.
//
// Facts lie in the rows 'l' and 'k' of the engine (docs/format/engine-rows.md). The
// leases themselves are in memory as well, since every put with a lease asks for
// one; of attached keys how many there are, and the one of a lease that has one.
//
// Changes are told to one reader, by a Feed: that is how the clock above learns of
// leases without being called from here.
package lease

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// ErrDamaged is wrapped by the error of a row that is not what this package writes.
var ErrDamaged = errors.New("lease: damaged row")

// Facts are what is known of one lease. Times are in seconds.
type Facts struct {
	command.LeaseName
	TTL int64
	// Remaining is what the leader has told that it has left; 0 if that is the TTL.
	Remaining int64
}

type facts struct {
	birth          command.LeaseBirth
	ttl, remaining int64
	load           load
}

// Table is the applier's side of the leases of a group. It is not safe for
// concurrent use. The applier calls Begin with a batch, then commands, then Finish,
// commits the batch and calls Publish.
//
// Invariant, which package mvcc keeps by calling Attach and Detach, and who ends a
// lease by End: a row 'k' of a lease and a key exists exactly when the key's newest
// version names the lease; and then the lease exists.
type Table struct {
	group  id.Group
	db     engine.Reader
	leases map[id.Lease]facts
	births command.LeaseBirth

	batch engine.Batch
	// moved are the attachments that the batch in hand makes (true) and undoes.
	moved map[id.Lease]map[string]bool
	// ended are the leases that end in this batch: of their keys the engine shows what
	// is no more.
	ended map[id.Lease]struct{}
	// dead are those of them whose rows are still to be deleted.
	dead    []deadLease
	changes []Change
	soles   soles
	born    bool // births has grown in this batch
	// points reads the attached keys of this batch, one lease after the other.
	points *attached
	feed   feed

	key, row []byte
}

// Open reads the leases of a group. Errors: ErrDamaged, *engine.CorruptionError,
// engine.ErrIterators.
func Open(group id.Group, db engine.Reader) (*Table, error) {
	t := &Table{group: group, db: db, moved: map[id.Lease]map[string]bool{}, ended: map[id.Lease]struct{}{}, soles: soles{budget: solesBudget}}
	t.feed.init()
	return t, t.Reload()
}

// Reload reads them anew, after all rows of the group were replaced. The reader of
// changes is told so by the next Publish.
func (t *Table) Reload() error {
	again := t.leases != nil
	t.leases, t.births = map[id.Lease]facts{}, 0
	row, err := t.db.Get(keys.AppendMeta(nil, t.group, rowBirths), nil)
	if err == nil {
		t.births, err = decodeBirths(row)
	}
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return fmt.Errorf("%s: %w", rowBirths, err)
	}
	t.soles.reset()
	attached, err := t.db.Iter(keys.AppendAllAttached(nil, t.group), keys.AppendAllAttachedEnd(nil, t.group))
	if err != nil {
		return err
	}
	defer attached.Close()
	attached.Next()
	var all []Change
	err = t.walk(keys.AppendLeases(nil, t.group), keys.AppendLeasesEnd(nil, t.group), func(key, row []byte) error {
		_, lease, ok := keys.DecodeLease(key)
		f, err := decodeFacts(row)
		if err != nil || !ok || f.birth > t.births {
			return ErrDamaged
		}
		if f.load, err = t.weigh(lease, attached); err != nil {
			return err
		}
		t.leases[lease] = f
		all = append(all, f.of(lease))
		return nil
	})
	t.changes = t.changes[:0]
	if !again || !defect.On(defect.LoadNotTold) {
		t.feed.publish(all, true)
	}
	return err
}

// of is a lease as it is.
func (f facts) of(lease id.Lease) Change {
	return Change{Facts: Facts{command.LeaseName{ID: lease, Birth: f.birth}, f.ttl, f.remaining}, Weight: f.load.weight()}
}

// walk shows every row of a span.
func (t *Table) walk(low, high []byte, row func(key, value []byte) error) error {
	it, err := t.db.Iter(low, high)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.SeekGE(low); ok; ok = it.Next() {
		value, err := it.Value()
		if err == nil {
			err = row(it.Key(), value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", keys.Text(it.Key()), err)
		}
	}
	return it.Err()
}

// Begin starts a batch.
func (t *Table) Begin(batch engine.Batch) { t.batch = batch }

// Finish ends the batch, which is then committed. Errors: *engine.CorruptionError.
func (t *Table) Finish() error {
	if t.born {
		t.born = false
		t.key = keys.AppendMeta(t.key[:0], t.group, rowBirths)
		t.batch.Set(t.key, appendBirths(t.row[:0], t.births))
	}
	invariant.Check(len(t.dead) == 0, "rows of ended leases are left")
	clear(t.moved)
	clear(t.ended)
	t.batch = nil
	return t.Abandon()
}

// Abandon gives back what a batch holds of the engine. After a batch that failed the
// Table may not be used again.
func (t *Table) Abandon() error {
	if t.points == nil {
		return nil
	}
	it := t.points
	t.points = nil
	return it.Close()
}

// Publish tells the reader of changes what committed batches have changed.
func (t *Table) Publish() {
	if len(t.changes) == 0 {
		return
	}
	t.feed.publish(slices.Clone(t.changes), false)
	t.changes = t.changes[:0]
}

// Has says whether there is such a lease.
func (t *Table) Has(lease id.Lease) bool {
	_, known := t.leases[lease]
	return known
}

// Grant makes a lease. Errors: command.ErrLeaseExists.
func (t *Table) Grant(g *command.LeaseGrant) error {
	if t.Has(g.ID) {
		return command.ErrLeaseExists
	}
	t.births++
	t.born = true
	t.set(g.ID, facts{birth: t.births, ttl: g.TTL})
	return nil
}

func (t *Table) set(lease id.Lease, f facts) {
	t.leases[lease] = f
	t.key = keys.AppendLease(t.key[:0], t.group, lease)
	t.row = appendFacts(t.row[:0], f)
	t.batch.Set(t.key, t.row)
	t.changes = append(t.changes, f.of(lease))
}

// deadLease is a lease that has ended and the keys that hung on it.
type deadLease struct {
	lease id.Lease
	keys  [][]byte
}

// End ends a lease whose keys, as Keys has listed them, are deleted already. Flush
// is to be called before anything but End.
func (t *Table) End(lease id.Lease, list [][]byte) {
	f := t.leases[lease]
	delete(t.leases, lease)
	delete(t.moved, lease)
	t.ended[lease] = struct{}{}
	t.dead = append(t.dead, deadLease{lease, list})
	t.soles.forget(f.load.sole)
	gone := f.of(lease)
	gone.Gone = true
	t.changes = append(t.changes, gone)
}

// Flush deletes the rows of the leases that have ended: first those of all keys, then
// those of the leases. What comes in the order of the engine's keys costs it half.
func (t *Table) Flush() {
	for _, d := range t.dead {
		for _, key := range d.keys {
			t.key = keys.AppendAttached(t.key[:0], t.group, d.lease, key)
			t.batch.Delete(t.key)
		}
	}
	for _, d := range t.dead {
		t.key = keys.AppendLease(t.key[:0], t.group, d.lease)
		t.batch.Delete(t.key)
	}
	clear(t.dead)
	t.dead = t.dead[:0]
}

// Is says whether there is such a lease, and in that life.
func (t *Table) Is(name command.LeaseName) bool {
	f, known := t.leases[name.ID]
	return known && f.birth == name.Birth
}

// Checkpoint notes what leases have left, but for those that are gone.
func (t *Table) Checkpoint(c *command.LeaseCheckpoint) {
	for i := range c.Leases {
		if r := &c.Leases[i]; t.Is(r.LeaseName) {
			f := t.leases[r.ID]
			f.remaining = min(r.Remaining, f.ttl)
			t.set(r.ID, f)
		}
	}
}

// Attach notes that a key hangs on a lease from now on, Detach that it does no more.
func (t *Table) Attach(key []byte, lease id.Lease) {
	t.move(key, lease, true)
	t.batch.Set(t.key, nil)
	t.gain(key, lease)
}

// Detach undoes Attach.
func (t *Table) Detach(key []byte, lease id.Lease) {
	t.move(key, lease, false)
	t.batch.Delete(t.key)
	t.lose(key, lease)
}

func (t *Table) move(key []byte, lease id.Lease, attached bool) {
	of := t.moved[lease]
	if of == nil {
		of = map[string]bool{}
		t.moved[lease] = of
	}
	of[string(key)] = attached
	t.key = keys.AppendAttached(t.key[:0], t.group, lease, key)
}

// Keys lists the keys of a lease in byte order, with what the batch in hand has
// changed. Errors: ErrDamaged, *engine.CorruptionError, engine.ErrIterators.
func (t *Table) Keys(lease id.Lease) (list [][]byte, err error) {
	if list, known := t.remembered(lease); known {
		return list, nil
	}
	return t.lookUp(lease)
}

// lookUp is Keys by what the engine has.
func (t *Table) lookUp(lease id.Lease) (list [][]byte, err error) {
	if t.points == nil {
		points, err := openAttached(t.db, t.group)
		if err != nil {
			return nil, err
		}
		t.points = points
	}
	moved := t.moved[lease]
	_, over := t.ended[lease]
	for ok := !over && t.points.first(lease); ok; ok = t.points.Next() {
		_, _, user, whole := keys.DecodeAttached(t.points.Key())
		if !whole {
			return nil, fmt.Errorf("%s: %w", keys.Text(t.points.Key()), ErrDamaged)
		}
		if _, known := moved[string(user)]; !known {
			list = append(list, bytes.Clone(user))
		}
	}
	if err := t.points.Err(); err != nil || len(moved) == 0 {
		return list, err
	}
	for key, attached := range moved {
		if attached {
			list = append(list, []byte(key))
		}
	}
	slices.SortFunc(list, bytes.Compare)
	return list, nil
}
