package command

import (
	"encoding/binary"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

// The bodies of format version 1. Each value has exactly one encoding: varints
// are minimal and unused flag bits are refused, so that equal commands are equal
// bytes and a decoder never forgives what no encoder writes.

// MaxTxnDepth is how deep txns may be nested, the outermost counting as 1.
const MaxTxnDepth = 256

const (
	flagPrevKV = 1 << iota
	flagIgnoreValue
	flagIgnoreLease
)

const (
	flagSerializable = 1 << iota
	flagKeysOnly
	flagCountOnly
)

const (
	opRange  = 1
	opPut    = 2
	opDelete = 3
	opTxn    = 4
)

// The least bytes that one of them is encoded in: a list's length is checked
// against what is left before anything is allocated for it.
const (
	leastCompare = 6
	leastOp      = 4
	leastString  = 1
)

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func (p *PutRequest) appendTo(dst []byte) []byte {
	dst = append(dst, flag(p.PrevKV, flagPrevKV)|flag(p.IgnoreValue, flagIgnoreValue)|flag(p.IgnoreLease, flagIgnoreLease))
	dst = binary.AppendVarint(dst, int64(p.Lease))
	dst = appendBytes(dst, p.Key)
	return appendBytes(dst, p.Value)
}

func (p *PutRequest) decode(r *reader) {
	f := r.flags(flagPrevKV | flagIgnoreValue | flagIgnoreLease)
	p.PrevKV, p.IgnoreValue, p.IgnoreLease = f&flagPrevKV != 0, f&flagIgnoreValue != 0, f&flagIgnoreLease != 0
	p.Lease = id.Lease(r.varint())
	p.Key = r.bytes()
	p.Value = r.bytes()
}

func (d *DeleteRangeRequest) appendTo(dst []byte) []byte {
	dst = append(dst, flag(d.PrevKV, flagPrevKV))
	dst = appendBytes(dst, d.Key)
	return appendBytes(dst, d.End)
}

func (d *DeleteRangeRequest) decode(r *reader) {
	d.PrevKV = r.flags(flagPrevKV) != 0
	d.Key = r.bytes()
	d.End = r.bytes()
}

func (q *RangeRequest) appendTo(dst []byte) []byte {
	dst = append(dst, flag(q.Serializable, flagSerializable)|flag(q.KeysOnly, flagKeysOnly)|flag(q.CountOnly, flagCountOnly),
		byte(q.Order), byte(q.Target))
	dst = appendBytes(dst, q.Key)
	dst = appendBytes(dst, q.End)
	dst = binary.AppendVarint(dst, q.Limit)
	dst = binary.AppendVarint(dst, int64(q.Revision))
	dst = binary.AppendVarint(dst, int64(q.MinModRevision))
	dst = binary.AppendVarint(dst, int64(q.MaxModRevision))
	dst = binary.AppendVarint(dst, int64(q.MinCreateRevision))
	return binary.AppendVarint(dst, int64(q.MaxCreateRevision))
}

func (q *RangeRequest) decode(r *reader) {
	f := r.flags(flagSerializable | flagKeysOnly | flagCountOnly)
	q.Serializable, q.KeysOnly, q.CountOnly = f&flagSerializable != 0, f&flagKeysOnly != 0, f&flagCountOnly != 0
	q.Order, q.Target = SortOrder(r.byte()), SortTarget(r.byte())
	q.Key = r.bytes()
	q.End = r.bytes()
	q.Limit = r.varint()
	q.Revision = id.Revision(r.varint())
	q.MinModRevision, q.MaxModRevision = id.Revision(r.varint()), id.Revision(r.varint())
	q.MinCreateRevision, q.MaxCreateRevision = id.Revision(r.varint()), id.Revision(r.varint())
}

func (c *Compare) appendTo(dst []byte) []byte {
	dst = append(dst, byte(c.Result), byte(c.Target))
	dst = appendBytes(dst, c.Key)
	dst = appendBytes(dst, c.End)
	dst = binary.AppendVarint(dst, c.Number)
	return appendBytes(dst, c.Value)
}

func (c *Compare) decode(r *reader) {
	c.Result, c.Target = CompareResult(r.byte()), CompareTarget(r.byte())
	c.Key = r.bytes()
	c.End = r.bytes()
	c.Number = r.varint()
	c.Value = r.bytes()
}

func (t *TxnRequest) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(t.Compares)))
	for i := range t.Compares {
		dst = t.Compares[i].appendTo(dst)
	}
	dst = appendOps(dst, t.Success)
	return appendOps(dst, t.Failure)
}

func appendOps(dst []byte, ops []Op) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ops)))
	for i := range ops {
		switch op := &ops[i]; {
		case op.Range != nil:
			dst = op.Range.appendTo(append(dst, opRange))
		case op.Put != nil:
			dst = op.Put.appendTo(append(dst, opPut))
		case op.Delete != nil:
			dst = op.Delete.appendTo(append(dst, opDelete))
		default:
			invariant.Check(op.Txn != nil, "encoded an operation that is not set")
			dst = op.Txn.appendTo(append(dst, opTxn))
		}
	}
	return dst
}

func (t *TxnRequest) decode(r *reader) {
	r.depth++
	if r.depth > MaxTxnDepth {
		r.fail("txns nested too deep")
		return
	}
	if n := r.count(leastCompare); n > 0 {
		t.Compares = make([]Compare, n)
		for i := range t.Compares {
			t.Compares[i].decode(r)
		}
	}
	t.Success = decodeOps(r)
	t.Failure = decodeOps(r)
	r.depth--
}

func decodeOps(r *reader) []Op {
	n := r.count(leastOp)
	if n == 0 {
		return nil
	}
	ops := make([]Op, n)
	for i := range ops {
		switch r.byte() {
		case opRange:
			ops[i].Range = new(RangeRequest)
			ops[i].Range.decode(r)
		case opPut:
			ops[i].Put = new(PutRequest)
			ops[i].Put.decode(r)
		case opDelete:
			ops[i].Delete = new(DeleteRangeRequest)
			ops[i].Delete.decode(r)
		case opTxn:
			ops[i].Txn = new(TxnRequest)
			ops[i].Txn.decode(r)
		default:
			r.fail("unknown operation")
		}
		if r.err != "" {
			return nil
		}
	}
	return ops
}

func (c *CompactRequest) appendTo(dst []byte) []byte {
	dst = append(dst, flag(c.Physical, 1))
	return binary.AppendVarint(dst, int64(c.Revision))
}

func (c *CompactRequest) decode(r *reader) {
	c.Physical = r.flags(1) != 0
	c.Revision = id.Revision(r.varint())
}

func appendStrings(dst []byte, list []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, s := range list {
		dst = appendString(dst, s)
	}
	return dst
}
