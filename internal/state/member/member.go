// Package member keeps the facts that members publish about themselves: names
// and URLs. Who votes is not among them: that is the log's to know (rule 10).
package member

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Facts are what one member published last.
type Facts struct {
	ID                   id.Member
	Name                 string
	PeerURLs, ClientURLs []string
}

// Table is the facts of all members, by ID. It never changes: a new fact makes a
// new table. The zero value is empty.
type Table struct{ facts []Facts }

// All lists the facts, by ID. The slice is shared and read-only.
func (t Table) All() []Facts { return t.facts }

// ErrDamaged is wrapped by the error of a row that is not what this package writes.
var ErrDamaged = errors.New("member: damaged row")

const rowFormat = 1

// The rows are named so that they sort by ID; '0' is the byte after '/'.
const (
	rowFirst = "member/"
	rowEnd   = "member0"
)

func rowName(member id.Member) string { return fmt.Sprintf("%s%016x", rowFirst, uint64(member)) }

// Load reads the table of a group. Errors: ErrDamaged, *engine.CorruptionError.
func Load(group id.Group, db engine.Reader) (Table, error) {
	low := keys.AppendMeta(nil, group, rowFirst)
	it, err := db.Iter(low, keys.AppendMeta(nil, group, rowEnd))
	if err != nil {
		return Table{}, err
	}
	defer it.Close()
	var t Table
	for ok := it.SeekGE(low); ok; ok = it.Next() {
		row, err := it.Value()
		if err != nil {
			return Table{}, err
		}
		facts, err := decode(row)
		_, name, named := keys.DecodeMeta(it.Key())
		if err != nil || !named || string(name) != rowName(facts.ID) {
			return Table{}, fmt.Errorf("%w %s", ErrDamaged, keys.Text(it.Key()))
		}
		t.facts = append(t.facts, facts)
	}
	return t, it.Err()
}

// Publish returns the table with the facts in it, and puts their row into the
// batch.
func (t Table) Publish(group id.Group, batch engine.Batch, facts Facts) Table {
	batch.Set(keys.AppendMeta(nil, group, rowName(facts.ID)), encode(nil, facts))
	at, known := slices.BinarySearchFunc(t.facts, facts.ID, func(f Facts, member id.Member) int {
		switch {
		case f.ID < member:
			return -1
		case f.ID > member:
			return 1
		}
		return 0
	})
	next := slices.Clone(t.facts)
	if known {
		next[at] = facts
	} else {
		next = slices.Insert(next, at, facts)
	}
	return Table{next}
}

// AppendTo appends the whole table in one form, for hashes.
func (t Table) AppendTo(dst []byte) []byte {
	for _, f := range t.facts {
		dst = encode(dst, f)
	}
	return dst
}

func encode(dst []byte, f Facts) []byte {
	dst = append(dst, rowFormat)
	dst = binary.AppendUvarint(dst, uint64(f.ID))
	dst = appendString(dst, f.Name)
	for _, list := range [...][]string{f.PeerURLs, f.ClientURLs} {
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		for _, s := range list {
			dst = appendString(dst, s)
		}
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// decode accepts exactly what encode writes.
func decode(row []byte) (Facts, error) {
	if len(row) == 0 || row[0] != rowFormat {
		return Facts{}, ErrDamaged
	}
	r := reader{b: row[1:]}
	f := Facts{ID: id.Member(r.number()), Name: r.string()}
	f.PeerURLs, f.ClientURLs = r.list(), r.list()
	if r.bad || len(r.b) != 0 {
		return Facts{}, ErrDamaged
	}
	return f, nil
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) list() []string {
	n := r.number()
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.bad = true
		return nil
	}
	var list []string
	for range n {
		list = append(list, r.string())
	}
	return list
}
