// Package alarm keeps the alarms that are in force, as facts: which member raised
// what. What they stop is in package state; who raises them is package server's to
// know.
package alarm

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Table is the alarms in force, by member and type. It never changes: what happens to
// an alarm makes a new table. The zero value is empty.
type Table struct{ list []command.Alarm }

// All lists the alarms, by member and type. The slice is shared and read-only.
func (t Table) All() []command.Alarm { return t.list }

// Any says whether an alarm of a type is in force, whoever raised it. It walks the
// list: there are seldom any.
func (t Table) Any(kind command.AlarmType) bool {
	return slices.ContainsFunc(t.list, func(a command.Alarm) bool { return a.Type == kind })
}

// Has says whether an alarm is in force.
func (t Table) Has(a command.Alarm) bool {
	_, has := t.find(a)
	return has
}

func (t Table) find(a command.Alarm) (at int, has bool) {
	return slices.BinarySearchFunc(t.list, a, func(a, b command.Alarm) int {
		return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(uint32(a.Type), uint32(b.Type)))
	})
}

// Raise returns the table with an alarm in it, puts its row into the batch, and tells
// what it raised: an alarm again that is in force, and nothing for the type AlarmNone
// (spec 6.4).
func (t Table) Raise(group id.Group, batch engine.Batch, a command.Alarm) (Table, []command.Alarm) {
	if a.Type == command.AlarmNone {
		return t, nil
	}
	at, has := t.find(a)
	if !has {
		if !defect.On(defect.AlarmsForgotten) {
			batch.Set(keys.AppendMeta(nil, group, rowName(a)), encode(nil, a))
		}
		t.list = slices.Insert(slices.Clone(t.list), at, a)
	}
	return t, []command.Alarm{a}
}

// Disarm returns the table without an alarm, takes its row away, and tells what it
// ended: exactly this alarm, or nothing.
func (t Table) Disarm(group id.Group, batch engine.Batch, a command.Alarm) (Table, []command.Alarm) {
	at, has := t.find(a)
	if !has {
		return t, nil
	}
	batch.Delete(keys.AppendMeta(nil, group, rowName(a)))
	t.list = slices.Delete(slices.Clone(t.list), at, at+1)
	if defect.On(defect.DisarmEndsOthers) {
		t.list = slices.DeleteFunc(t.list, func(b command.Alarm) bool { return b.Type == a.Type })
	}
	return t, []command.Alarm{a}
}

// ErrDamaged is wrapped by the error of a row that is not what this package writes.
var ErrDamaged = errors.New("alarm: damaged row")

const rowFormat = 1

// The rows are named so that they sort by member and type; '0' is the byte after '/'.
const (
	rowFirst = "alarm/"
	rowEnd   = "alarm0"
)

func rowName(a command.Alarm) string {
	return fmt.Sprintf("%s%016x/%08x", rowFirst, uint64(a.Member), uint32(a.Type))
}

func encode(dst []byte, a command.Alarm) []byte {
	dst = binary.AppendUvarint(append(dst, rowFormat), uint64(a.Member))
	return binary.AppendVarint(dst, int64(a.Type))
}

// decode accepts exactly what encode writes.
func decode(row []byte) (a command.Alarm, ok bool) {
	if len(row) == 0 || row[0] != rowFormat {
		return command.Alarm{}, false
	}
	member, n := binary.Uvarint(row[1:])
	if n <= 0 {
		return command.Alarm{}, false
	}
	number, k := binary.Varint(row[1+n:])
	if k <= 0 {
		return command.Alarm{}, false
	}
	a = command.Alarm{Member: id.Member(member), Type: command.AlarmType(number)}
	// Its bytes are compared whole: a number may be written in more than one way.
	return a, int64(a.Type) == number && a.Type != command.AlarmNone && slices.Equal(encode(nil, a), row)
}

// Load reads the table of a group. Errors: ErrDamaged, *engine.CorruptionError.
func Load(group id.Group, db engine.Reader) (Table, error) {
	var t Table
	low := keys.AppendMeta(nil, group, rowFirst)
	it, err := db.Iter(low, keys.AppendMeta(nil, group, rowEnd))
	if err != nil {
		return Table{}, err
	}
	defer it.Close()
	for more := it.SeekGE(low); more; more = it.Next() {
		row, err := it.Value()
		if err != nil {
			return Table{}, err
		}
		a, ok := decode(row)
		if _, name, named := keys.DecodeMeta(it.Key()); !ok || !named || string(name) != rowName(a) {
			return Table{}, fmt.Errorf("%w %s", ErrDamaged, keys.Text(it.Key()))
		}
		t.list = append(t.list, a)
	}
	return t, it.Err()
}

// AppendTo appends the whole table in one form, for hashes; nothing if it is empty.
func (t Table) AppendTo(dst []byte) []byte {
	for _, a := range t.list {
		dst = encode(dst, a)
	}
	return dst
}
