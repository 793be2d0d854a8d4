package mvcc

import (
	"bytes"
	"math"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// latest as a revision to read at means the newest version there is.
const latest id.Revision = math.MaxInt64

const (
	// sliceBytes are read through one iterator before it is closed and opened
	// again (rule 23).
	sliceBytes = 1 << 20
	// nearby rows are stepped over one by one; to pass more, the iterator seeks.
	nearby = 4
)

// opener opens an iterator over engine bounds and then makes sure that the
// revision of the read may still be read: in this order (rule 22).
type opener func(low, high []byte) (engine.Iterator, error)

// scan walks the keys of a range in order and yields the version of each that is
// seen at one revision. Versions of the overlay are newer than the engine's.
type scan struct {
	group id.Group
	rev   id.Revision
	open  opener
	it    engine.Iterator
	// closed, when set, is told of every iterator closed.
	closed func()
	high   []byte // engine bound
	seek   []byte
	read   int

	// from and end are the range, as start was given it; one says that it is a
	// single key.
	from, end []byte
	one       bool
	// graves says that tombstones are yielded too.
	graves bool
	// rows says that the caller takes rows as they are: of what is found only the value
	// and the position are known.
	rows bool
	// counted, when set, spares rest a walk.
	counted *counted
	// user, found and row are the engine's next key, version and its row, if have.
	user  []byte
	found version
	row   []byte
	have  bool
	done  bool

	over   *overlay
	chains []int32
}

// span translates a range of the API into engine bounds; ok is false if it is
// empty (spec 1.6).
func span(group id.Group, key, end []byte) (low, high []byte, ok bool) {
	low = keys.AppendUserKey(nil, group, key)
	switch {
	case len(end) == 0:
		return low, keys.AppendAfterUserKey(nil, group, key), true
	case fromKey(end):
		return low, keys.AppendDataEnd(nil, group), true
	case bytes.Compare(key, end) < 0:
		return low, keys.AppendUserKey(nil, group, end), true
	}
	return nil, nil, false
}

func fromKey(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// start opens the iterator at the beginning of a range.
func (s *scan) start(key, end []byte) error {
	s.from, s.end = key, end
	low, high, ok := span(s.group, key, end)
	if !ok {
		s.done = true
		return nil
	}
	it, err := s.open(low, high)
	if err != nil {
		return err
	}
	s.it, s.high = it, high
	if s.one = len(end) == 0; s.one {
		low = keys.AppendAtOrBelow(low[:0], s.group, key, s.rev)
	}
	it.SeekGE(low)
	return nil
}

// close must follow, whatever the scan returned.
func (s *scan) close() {
	if s.it != nil {
		s.it.Close()
		s.it = nil
		if s.closed != nil {
			s.closed()
		}
	}
}

// next returns the next key and its version, both valid until the next call; a
// nil version ends the scan.
func (s *scan) next() (key []byte, v *version, err error) {
	for {
		if !s.have && !s.done {
			if err := s.advance(); err != nil {
				return nil, nil, err
			}
		}
		order := 1
		if len(s.chains) > 0 {
			order = -1
			if !s.done {
				order = bytes.Compare(s.over.chains[s.chains[0]].key, s.user)
			}
		}
		if order > 0 {
			if s.done {
				return nil, nil, nil
			}
			s.have = false
			return s.user, &s.found, nil
		}
		chain := s.chains[0]
		v := s.over.at(chain, s.rev)
		s.chains = s.chains[1:]
		if v == nil {
			continue // all of them too new: the engine decides
		}
		if order == 0 {
			s.have = false
		}
		if !v.dead {
			return s.over.chains[chain].key, v, nil
		}
	}
}

// advance moves the engine's side to the next key that lives at the revision.
func (s *scan) advance() error {
	if len(s.user) > 0 {
		if s.one {
			s.done = true
			return nil
		}
		s.pass()
	}
	newer := 0
	for s.it.Valid() {
		if s.read >= sliceBytes {
			if err := s.again(); err != nil {
				return err
			}
			continue
		}
		key := s.it.Key()
		_, user, main, sub, ok := keys.DecodeVersion(key)
		if !ok {
			return &DamageError{keys.Text(key).String(), errRow}
		}
		s.read += len(key)
		if main > s.rev {
			if newer++; newer <= nearby {
				s.it.Next()
				continue
			}
			s.seek = keys.AppendAtOrBelow(s.seek[:0], s.group, user, s.rev)
			s.it.SeekGE(s.seek)
			newer = 0
			continue
		}
		v, row, err := rowAt(s.it, key, main, sub, s.rows)
		if err != nil {
			return err
		}
		s.read += len(v.value)
		s.user = append(s.user[:0], user...)
		if !v.dead || s.graves {
			s.found, s.row, s.have = v, row, true
			return nil
		}
		s.pass()
		newer = 0
	}
	s.done = true
	if err := s.it.Err(); err != nil {
		return &DamageError{"of the keys", err}
	}
	return nil
}

// versionAt reads the row that an iterator stands at.
func versionAt(it engine.Iterator, key []byte, main id.Revision, sub uint32) (version, error) {
	v, _, err := rowAt(it, key, main, sub, false)
	return v, err
}

// rowAt is versionAt, with the row, and of its head alone if that is enough.
func rowAt(it engine.Iterator, key []byte, main id.Revision, sub uint32, head bool) (v version, row []byte, err error) {
	row, err = it.Value()
	switch {
	case err != nil:
	case head:
		v, err = decodeHead(row, main, sub)
	default:
		v, err = decodeVersion(row, main, sub)
	}
	if err != nil {
		return version{}, nil, &DamageError{keys.Text(key).String(), err}
	}
	return v, row, nil
}

// pass moves behind the versions of the key that the iterator stands at.
func (s *scan) pass() {
	if s.it.Valid() {
		s.it.NextPrefix()
	}
}

// again closes the iterator and opens another one at the same place.
func (s *scan) again() error {
	at := append([]byte(nil), s.it.Key()...)
	s.close()
	// A bound has no version: the whole key is read from, then sought in.
	_, user, _, _, ok := keys.DecodeVersion(at)
	if !ok {
		return &DamageError{keys.Text(at).String(), errRow}
	}
	it, err := s.open(keys.AppendUserKey(nil, s.group, user), s.high)
	if err != nil {
		return err
	}
	s.it, s.read = it, 0
	it.SeekGE(at)
	return nil
}
