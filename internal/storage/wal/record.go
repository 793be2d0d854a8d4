package wal

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/kvorum/kvorum/internal/id"
)

// Record is one thing that a group wants remembered. The log gives only Sum a
// meaning.
type Record struct {
	Group id.Group
	Kind  uint8
	Term  id.Term
	Index id.Index
	// Sum is Sum(Group, Kind, Term, Index, Data), made once by whoever made the
	// record (rule 3).
	Sum  uint32
	Data []byte
}

// RecordHeadBytes is what a record takes besides its data:
// sum 4 | length 4 | group 4 | kind 1, zero 3 | term 8 | index 8.
const RecordHeadBytes = 32

// Sum is the CRC32C of a record (rule 3): of group, kind, term and index, each in
// little-endian order as the record's head has them, and then of the data.
func Sum(group id.Group, kind uint8, term id.Term, index id.Index, data []byte) uint32 {
	// By hand, since what is handed to hash/crc32 is moved to the heap.
	c := sumWord(^uint32(0), uint64(group)|uint64(kind)<<32)
	c = sumWord(sumWord(c, uint64(term)), uint64(index))
	return crc32.Update(^c, castagnoli, data)
}

// sumWord continues an (inverted) CRC with eight bytes, the lowest first.
func sumWord(c uint32, word uint64) uint32 {
	word ^= uint64(c)
	c = 0
	for shift, table := 0, &wordTables; shift < 8; shift++ {
		c ^= table[7-shift][byte(word>>(8*shift))]
	}
	return c
}

// wordTables[n] is the effect of a byte that n bytes follow.
var wordTables = func() (t [8]crc32.Table) {
	t[0] = *castagnoli
	for i := range 256 {
		for n := 1; n < 8; n++ {
			before := t[n-1][i]
			t[n][i] = castagnoli[byte(before)] ^ before>>8
		}
	}
	return t
}()

// ErrRecord is what a record that cannot be decoded is refused with.
var ErrRecord = errors.New("wal: bad record")

func (r *Record) putHead(b *[RecordHeadBytes]byte) {
	le.PutUint32(b[0:], r.Sum)
	le.PutUint32(b[4:], uint32(len(r.Data)))
	le.PutUint32(b[8:], uint32(r.Group))
	b[12], b[13], b[14], b[15] = r.Kind, 0, 0, 0
	le.PutUint64(b[16:], uint64(r.Term))
	le.PutUint64(b[24:], uint64(r.Index))
}

// DecodeRecord reads the record at the beginning of p and returns its size. Data
// is a part of p. Errors wrap ErrRecord and say what is wrong.
func DecodeRecord(p []byte) (r Record, size int, err error) {
	if len(p) < RecordHeadBytes {
		return r, 0, fmt.Errorf("%w: %d bytes left", ErrRecord, len(p))
	}
	length := le.Uint32(p[4:])
	if uint64(length) > uint64(len(p)-RecordHeadBytes) {
		return r, 0, fmt.Errorf("%w: its %d bytes of data do not fit", ErrRecord, length)
	}
	if p[13]|p[14]|p[15] != 0 {
		return r, 0, fmt.Errorf("%w: unknown flags", ErrRecord)
	}
	size = RecordHeadBytes + int(length)
	r = Record{
		Sum: le.Uint32(p), Group: id.Group(le.Uint32(p[8:])), Kind: p[12],
		Term: id.Term(le.Uint64(p[16:])), Index: id.Index(le.Uint64(p[24:])),
		Data: p[RecordHeadBytes:size:size],
	}
	if r.Sum != Sum(r.Group, r.Kind, r.Term, r.Index, r.Data) {
		return r, 0, fmt.Errorf("%w: its sum does not match", ErrRecord)
	}
	return r, size, nil
}
