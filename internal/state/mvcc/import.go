package mvcc

import (
	"bytes"
	"fmt"
	"math"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Stored is one version of a key that comes from elsewhere. Of a deletion only key
// and revision mean anything.
type Stored struct {
	Key, Value   []byte
	Main, Create id.Revision
	Sub          int64
	// Number counts the versions of the key since its creation, from 1.
	Number int64
	Lease  id.Lease
	Dead   bool
}

// AppendStored appends the row of a version. Errors: what no store can have.
func AppendStored(key, row []byte, group id.Group, s *Stored) (_, _ []byte, err error) {
	v := version{mod: s.Main, sub: uint32(s.Sub), dead: s.Dead}
	if !s.Dead {
		v.create, v.number, v.lease, v.value = s.Create, s.Number, s.Lease, s.Value
	}
	if len(s.Key) == 0 || s.Main < 1 || s.Dead && s.Main < 2 || s.Sub < 0 || s.Sub >= math.MaxUint32 || !s.Dead && (s.Create < 1 || s.Create > s.Main || s.Number < 1) {
		return key, row, fmt.Errorf("key %q at revision %d.%d, created at %d, version %d", s.Key, s.Main, s.Sub, s.Create, s.Number)
	}
	return keys.AppendVersion(key, group, s.Key, v.mod, v.sub), appendVersion(row, &v), nil
}

// Import makes the rows of a store out of versions that come in the order of their
// rows: key by key, the newest first. What a compaction lets go is left out.
type Import struct {
	Group    id.Group
	Revision id.Revision
	// Compacted is the compact revision, -1 for none.
	Compacted id.Revision
	// Version takes the rows of versions, in order; Change those of changes and
	// Attached the keys with a lease, in the order of keys.
	Version, Change func(key, row []byte) error
	Attached        func(lease id.Lease, user []byte) error

	written int64
	user    []byte
	first   bool // of the versions of the key
	settled bool
	// later is the change that waits for the version before it; later.key is nil if
	// there is none.
	later     change
	laterMain id.Revision
	laterSub  uint32
	laterVer  int64
	key, row  []byte
}

// Add takes the next version, as AppendStored made it. Errors: *DamageError for a
// history with a gap, what the three functions return.
func (m *Import) Add(key, row []byte) error {
	_, user, main, sub, ok := keys.DecodeVersion(key)
	if !ok {
		return &DamageError{keys.Text(key).String(), errRow}
	}
	v, err := decodeVersion(row, main, sub)
	if err != nil {
		return &DamageError{keys.Text(key).String(), err}
	}
	if !bytes.Equal(user, m.user) || m.user == nil {
		if err := m.settle(nil); err != nil {
			return err
		}
		m.user = append(m.user[:0], user...)
		m.first, m.settled = true, false
	} else if err := m.settle(&v); err != nil {
		return err
	}
	if main <= m.Compacted {
		freed := m.settled || v.dead && main < m.Compacted
		m.settled = true
		if freed {
			return nil
		}
	}
	if m.first && v.lease != 0 {
		if err := m.Attached(v.lease, m.user); err != nil {
			return err
		}
	}
	m.first = false
	m.written += command.VersionCost(len(user), len(v.value))
	if main >= m.Compacted {
		m.later = change{key: m.user, dead: v.dead}
		m.laterMain, m.laterSub, m.laterVer = main, sub, v.number
	}
	return m.Version(key, row)
}

// settle writes the change that waits, now that the version before it is known: nil
// if there is none.
func (m *Import) settle(before *version) error {
	c := &m.later
	if c.key == nil {
		return nil
	}
	switch {
	case before != nil && !before.dead:
		c.prevMain, c.prevSub, c.prevValue = before.mod, before.sub, len(before.value)
	case m.laterMain > m.Compacted && (c.dead || m.laterVer > 1):
		return &DamageError{keys.Text(keys.AppendUserKey(nil, m.Group, c.key)).String(),
			fmt.Errorf("its change at revision %d follows a version that is not there", m.laterMain)}
	case c.dead:
		// What it deleted is compacted, and nobody asks for it any more: any revision
		// before says that there was something.
		c.prevMain = max(m.laterMain-1, 1)
	}
	m.row = appendChange(m.row[:0], c)
	m.key = keys.AppendHistory(m.key[:0], m.Group, m.laterMain, m.laterSub)
	m.later.key = nil
	return m.Change(m.key, m.row)
}

// Finish ends the versions and shows the rows about the store as a whole. Errors: as
// of Add, what meta returns.
func (m *Import) Finish(meta func(key, row []byte) error) error {
	if err := m.settle(nil); err != nil {
		return err
	}
	err := meta(keys.AppendMeta(nil, m.Group, rowState), appendNumbers(nil, int64(m.Revision), int64(m.Compacted), m.written))
	if err != nil || m.Compacted < 0 {
		return err
	}
	return meta(keys.AppendMeta(nil, m.Group, rowRemoval), appendNumbers(nil, int64(m.Compacted), int64(m.Compacted), 0, 0, 0))
}
