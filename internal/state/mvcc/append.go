package mvcc

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// A range in the form of the wire: the rows of the store end in what a message of
// the pair ends in (row.go), so an answer is the rows with their keys before
// them, copied once, from the engine's block to the buffer of the connection.

// AppendLimits end a walk with ErrLonger when more rows are looked at, or more
// bytes appended. Zero is no limit.
type AppendLimits struct {
	Rows  int64
	Bytes int
}

// Appended is what an answer says after its pairs.
type Appended struct {
	More  bool
	Count int64
}

// ErrLonger says that an answer goes beyond the limits of who asked for it.
var ErrLonger = errors.New("mvcc: the answer is longer")

// tagPairs is field 2 of a RangeResponse.
const tagPairs = 2<<3 | 2

// AppendRange appends the pairs that answer a range in key order
// (command.RangeRequest.KeyOrder), each as field 2 of a RangeResponse. What comes
// with an error is dst, perhaps in another place. Errors: as of Range, ErrLonger.
func (v *View) AppendRange(dst []byte, r *command.RangeRequest, most AppendLimits) ([]byte, Appended, error) {
	rev := r.Revision
	if rev <= 0 {
		rev = v.Revision
	}
	if err := v.readable(rev); err != nil {
		return dst, Appended{}, err
	}
	s, err := v.scan(r.Key, r.End, rev)
	defer s.close()
	if err != nil {
		return dst, Appended{}, err
	}
	out, got, err := appendAll(dst, s, r, most)
	if err != nil {
		return out[:len(dst)], Appended{}, err
	}
	return out, got, nil
}

// appendAll walks a scan of a view to its end.
func appendAll(dst []byte, s *scan, r *command.RangeRequest, most AppendLimits) ([]byte, Appended, error) {
	var got Appended
	var pairs int64
	start := len(dst)
	for {
		key, v, err := s.next()
		if err != nil || v == nil {
			return dst, got, err
		}
		got.Count++
		if most.Rows > 0 && got.Count > most.Rows || most.Bytes > 0 && len(dst)-start > most.Bytes {
			return dst, got, ErrLonger
		}
		if r.CountOnly || got.More || !passes(r, v) {
			continue
		}
		if r.Limit > 0 && pairs == r.Limit {
			got.More = true
			continue
		}
		pairs++
		if dst, err = s.appendPair(dst, key, r.KeysOnly); err != nil {
			return dst, got, err
		}
	}
}

// appendPair appends the version that the scan of a view found last: its iterator
// still stands there.
func (s *scan) appendPair(dst, key []byte, keysOnly bool) ([]byte, error) {
	row, err := s.it.Value()
	if err != nil {
		return dst, &DamageError{keys.Text(s.it.Key()).String(), err}
	}
	end := len(row)
	if keysOnly {
		end = 2 + int(row[1])
	}
	tail := row[2:end]
	dst = append(dst, tagPairs)
	dst = binary.AppendUvarint(dst, uint64(1+sizeUvarint(uint64(len(key)))+len(key)+len(tail)))
	dst = binary.AppendUvarint(append(dst, tagKey), uint64(len(key)))
	dst = append(dst, key...)
	return append(dst, tail...), nil
}

func sizeUvarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
