package memdb

import (
	"encoding/binary"
	"errors"

	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// An op in a batch and in a frame: its kind, then a length (uvarint) and the
// bytes of the key, then the same of the value. Of a deletion the value is
// empty, of a cut key and value are the bounds of the range that goes.
const (
	opSet    = 's'
	opDelete = 'd'
	opCut    = 'c'
)

var errOp = errors.New("an operation that nobody wrote")

type batch struct{ ops []byte }

// Set is engine.Batch's.
func (b *batch) Set(key, value []byte) { b.ops = appendOp(b.ops, opSet, key, value) }

// Delete is engine.Batch's.
func (b *batch) Delete(key []byte) { b.ops = appendOp(b.ops, opDelete, key, nil) }

// Bytes is engine.Batch's.
func (b *batch) Bytes() int { return len(b.ops) }

// Reset is engine.Batch's.
func (b *batch) Reset() { b.ops = b.ops[:0] }

// Close is engine.Batch's.
func (b *batch) Close() { b.ops = nil }

// checkKey asks before it makes arguments of the key: they would be allocated.
func checkKey(key []byte) {
	if !keys.Valid(key) {
		invariant.Fail("key %x was not made by a builder", key)
	}
}

func appendOp(ops []byte, kind byte, key, value []byte) []byte {
	checkKey(key)
	ops = append(ops, kind)
	ops = binary.AppendUvarint(ops, uint64(len(key)))
	ops = append(ops, key...)
	ops = binary.AppendUvarint(ops, uint64(len(value)))
	return append(ops, value...)
}

// apply carries ops out; the tree keeps their bytes.
func (e *edit) apply(ops []byte) error {
	for len(ops) > 0 {
		kind, key, value, rest, err := decodeOp(ops)
		if err != nil {
			return err
		}
		switch kind {
		case opSet:
			e.set(key, value)
		case opDelete:
			e.delete(key)
		case opCut:
			e.deleteRange(key, value)
		}
		ops = rest
	}
	return nil
}

func decodeOp(ops []byte) (kind byte, key, value, rest []byte, err error) {
	kind = ops[0]
	key, rest, ok := cutField(ops[1:])
	if ok {
		value, rest, ok = cutField(rest)
	}
	known := kind == opSet || kind == opDelete && len(value) == 0 || kind == opCut && keys.Valid(value)
	if !ok || !known || !keys.Valid(key) {
		return 0, nil, nil, nil, errOp
	}
	return kind, key, value, rest, nil
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	end := w + int(n)
	return b[w:end:end], b[end:], true
}
