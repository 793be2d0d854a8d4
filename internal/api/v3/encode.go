package v3

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// The answers of the KV service, appended to a buffer of the wire as the
// generated code would marshal what the *ToWire functions make (FuzzAnswers). A
// message within a message has its length before it, so each has a size.

// appendHeader appends the header of an answer, its field 1.
func appendHeader(dst []byte, h server.Header, revision id.Revision) []byte {
	dst = appendMessage(dst, 1, headerFields(h, revision))
	dst = appendNumber(dst, 1, h.Cluster)
	dst = appendNumber(dst, 2, h.Member)
	dst = appendNumber(dst, 3, revision)
	return appendNumber(dst, 4, h.Term)
}

func headerFields(h server.Header, revision id.Revision) int {
	return sizeNumber(h.Cluster) + sizeNumber(h.Member) + sizeNumber(revision) + sizeNumber(h.Term)
}

func sizeHeader(h server.Header, revision id.Revision) int {
	return sizeMessage(headerFields(h, revision))
}

// appendInner appends the header of an answer within a txn: it carries the
// revision only (spec 1.2).
func appendInner(dst []byte, revision id.Revision) []byte {
	return appendNumber(appendMessage(dst, 1, sizeNumber(revision)), 3, revision)
}

func sizeInner(revision id.Revision) int { return sizeMessage(sizeNumber(revision)) }

func sizePair(kv *command.KeyValue) int {
	return sizeString(kv.Key) + sizeNumber(kv.CreateRevision) + sizeNumber(kv.ModRevision) +
		sizeNumber(kv.Version) + sizeString(kv.Value) + sizeNumber(kv.Lease)
}

// appendPair appends a pair as a field.
func appendPair(dst []byte, field byte, kv *command.KeyValue) []byte {
	dst = appendMessage(dst, field, sizePair(kv))
	dst = appendString(dst, 1, kv.Key)
	dst = appendNumber(dst, 2, kv.CreateRevision)
	dst = appendNumber(dst, 3, kv.ModRevision)
	dst = appendNumber(dst, 4, kv.Version)
	dst = appendString(dst, 5, kv.Value)
	return appendNumber(dst, 6, kv.Lease)
}

func appendPairs(dst []byte, field byte, kvs []command.KeyValue) []byte {
	for i := range kvs {
		dst = appendPair(dst, field, &kvs[i])
	}
	return dst
}

func sizePairs(kvs []command.KeyValue) int {
	size := 0
	for i := range kvs {
		size += sizeMessage(sizePair(&kvs[i]))
	}
	return size
}

// The bodies of answers are what comes after the header.

func appendPutBody(dst []byte, r *command.PutResponse) []byte {
	if r.Prev == nil {
		return dst
	}
	return appendPair(dst, 2, r.Prev)
}

func sizePutBody(r *command.PutResponse) int {
	if r.Prev == nil {
		return 0
	}
	return sizeMessage(sizePair(r.Prev))
}

func appendRangeBody(dst []byte, r *command.RangeResponse) []byte {
	return appendRangeEnd(appendPairs(dst, 2, r.KVs), r.More, r.Count)
}

// appendRangeEnd appends what comes after the pairs.
func appendRangeEnd(dst []byte, more bool, count int64) []byte {
	return appendNumber(appendYes(dst, 3, more), 4, count)
}

func sizeRangeBody(r *command.RangeResponse) int {
	return sizePairs(r.KVs) + sizeYes(r.More) + sizeNumber(r.Count)
}

func appendDeleteBody(dst []byte, r *command.DeleteRangeResponse) []byte {
	return appendPairs(appendNumber(dst, 2, r.Deleted), 3, r.Prevs)
}

func sizeDeleteBody(r *command.DeleteRangeResponse) int {
	return sizeNumber(r.Deleted) + sizePairs(r.Prevs)
}

func appendTxnBody(dst []byte, t *command.TxnResponse) []byte {
	dst = appendYes(dst, 2, t.Succeeded)
	for i := range t.Responses {
		dst = appendOp(dst, 3, &t.Responses[i])
	}
	return dst
}

func sizeTxnBody(t *command.TxnResponse) int {
	size := sizeYes(t.Succeeded)
	for i := range t.Responses {
		size += sizeMessage(sizeMessage(sizeOp(&t.Responses[i])))
	}
	return size
}

// sizeOp is what the answer of one operation weighs, with its header.
func sizeOp(op *command.OpResponse) int {
	switch {
	case op.Range != nil:
		return sizeInner(op.Range.Revision) + sizeRangeBody(op.Range)
	case op.Put != nil:
		return sizeInner(op.Put.Revision) + sizePutBody(op.Put)
	case op.Delete != nil:
		return sizeInner(op.Delete.Revision) + sizeDeleteBody(op.Delete)
	default:
		return sizeInner(0) + sizeTxnBody(op.Txn)
	}
}

// appendOp appends the answer of one operation of a txn as a field.
func appendOp(dst []byte, field byte, op *command.OpResponse) []byte {
	if op.Range != nil {
		return appendRangeBody(appendOpFront(dst, field, op), op.Range)
	}
	size := sizeOp(op)
	dst = appendMessage(dst, field, sizeMessage(size))
	switch {
	case op.Put != nil:
		return appendPutBody(appendInner(appendMessage(dst, 2, size), op.Put.Revision), op.Put)
	case op.Delete != nil:
		return appendDeleteBody(appendInner(appendMessage(dst, 3, size), op.Delete.Revision), op.Delete)
	default:
		return appendTxnBody(appendInner(appendMessage(dst, 4, size), 0), op.Txn)
	}
}

// appendOpFront appends what comes before the pairs of a range within a txn.
func appendOpFront(dst []byte, field byte, op *command.OpResponse) []byte {
	size := sizeOp(op)
	dst = appendMessage(dst, field, sizeMessage(size))
	return appendInner(appendMessage(dst, 1, size), op.Range.Revision)
}
