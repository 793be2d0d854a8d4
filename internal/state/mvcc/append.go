package mvcc

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"

	"github.com/kvorum/kvorum/internal/id"
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
	if len(r.End) == 0 {
		v.done.Ranges.Add(1)
		return v.appendOne(dst, r, rev)
	}
	s, err := v.scan(r.Key, r.End, rev)
	defer s.close()
	if err != nil {
		return dst, Appended{}, err
	}
	s.rows = !r.Filtered()
	out, got, err := appendAll(dst, s, r, most)
	if err != nil {
		return out[:len(dst)], Appended{}, err
	}
	v.done.Ranges.Add(1)
	return out, got, nil
}

// bounds are the engine keys of a read of one key; their memory is used again.
type bounds struct{ low, high, seek []byte }

var oneKey = sync.Pool{New: func() any { return new(bounds) }}

// appendOne is AppendRange for a single key.
func (v *View) appendOne(dst []byte, r *command.RangeRequest, rev id.Revision) ([]byte, Appended, error) {
	newest := v.rows != nil && rev == v.Revision && !r.CountOnly && !r.Filtered()
	if newest {
		if out, ok := v.rows.appendNewest(dst, r.Key, rev, r.KeysOnly); ok {
			return out, Appended{Count: 1}, nil
		}
	}
	k := oneKey.Get().(*bounds)
	defer oneKey.Put(k)
	k.low = keys.AppendUserKey(k.low[:0], v.group, r.Key)
	k.high = keys.AppendAfterUserKey(k.high[:0], v.group, r.Key)
	k.seek = keys.AppendAtOrBelow(k.seek[:0], v.group, r.Key, rev)
	it, err := v.open(k.low, k.high, rev)
	if err != nil {
		return dst, Appended{}, err
	}
	defer v.readers.Add(-1)
	defer it.Close()
	if !it.SeekGE(k.seek) {
		if err := it.Err(); err != nil {
			return dst, Appended{}, &DamageError{"of the keys", err}
		}
		return dst, Appended{}, nil
	}
	_, _, main, sub, ok := keys.DecodeVersion(it.Key())
	if !ok {
		return dst, Appended{}, &DamageError{keys.Text(it.Key()).String(), errRow}
	}
	ver, err := versionAt(it, it.Key(), main, sub)
	switch {
	case err != nil:
		return dst, Appended{}, err
	case ver.dead:
		return dst, Appended{}, nil
	case r.CountOnly || !passes(r, &ver):
		return dst, Appended{Count: 1}, nil
	}
	row, err := it.Value()
	if err != nil {
		return dst, Appended{}, &DamageError{keys.Text(it.Key()).String(), err}
	}
	if newest {
		v.rows.keep(r.Key, row, ver.mod, rev)
	}
	return appendItem(dst, r.Key, row, r.KeysOnly), Appended{Count: 1}, nil
}

// appendAll walks a scan of a view until all pairs are there, and counts what comes
// after them.
func appendAll(dst []byte, s *scan, r *command.RangeRequest, most AppendLimits) ([]byte, Appended, error) {
	var got Appended
	var pairs int64
	var walked bool // the fences do not know what is left
	start := len(dst)
	for {
		// full: what follows is only counted, by the fences if they know the range.
		full := r.CountOnly || r.Limit > 0 && pairs == r.Limit && !r.Filtered()
		if full && !walked && (most.Rows == 0 || s.countable()) {
			n, err := s.rest()
			got.Count += n
			got.More = got.More || n > 0 && !r.CountOnly
			return dst, got, err
		}
		walked = full
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
		// A view has no overlay: what the scan found last is a row.
		dst = appendItem(dst, key, s.row, r.KeysOnly)
	}
}

// countable says whether what is left can be counted without walking over all of it.
func (s *scan) countable() bool {
	_, ok := s.leap()
	return ok
}

// appendItem appends a pair whose row has been decoded before, as the generated code
// marshals it: the lease, which a row has before the value, comes behind it.
func appendItem(dst, key, row []byte, keysOnly bool) []byte {
	metaEnd, end := 2+int(row[1]), len(row)
	if keysOnly {
		end = metaEnd
	}
	dst = append(dst, tagPairs)
	dst = binary.AppendUvarint(dst, uint64(1+sizeUvarint(uint64(len(key)))+len(key)+end-2))
	dst = binary.AppendUvarint(append(dst, tagKey), uint64(len(key)))
	dst = append(dst, key...)
	lease := leaseAt(row[:metaEnd])
	if lease == metaEnd || end == metaEnd {
		return append(dst, row[2:end]...)
	}
	dst = append(dst, row[2:lease]...)
	dst = append(dst, row[metaEnd:end]...)
	return append(dst, row[lease:metaEnd]...)
}

// leaseAt finds where the lease is in the front part of a row, whose last field it
// is; where the part ends if there is none.
func leaseAt(meta []byte) int {
	at := 2
	for at < len(meta) && meta[at] != tagLease {
		for at++; at < len(meta) && meta[at] >= 0x80; at++ {
		}
		at++
	}
	return min(at, len(meta))
}

// itemSize is what appendItem appends.
func itemSize(key, row []byte, keysOnly bool) int {
	end := len(row)
	if keysOnly {
		end = 2 + int(row[1])
	}
	size := 1 + sizeUvarint(uint64(len(key))) + len(key) + end - 2
	return 1 + sizeUvarint(uint64(size)) + size
}

func sizeUvarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
