package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// A chunk of a snapshot is a run of sorted rows (rule 21); docs/format/snapshot.md
// has the layout. Numbers are little-endian or varints:
//
//	format(1) flags(1) group(4) index(8) term(8) number(4) rows(4)
//	first key, last key: length and bytes
//	rows: length and bytes of key and value
//	CRC32C(4) of all before
const (
	chunkFormat = 1
	chunkLast   = 1 // the flag of the last chunk
	chunkHead   = 30
	chunkSum    = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamagedSnapshot is wrapped by the error of a received snapshot that is not
// whole.
var ErrDamagedSnapshot = errors.New("state: damaged snapshot")

func damagedSnapshot(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamagedSnapshot, fmt.Sprintf(format, args...))
}

// chunk is a decoded chunk; its rows alias the encoding.
type chunk struct {
	group  id.Group
	at     raft.Position
	number uint32
	last   bool
	rows   []row
}

type row struct{ key, value []byte }

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// encode appends a chunk, whose rows are given encoded.
func (c *chunk) encode(dst []byte, first, last []byte, rows int, encoded []byte) []byte {
	start := len(dst)
	var flags byte
	if c.last {
		flags = chunkLast
	}
	dst = append(dst, chunkFormat, flags)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(c.group))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.at.Index))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.at.Term))
	dst = binary.LittleEndian.AppendUint32(dst, c.number)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(rows))
	dst = appendBytes(appendBytes(dst, first), last)
	dst = append(dst, encoded...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// decodeChunk reads a chunk and checks its sum, its bounds and the order of its
// rows. Errors: ErrDamagedSnapshot.
func decodeChunk(b []byte) (*chunk, error) {
	if len(b) < chunkHead+chunkSum {
		return nil, damagedSnapshot("a chunk of %d bytes", len(b))
	}
	body := b[:len(b)-chunkSum]
	if binary.LittleEndian.Uint32(b[len(body):]) != crc32.Checksum(body, castagnoli) {
		return nil, damagedSnapshot("checksum of a chunk")
	}
	if body[0] != chunkFormat || body[1]&^chunkLast != 0 {
		return nil, damagedSnapshot("chunk of unknown format %d.%d", body[0], body[1])
	}
	c := &chunk{
		last:   body[1] == chunkLast,
		group:  id.Group(binary.LittleEndian.Uint32(body[2:])),
		at:     raft.Position{Index: id.Index(binary.LittleEndian.Uint64(body[6:])), Term: id.Term(binary.LittleEndian.Uint64(body[14:]))},
		number: binary.LittleEndian.Uint32(body[22:]),
	}
	n := binary.LittleEndian.Uint32(body[26:])
	rest := body[chunkHead:]
	first, ok1 := takeBytes(&rest)
	last, ok2 := takeBytes(&rest)
	if !ok1 || !ok2 || uint64(n) > uint64(len(rest)/2) {
		return nil, damagedSnapshot("chunk %d is cut", c.number)
	}
	c.rows = make([]row, n)
	for i := range c.rows {
		key, ok1 := takeBytes(&rest)
		value, ok2 := takeBytes(&rest)
		if !ok1 || !ok2 || i > 0 && keys.Compare(c.rows[i-1].key, key) >= 0 {
			return nil, damagedSnapshot("row %d of chunk %d", i, c.number)
		}
		c.rows[i] = row{key, value}
	}
	if len(rest) != 0 || n > 0 && !(keys.Equal(c.rows[0].key, first) && keys.Equal(c.rows[n-1].key, last)) {
		return nil, damagedSnapshot("bounds of chunk %d", c.number)
	}
	return c, nil
}

func takeBytes(b *[]byte) (field []byte, ok bool) {
	n, size := binary.Uvarint(*b)
	if size <= 0 || n > uint64(len(*b)-size) {
		return nil, false
	}
	field, *b = (*b)[size:size+int(n)], (*b)[size+int(n):]
	return field, true
}
