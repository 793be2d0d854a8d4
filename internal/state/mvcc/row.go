package mvcc

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// The values of the store's rows; docs/format/engine-rows.md describes them.
// Each decoder accepts exactly what its encoder writes.

// version is one stored version of a key.
type version struct {
	create, mod id.Revision
	sub         uint32
	// number counts the versions of the key since its creation, from 1.
	number int64
	lease  id.Lease
	value  []byte
	// dead marks a tombstone: of the rest only mod and sub mean anything.
	dead bool
}

const flagDead = 1

// Tags of mvccpb.KeyValue: the part of a row after its two leading bytes is the
// wire form of every field but the key, so that an answer can take it as it is.
const (
	tagKey     = 1<<3 | 2
	tagCreate  = 2 << 3
	tagMod     = 3 << 3
	tagVersion = 4 << 3
	tagLease   = 6 << 3
	tagValue   = 5<<3 | 2
)

var errRow = errors.New("not a row that this program writes")

// appendVersion appends the value of a version's row.
func appendVersion(dst []byte, v *version) []byte {
	start := len(dst)
	if v.dead {
		dst = append(dst, flagDead, 0)
		dst = appendField(dst, tagMod, uint64(v.mod))
		dst[start+1] = byte(len(dst) - start - 2)
		return dst
	}
	dst = append(dst, 0, 0)
	dst = appendField(dst, tagCreate, uint64(v.create))
	dst = appendField(dst, tagMod, uint64(v.mod))
	dst = appendField(dst, tagVersion, uint64(v.number))
	dst = appendField(dst, tagLease, uint64(v.lease))
	dst[start+1] = byte(len(dst) - start - 2)
	return appendBytes(dst, tagValue, v.value)
}

func appendField(dst []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return binary.AppendUvarint(append(dst, tag), v)
}

func appendBytes(dst []byte, tag byte, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(append(dst, tag), uint64(len(b)))
	return append(dst, b...)
}

// decodeVersion reads the value of the row of (main, sub); the version's value
// aliases row.
func decodeVersion(row []byte, main id.Revision, sub uint32) (version, error) {
	if len(row) < 2 || row[0]&^flagDead != 0 || len(row) < 2+int(row[1]) {
		return version{}, errRow
	}
	meta, rest := row[2:2+int(row[1])], row[2+int(row[1]):]
	v := version{sub: sub, dead: row[0] == flagDead}
	var create, mod, number, lease uint64
	ok := field(&meta, tagCreate, &create) && field(&meta, tagMod, &mod) &&
		field(&meta, tagVersion, &number) && field(&meta, tagLease, &lease)
	if !ok || len(meta) != 0 || id.Revision(mod) != main || mod == 0 {
		return version{}, errRow
	}
	v.create, v.mod, v.number, v.lease = id.Revision(create), id.Revision(mod), int64(number), id.Lease(lease)
	if v.dead {
		if create != 0 || number != 0 || lease != 0 || len(rest) != 0 {
			return version{}, errRow
		}
		return v, nil
	}
	if v.create <= 0 || v.create > v.mod || v.number <= 0 {
		return version{}, errRow
	}
	v.value, ok = valueOf(rest)
	if !ok {
		return version{}, errRow
	}
	return v, nil
}

// decodeHead is decodeVersion for who takes the row as it is: of what is before the
// value it looks at no more than its length and whether it is a tombstone's.
func decodeHead(row []byte, main id.Revision, sub uint32) (version, error) {
	if len(row) < 2 || row[0]&^flagDead != 0 || len(row) < 2+int(row[1]) {
		return version{}, errRow
	}
	v := version{mod: main, sub: sub, dead: row[0] == flagDead}
	var ok bool
	if v.value, ok = valueOf(row[2+int(row[1]):]); !ok || v.dead && len(v.value) > 0 {
		return version{}, errRow
	}
	return v, nil
}

// valueOf is the value at the end of a row, which may be none.
func valueOf(rest []byte) (value []byte, ok bool) {
	if len(rest) == 0 {
		return nil, true
	}
	n, value, ok := uvarint(rest[1:])
	return value, ok && rest[0] == tagValue && n != 0 && n == uint64(len(value))
}

// field takes a field off the front of b if it is the next one. It is false for
// one that no encoder writes.
func field(b *[]byte, tag byte, v *uint64) bool {
	if len(*b) == 0 || (*b)[0] != tag {
		return true
	}
	n, rest, ok := uvarint((*b)[1:])
	*v, *b = n, rest
	return ok && n != 0
}

func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// change is a row of the history: what happened at one revision.
type change struct {
	key  []byte
	dead bool
	// prev is the live version that the change superseded; prevMain is 0 if the
	// key was not there. prevValue is the length of its value.
	prevMain  id.Revision
	prevSub   uint32
	prevValue int
}

const flagPrev = 2

// pastRows are the rows of the history that a batch is to have, which come into it
// behind all others: each lies next to the one before it, and a memtable finds its
// place there at once. Between rows of keys it searched from the top for both.
type pastRows struct {
	bytes []byte
	ends  []int // of the key and of the value of each
}

func (p *pastRows) add(group id.Group, c *change, main id.Revision, sub uint32) {
	p.bytes = keys.AppendHistory(p.bytes, group, main, sub)
	p.ends = append(p.ends, len(p.bytes))
	p.bytes = appendChange(p.bytes, c)
	p.ends = append(p.ends, len(p.bytes))
}

// moveTo puts the rows into the batch; the memory is used again unless it is much.
func (p *pastRows) moveTo(batch engine.Batch) {
	at := 0
	for i := 0; i < len(p.ends); i += 2 {
		key, value := p.ends[i], p.ends[i+1]
		batch.Set(p.bytes[at:key], p.bytes[key:value])
		at = value
	}
	p.bytes, p.ends = p.bytes[:0], p.ends[:0]
	if cap(p.bytes) > 1<<20 {
		*p = pastRows{}
	}
}

// appendChange appends the value of a change's row.
func appendChange(dst []byte, c *change) []byte {
	var flags byte
	if c.dead {
		flags |= flagDead
	}
	if c.prevMain == 0 {
		return append(append(dst, flags), c.key...)
	}
	dst = append(dst, flags|flagPrev)
	dst = binary.AppendUvarint(dst, uint64(c.prevMain))
	dst = binary.AppendUvarint(dst, uint64(c.prevSub))
	dst = binary.AppendUvarint(dst, uint64(c.prevValue))
	return append(dst, c.key...)
}

// decodeChange reads the value of the row of a change at (main, sub); the key
// aliases row.
func decodeChange(row []byte, main id.Revision, sub uint32) (change, error) {
	if len(row) == 0 || row[0]&^(flagDead|flagPrev) != 0 {
		return change{}, errRow
	}
	c := change{dead: row[0]&flagDead != 0, key: row[1:]}
	if row[0]&flagPrev != 0 {
		var fields [3]uint64
		for i := range fields {
			n, rest, ok := uvarint(c.key)
			if !ok {
				return change{}, errRow
			}
			fields[i], c.key = n, rest
		}
		if fields[0] == 0 || fields[0] > 1<<62 || fields[1] > 1<<32-1 || fields[2] > 1<<40 {
			return change{}, errRow
		}
		c.prevMain, c.prevSub, c.prevValue = id.Revision(fields[0]), uint32(fields[1]), int(fields[2])
		if c.prevMain > main || c.prevMain == main && c.prevSub >= sub {
			return change{}, errRow
		}
	}
	if len(c.key) == 0 || c.dead && c.prevMain == 0 {
		return change{}, errRow
	}
	return c, nil
}

// Names and format of the rows about the store as a whole.
const (
	rowState   = "mvcc"
	rowRemoval = "removal"
	metaFormat = 1
)

func appendNumbers(dst []byte, numbers ...int64) []byte {
	dst = append(dst, metaFormat)
	for _, n := range numbers {
		dst = binary.AppendVarint(dst, n)
	}
	return dst
}

// decodeNumbers reads a row of len(numbers) signed numbers.
func decodeNumbers(row []byte, numbers []int64) error {
	if len(row) == 0 {
		return errRow
	}
	if row[0] != metaFormat {
		return fmt.Errorf("row of unknown format %d", row[0])
	}
	row = row[1:]
	for i := range numbers {
		u, rest, ok := uvarint(row)
		if !ok {
			return errRow
		}
		numbers[i], row = int64(u>>1)^-int64(u&1), rest
	}
	if len(row) != 0 {
		return errRow
	}
	return nil
}
