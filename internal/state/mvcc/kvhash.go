package mvcc

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// The hash that HashKV answers with is etcd's, bit for bit (spec 6.2): a CRC-32C
// over the word "key" and then, in the order of revisions, every version with its
// revision as key. Rows lie in key order here. Since the sum of a concatenation
// follows from the sums of its parts, each version is summed as it comes by, and
// the sums are put together in the order of revisions afterwards.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hashAtOnce bounds the versions whose sums are held in memory; a larger store is
// walked several times, once for that many versions in the order of revisions.
const hashAtOnce = 512 << 10

// KVHash is the answer to HashKV.
type KVHash struct {
	Sum uint32
	// At is the revision up to which versions were counted, Compacted the compact
	// revision at which, -1 for none.
	At, Compacted id.Revision
	// Now is the view's revision.
	Now id.Revision
}

// HashKV sums every version up to a revision, but for those that compaction lets
// go, removed or not; rev 0 is the view's revision, a negative one (spec 6.2, a
// quirk) has no versions. Replicas at the same position give the same sum. It
// reads all keys. Errors: command.ErrFutureRevision; command.ErrCompacted, also
// when a compaction overtakes the walk, and then a newer view can answer;
// ErrReplaced, engine.ErrIterators, *DamageError; and what goOn returns, which is
// asked between two slices.
func (v *View) HashKV(rev id.Revision, goOn func() error) (KVHash, error) {
	return v.hashKV(rev, hashAtOnce, goOn)
}

func (v *View) hashKV(rev id.Revision, atOnce int, goOn func() error) (KVHash, error) {
	if rev == 0 {
		rev = v.Revision
	}
	h := KVHash{Sum: crc32.Checksum([]byte("key"), castagnoli), At: rev, Compacted: v.Compacted, Now: v.Revision}
	if rev < 0 {
		return h, nil
	}
	if err := v.readable(rev); err != nil {
		return KVHash{}, err
	}
	var join joiner
	for after := (summed{}); ; {
		w := hashWalk{View: v, rev: rev, after: after, most: atOnce, goOn: goOn}
		if err := w.run(); err != nil {
			return KVHash{}, err
		}
		for _, s := range w.sums {
			h.Sum = join.sum(h.Sum, s.sum, s.length)
			after = s
		}
		if !w.left {
			return h, nil
		}
	}
}

// summed is one version: where it stands among revisions, and the sum and length
// of its bytes.
type summed struct {
	main   id.Revision
	sub    uint32
	sum    uint32
	length uint32
}

func (s summed) compare(o summed) int {
	return cmp.Or(cmp.Compare(s.main, o.main), cmp.Compare(s.sub, o.sub))
}

// hashWalk collects the sums of the first versions after one in the order of
// revisions.
type hashWalk struct {
	*View
	rev   id.Revision
	after summed
	most  int
	goOn  func() error

	sums []summed // in order once run has returned
	left bool     // there are more versions behind those in sums

	row []byte
	// user is the key whose versions are being walked; settled: its newest version
	// at or below rev was met.
	user    []byte
	settled bool
}

// run walks all versions. An iterator is closed after a slice, and every slice
// asks again whether the walk may go on (rules 22, 23).
func (w *hashWalk) run() error {
	at := keys.AppendUserKey(nil, w.group, nil)
	low, high := at, keys.AppendDataEnd(nil, w.group)
	for at != nil {
		if err := w.goOn(); err != nil {
			return err
		}
		it, err := w.open(low, high, w.rev)
		if err != nil {
			return err
		}
		if w.horizon().Compacted != w.Compacted {
			err = command.ErrCompacted
		} else {
			at, err = w.slice(it, at)
		}
		it.Close()
		w.readers.Add(-1)
		if err != nil {
			return err
		}
		low = keys.AppendUserKey(low[:0:0], w.group, w.user)
	}
	w.cut()
	return nil
}

// slice walks from a row on and returns the row where the next slice begins.
func (w *hashWalk) slice(it engine.Iterator, from []byte) (next []byte, err error) {
	read := 0
	for ok := it.SeekGE(from); ok; ok = it.Next() {
		key := it.Key()
		if read >= sliceBytes {
			return bytes.Clone(key), nil
		}
		_, user, main, sub, decoded := keys.DecodeVersion(key)
		if !decoded {
			return nil, &DamageError{keys.Text(key).String(), errRow}
		}
		v, err := versionAt(it, key, main, sub)
		if err != nil {
			return nil, err
		}
		read += len(key) + len(v.value)
		w.take(user, &v)
	}
	if err := it.Err(); err != nil {
		return nil, &DamageError{"of the keys", err}
	}
	return nil, nil
}

// take sums a version if it counts.
func (w *hashWalk) take(user []byte, v *version) {
	if !bytes.Equal(user, w.user) {
		w.user, w.settled = append(w.user[:0], user...), false
	}
	if v.mod > w.rev {
		return
	}
	// Of what is at or below the compact revision etcd counts what a compaction to the
	// revision asked for would keep: versions superseded since are not summed either.
	superseded := w.settled
	w.settled = true
	if v.mod <= w.Compacted && (superseded || v.dead) {
		return
	}
	s := summed{main: v.mod, sub: v.sub}
	if s.compare(w.after) <= 0 {
		return
	}
	w.row = appendHashed(w.row[:0], user, v)
	s.sum, s.length = crc32.Checksum(w.row, castagnoli), uint32(len(w.row))
	w.sums = append(w.sums, s)
	if len(w.sums) >= 2*w.most {
		w.cut()
	}
}

// cut puts the sums in order and keeps as many as are wanted.
func (w *hashWalk) cut() {
	slices.SortFunc(w.sums, summed.compare)
	if len(w.sums) > w.most {
		w.sums, w.left = w.sums[:w.most], true
	}
}

// appendHashed appends the bytes of a version that are summed: those that etcd
// has on disk.
func appendHashed(dst, user []byte, v *version) []byte {
	return appendPair(appendRevision(dst, v), user, v)
}

// appendRevision appends the revision of a version as etcd names it; a tombstone is a
// mark on it.
func appendRevision(dst []byte, v *version) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.mod))
	dst = append(dst, '_')
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.sub))
	if v.dead {
		dst = append(dst, 't')
	}
	return dst
}

// appendPair appends a version as mvccpb.KeyValue; of a tombstone the key only.
func appendPair(dst, user []byte, v *version) []byte {
	dst = appendBytes(dst, tagKey, user)
	if v.dead {
		return dst
	}
	dst = appendField(dst, tagCreate, uint64(v.create))
	dst = appendField(dst, tagMod, uint64(v.mod))
	dst = appendField(dst, tagVersion, uint64(v.number))
	dst = appendBytes(dst, tagValue, v.value)
	return appendField(dst, tagLease, uint64(v.lease))
}

// joiner gives the CRC-32C of a concatenation. To append n bytes is to multiply,
// as polynomials over GF(2), by x to the power of 8n.
type joiner struct {
	length uint32
	power  uint32 // x^(8 length)
}

// sum joins the sum of a beginning and that of an end of so many bytes.
func (j *joiner) sum(begin, end, length uint32) uint32 {
	if length != j.length || j.power == 0 {
		j.length, j.power = length, powerOf(length)
	}
	return multiply(begin, j.power) ^ end
}

// Polynomials have their bits reversed, as the tables of CRC-32 do: the highest
// bit is x^0.
const (
	polynomialOne = 1 << 31
	polynomialX8  = 1 << 23
)

// powerOf is x^(8n).
func powerOf(n uint32) uint32 {
	result, square := uint32(polynomialOne), uint32(polynomialX8)
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			result = multiply(result, square)
		}
		square = multiply(square, square)
	}
	return result
}

// multiply multiplies modulo Castagnoli's polynomial.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&polynomialOne != 0 {
			product ^= b
		}
		// b times x
		if b&1 != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return product
}
