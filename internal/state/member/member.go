// Package member keeps the facts about members: their names and URLs, who was
// added as a learner, who was removed. Who votes is the log's to know (rule 10).
package member

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Facts are what is known of one member. Name and ClientURLs are empty until it
// has started and published them.
type Facts struct {
	ID                   id.Member
	Name                 string
	PeerURLs, ClientURLs []string
	Learner              bool
	// Version is the highest version of a cluster that its program can be part of;
	// zero until it has started.
	Version command.Version
}

// Table is the facts of all members, by ID, and the IDs of those that were
// removed, which never come back; the version of the cluster that they have
// agreed on, and the one that it is being brought down to, if any. It never changes:
// a new fact makes a new table.
// The zero value is empty.
type Table struct {
	facts   []Facts
	removed []id.Member
	version command.Version
	// target is zero, or the version or one below it: SetVersion never goes past it.
	target command.Version
}

// All lists the facts, by ID. The slice is shared and read-only.
func (t Table) All() []Facts { return t.facts }

// Get finds a member.
func (t Table) Get(member id.Member) (Facts, bool) {
	at, known := t.find(member)
	if !known {
		return Facts{}, false
	}
	return t.facts[at], true
}

// Removed says whether there was such a member once.
func (t Table) Removed(member id.Member) bool {
	_, removed := slices.BinarySearch(t.removed, member)
	return removed
}

func (t Table) find(member id.Member) (at int, known bool) {
	return slices.BinarySearchFunc(t.facts, member, func(f Facts, member id.Member) int { return cmp.Compare(f.ID, member) })
}

// ErrDamaged is wrapped by the error of a row that is not what this package writes.
var ErrDamaged = errors.New("member: damaged row")

const rowFormat = 1

// The rows are named so that they sort by ID; '0' is the byte after '/'.
const (
	rowFirst     = "member/"
	rowEnd       = "member0"
	removedFirst = "removed/"
	removedEnd   = "removed0"
	versionFirst = "version"
	versionEnd   = "version0"
	targetFirst  = "downgrade"
	targetEnd    = "downgrade0"
)

func rowName(member id.Member) string { return fmt.Sprintf("%s%016x", rowFirst, uint64(member)) }

func removedName(member id.Member) string {
	return fmt.Sprintf("%s%016x", removedFirst, uint64(member))
}

// Load reads the table of a group. Errors: ErrDamaged, *engine.CorruptionError.
func Load(group id.Group, db engine.Reader) (Table, error) {
	var t Table
	err := walk(group, db, rowFirst, rowEnd, func(name string, row []byte) bool {
		facts, err := decode(row)
		t.facts = append(t.facts, facts)
		return err == nil && name == rowName(facts.ID)
	})
	if err != nil {
		return Table{}, err
	}
	err = walk(group, db, removedFirst, removedEnd, func(name string, row []byte) bool {
		member, ok := decodeRemoved(row)
		t.removed = append(t.removed, member)
		return ok && name == removedName(member)
	})
	if err != nil {
		return Table{}, err
	}
	err = walk(group, db, versionFirst, versionEnd, func(name string, row []byte) (ok bool) {
		t.version, ok = decodeVersion(row)
		return ok && name == versionFirst
	})
	if err != nil {
		return Table{}, err
	}
	err = walk(group, db, targetFirst, targetEnd, func(name string, row []byte) (ok bool) {
		t.target, ok = decodeVersion(row)
		return ok && name == targetFirst
	})
	if err != nil {
		return Table{}, err
	}
	return t, nil
}

// walk shows the rows of a span of names until one is not good.
func walk(group id.Group, db engine.Reader, first, end string, good func(name string, row []byte) bool) error {
	low := keys.AppendMeta(nil, group, first)
	it, err := db.Iter(low, keys.AppendMeta(nil, group, end))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.SeekGE(low); ok; ok = it.Next() {
		row, err := it.Value()
		if err != nil {
			return err
		}
		if _, name, named := keys.DecodeMeta(it.Key()); !named || !good(string(name), row) {
			return fmt.Errorf("%w %s", ErrDamaged, keys.Text(it.Key()))
		}
	}
	return it.Err()
}

// set returns the table with the facts in it, and puts their row into the batch.
func (t Table) set(group id.Group, batch engine.Batch, facts Facts) Table {
	batch.Set(keys.AppendMeta(nil, group, rowName(facts.ID)), encode(nil, facts))
	at, known := t.find(facts.ID)
	t.facts = slices.Clone(t.facts)
	if known {
		t.facts[at] = facts
	} else {
		t.facts = slices.Insert(t.facts, at, facts)
	}
	return t
}

// AppendTo appends the whole table in one form, for hashes.
func (t Table) AppendTo(dst []byte) []byte {
	for _, f := range t.facts {
		dst = encode(dst, f)
	}
	for _, member := range t.removed {
		dst = encodeRemoved(dst, member)
	}
	if t.version != (command.Version{}) {
		dst = encodeVersion(dst, t.version)
	}
	if t.target != (command.Version{}) { // there is a version then
		dst = encodeVersion(dst, t.target)
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
	var flags byte
	if f.Learner {
		flags |= learner
	}
	versioned := f.Version != (command.Version{})
	if versioned {
		flags |= version
	}
	if flags != 0 {
		dst = append(dst, flags)
	}
	if versioned {
		dst = append(dst, f.Version.Major, f.Version.Minor)
	}
	return dst
}

// Flags near the end of a row; without any it just ends.
const (
	learner = 1
	version = 2 // major and minor follow
)

func encodeVersion(dst []byte, v command.Version) []byte {
	return append(dst, rowFormat, v.Major, v.Minor)
}

func decodeVersion(row []byte) (v command.Version, ok bool) {
	if len(row) != 3 || row[0] != rowFormat {
		return command.Version{}, false
	}
	return command.Version{Major: row[1], Minor: row[2]}, true
}

func encodeRemoved(dst []byte, member id.Member) []byte {
	return binary.AppendUvarint(append(dst, rowFormat), uint64(member))
}

func decodeRemoved(row []byte) (member id.Member, ok bool) {
	if len(row) == 0 || row[0] != rowFormat {
		return 0, false
	}
	r := reader{b: row[1:]}
	member = id.Member(r.number())
	return member, !r.bad && len(r.b) == 0
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
	if r.bad || !f.decodeFlags(r.b) {
		return Facts{}, ErrDamaged
	}
	return f, nil
}

func (f *Facts) decodeFlags(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	f.Learner = b[0]&learner != 0
	switch b[0] {
	case learner:
		return len(b) == 1
	case version, version | learner:
		if len(b) == 3 {
			f.Version = command.Version{Major: b[1], Minor: b[2]}
		}
		return f.Version != (command.Version{})
	}
	return false
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
