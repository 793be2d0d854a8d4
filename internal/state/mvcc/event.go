package mvcc

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Event is one change of a key, as watches see it.
type Event struct {
	Revision id.Revision
	// Sub counts the changes of one revision, from 0.
	Sub     uint32
	Deleted bool
	Key     []byte
	// Body is mvccpb.Event as it is on the wire, without prev_kv; nil in a walk of the
	// Past, which has it by Past.Event.
	Body []byte

	// The live version that the change superseded; prevMain is 0 for none.
	prevMain id.Revision
	prevSub  uint32
	// previous is that version as AppendPrevious gives it, where a Sweep has met it; nil:
	// it is to be looked up.
	previous []byte
}

// Tags of mvccpb.Event; its type is 1 for a deletion and left out for a put.
const (
	tagEventType = 1 << 3
	tagEventKV   = 2<<3 | 2
)

// rowLead is what a version's row has before the fields of mvccpb.KeyValue.
const rowLead = 2

func uvarintSize(v int) int { return (bits.Len64(uint64(v)|1) + 6) / 7 }

// kvSize is the length of mvccpb.KeyValue of a version.
func kvSize(key int, row []byte) int { return 1 + uvarintSize(key) + key + len(row) - rowLead }

func eventSize(key int, row []byte, dead bool) int {
	kv := kvSize(key, row)
	size := 1 + uvarintSize(kv) + kv
	if dead {
		size += 2
	}
	return size
}

// appendEvent appends a body; keyAt is where in dst the key lies.
func appendEvent(dst, key, row []byte, dead bool) (out []byte, keyAt int) {
	if dead {
		dst = append(dst, tagEventType, 1)
	}
	dst = binary.AppendUvarint(append(dst, tagEventKV), uint64(kvSize(len(key), row)))
	dst = appendKV(dst, key, row)
	return dst, len(dst) - len(row) + rowLead - len(key)
}

// appendKV appends mvccpb.KeyValue of a version: the row's fields as they are.
func appendKV(dst, key, row []byte) []byte {
	dst = binary.AppendUvarint(append(dst, tagKey), uint64(len(key)))
	dst = append(dst, key...)
	return append(dst, row[rowLead:]...)
}

// kvOf is the KeyValue inside the body of a put.
func kvOf(body []byte) []byte {
	_, n := binary.Uvarint(body[1:])
	return body[1+n:]
}

// AppendPrevious appends mvccpb.KeyValue as it was one revision before the event;
// nothing for a key that was not there, or when that revision is compacted (spec
// 3.2). Errors: ErrReplaced, engine.ErrIterators, *DamageError.
func (v *View) AppendPrevious(dst []byte, e *Event) ([]byte, error) {
	before := e.Revision - 1
	if defect.On(defect.PreviousOfNow) {
		return v.appendAt(dst, e.Key, v.Revision)
	}
	if e.prevMain == 0 && e.Sub == 0 || before < v.Compacted {
		return dst, nil
	}
	if len(e.previous) > 0 {
		return append(dst, e.previous...), nil
	}
	if e.prevMain == 0 || e.prevMain == e.Revision {
		if e.Sub == 0 {
			return dst, nil
		}
		return v.appendAt(dst, e.Key, before)
	}
	if body := v.ring.find(e.prevMain, e.prevSub); body != nil {
		return append(dst, kvOf(body)...), nil
	}
	row, found, err := v.row(e.Key, e.prevMain, e.prevSub)
	switch {
	case err != nil:
		return dst, err
	case found:
		return appendKV(dst, e.Key, row), nil
	case before < v.horizon().Compacted:
		return dst, nil
	}
	return dst, &DamageError{keys.Text(keys.AppendVersion(nil, v.group, e.Key, e.prevMain, e.prevSub)).String(), engine.ErrNotFound}
}

// appendAt is AppendPrevious for a key that has changed twice in one revision.
func (v *View) appendAt(dst, key []byte, rev id.Revision) ([]byte, error) {
	s, err := v.scan(key, nil, rev)
	if errors.Is(err, command.ErrCompacted) {
		return dst, nil
	}
	if err != nil {
		return dst, err
	}
	defer s.close()
	_, found, err := s.next()
	if err != nil || found == nil {
		return dst, err
	}
	return appendKV(dst, key, appendVersion(nil, found)), nil
}

// row reads the row of one version. Errors: ErrReplaced, *DamageError.
func (v *View) row(key []byte, main id.Revision, sub uint32) (row []byte, found bool, err error) {
	at := keys.AppendVersion(nil, v.group, key, main, sub)
	row, err = v.db.Get(at, nil)
	if v.horizon().Loads != v.loads {
		return nil, false, ErrReplaced
	}
	if errors.Is(err, engine.ErrNotFound) {
		return nil, false, nil
	}
	if err == nil {
		_, err = decodeVersion(row, main, sub)
	}
	if err != nil {
		return nil, false, &DamageError{keys.Text(at).String(), err}
	}
	return row, true, nil
}
