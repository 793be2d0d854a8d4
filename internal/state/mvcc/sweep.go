package mvcc

import (
	"bytes"
	"encoding/binary"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Sweep walks over the versions of a range as they lie in the engine, key by key, and
// shows those of a stretch of revisions as events. A step costs a tenth of what Past
// pays for the value of an event, so whoever wants most of what there is sweeps, and
// puts the events in order.
//
//	rows      a 9  a 5  a 2(dead)  b 7  b 3      sweep of 3 to 8
//	events         a 5, new        b 7 over b 3, b 3
//
// The older version that follows says what a change has superseded.
type Sweep struct {
	view       *View
	from, upto id.Revision
	at, high   []byte // engine bounds of what is left
	event      Event  // in hand until the row after it is known, if have
	have       bool
	previous   bool // events have what they have superseded
	before     []byte
}

// Sweep begins at the first key of a range, which is as of RangeRequest; revisions are
// from to upto, upto at most the view's. With previous, AppendPrevious of its events need
// not look up what the sweep has passed.
func (v *View) Sweep(key, end []byte, from, upto id.Revision, previous bool) *Sweep {
	s := &Sweep{view: v, from: from, upto: upto, previous: previous}
	var ok bool
	if s.at, s.high, ok = span(v.group, key, end); !ok {
		s.at = nil
	}
	return s
}

// Next walks on over about so many rows, through one iterator (rule 23), and shows the
// events in the order of their keys, of a key newest first. What show is given is valid
// until it returns. more is false after the last row. Errors: command.ErrCompacted,
// ErrReplaced, engine.ErrIterators, *DamageError, what show returns.
func (s *Sweep) Next(rows int, show func(*Event) error) (more bool, err error) {
	if s.at == nil {
		return false, nil
	}
	it, err := s.view.open(s.at, s.high, s.from)
	if err != nil {
		return false, err
	}
	defer func() {
		it.Close()
		s.view.readers.Add(-1)
	}()
	for ok := it.SeekGE(s.at); ok; rows-- {
		if rows <= 0 {
			s.at = append(s.at[:0], it.Key()...)
			return true, nil
		}
		older, err := s.row(it, show)
		if err != nil {
			return false, err
		}
		if older {
			ok = it.NextPrefix()
		} else {
			ok = it.Next()
		}
	}
	if err := it.Err(); err != nil {
		return false, &DamageError{"of the keys", err}
	}
	s.at = nil
	return false, s.show(show)
}

// row takes the version that the iterator stands at; older says that it and all after
// it of its key are from before the stretch.
func (s *Sweep) row(it engine.Iterator, show func(*Event) error) (older bool, err error) {
	at := it.Key()
	_, user, main, sub, ok := keys.DecodeVersion(at)
	if !ok {
		return false, &DamageError{keys.Text(at).String(), errRow}
	}
	over := s.have && bytes.Equal(user, s.event.Key)
	if s.have && !over {
		if err := s.show(show); err != nil {
			return false, err
		}
	}
	older = main < s.from
	if main > s.upto || older && !over {
		return older, nil
	}
	row, err := it.Value()
	if err != nil {
		return false, &DamageError{keys.Text(at).String(), err}
	}
	v, err := decodeVersion(row, main, sub)
	if err != nil {
		return false, &DamageError{keys.Text(at).String(), err}
	}
	if over {
		if !v.dead {
			s.event.prevMain, s.event.prevSub = main, sub
			if s.previous && main < s.event.Revision {
				s.before = appendKV(s.before[:0], user, row)
				s.event.previous = s.before
			}
		}
		if err := s.show(show); err != nil {
			return false, err
		}
	}
	if older {
		return true, nil
	}
	body, keyAt := appendEvent(s.event.Body[:0], user, row, v.dead)
	s.event = Event{Revision: main, Sub: sub, Deleted: v.dead, Key: body[keyAt : keyAt+len(user)], Body: body}
	s.have = true
	return false, nil
}

// show shows the event in hand, if there is one.
func (s *Sweep) show(show func(*Event) error) error {
	if !s.have {
		return nil
	}
	s.have = false
	return show(&s.event)
}

// recordLead is how many bytes AppendRecord puts before a body.
const recordLead = 8 + 8 + 4 + 4 + 4 + 4 + 4 + 1

// AppendRecord appends an event, for ReadRecord of the same process.
func AppendRecord(dst []byte, e *Event) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.Revision))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.prevMain))
	dst = binary.LittleEndian.AppendUint32(dst, e.Sub)
	dst = binary.LittleEndian.AppendUint32(dst, e.prevSub)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(e.Key)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(e.Body)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(e.previous)))
	dead := byte(0)
	if e.Deleted {
		dead = 1
	}
	return append(append(append(dst, dead), e.Body...), e.previous...)
}

// ReadRecord reads what AppendRecord has appended; e refers to it. rest is what follows.
func ReadRecord(record []byte, e *Event) (rest []byte) {
	body := record[recordLead:][:binary.LittleEndian.Uint32(record[28:])]
	*e = Event{
		Revision: id.Revision(binary.LittleEndian.Uint64(record)), prevMain: id.Revision(binary.LittleEndian.Uint64(record[8:])),
		Sub: binary.LittleEndian.Uint32(record[16:]), prevSub: binary.LittleEndian.Uint32(record[20:]),
		Deleted: record[36] == 1, Body: body[:len(body):len(body)],
	}
	e.Key = keyOf(body, int(binary.LittleEndian.Uint32(record[24:])))
	end := recordLead + len(body) + int(binary.LittleEndian.Uint32(record[32:]))
	e.previous = record[recordLead+len(body) : end : end]
	return record[end:]
}

// keyOf is the key inside of a body, of which the length is known.
func keyOf(body []byte, length int) []byte {
	if body[0] == tagEventType {
		body = body[2:]
	}
	_, n := binary.Uvarint(body[1:]) // of the pair
	body = body[1+n:]
	_, n = binary.Uvarint(body[1:]) // of the key
	return body[1+n:][:length:length]
}
