package v3

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// The requests of the KV service, read from their bytes without messages in
// between; byte strings of a request are parts of the bytes. What the walk over
// the fields calls odd goes to the generated code, which then has the say, also
// over the words of a refusal: both ways must give the same (FuzzRequests).

// unreadable is what grpc-go answers a message that does not parse.
func unreadable(err error) error {
	return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
}

// oddly parses with the generated code.
func oddly(message []byte, m proto.Message) error {
	if err := proto.Unmarshal(message, m); err != nil {
		return unreadable(err)
	}
	return nil
}

// readPut reads a PutRequest.
func readPut(message []byte, p *command.PutRequest) error {
	if decodePut(message, p) {
		return nil
	}
	m := new(pb.PutRequest)
	err := oddly(message, m)
	*p = putFromWire(m)
	return err
}

// readRange reads a RangeRequest.
func readRange(message []byte, r *command.RangeRequest) error {
	if decodeRange(message, r) {
		return nil
	}
	m := new(pb.RangeRequest)
	err := oddly(message, m)
	*r = rangeFromWire(m)
	return err
}

// readDelete reads a DeleteRangeRequest.
func readDelete(message []byte, d *command.DeleteRangeRequest) error {
	if decodeDelete(message, d) {
		return nil
	}
	m := new(pb.DeleteRangeRequest)
	err := oddly(message, m)
	*d = deleteFromWire(m)
	return err
}

// readTxn reads a TxnRequest; its parts lie in parts.
func readTxn(message []byte, t *command.TxnRequest, parts *txnParts) error {
	if parts.decodeTxn(message, t, 1) {
		return nil
	}
	m := new(pb.TxnRequest)
	err := oddly(message, m)
	*t = txnFromWire(m)
	return err
}

// The decoders are false where the message is odd, and have written half of the
// request then.

func decodePut(message []byte, p *command.PutRequest) bool {
	*p = command.PutRequest{}
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case stringed(1):
			p.Key = f.bytes
		case stringed(2):
			p.Value = f.bytes
		case numbered(3):
			p.Lease = id.Lease(f.number)
		case numbered(4):
			p.PrevKV = f.number != 0
		case numbered(5):
			p.IgnoreValue = f.number != 0
		case numbered(6):
			p.IgnoreLease = f.number != 0
		}
	}
	return !f.odd
}

func decodeRange(message []byte, r *command.RangeRequest) bool {
	*r = command.RangeRequest{}
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case stringed(1):
			r.Key = f.bytes
		case stringed(2):
			r.End = f.bytes
		case numbered(3):
			r.Limit = int64(f.number)
		case numbered(4):
			r.Revision = id.Revision(f.number)
		case numbered(5):
			r.Order = enum[command.SortOrder](int32(f.number))
		case numbered(6):
			r.Target = enum[command.SortTarget](int32(f.number))
		case numbered(7):
			r.Serializable = f.number != 0
		case numbered(8):
			r.KeysOnly = f.number != 0
		case numbered(9):
			r.CountOnly = f.number != 0
		case numbered(10):
			r.MinModRevision = id.Revision(f.number)
		case numbered(11):
			r.MaxModRevision = id.Revision(f.number)
		case numbered(12):
			r.MinCreateRevision = id.Revision(f.number)
		case numbered(13):
			r.MaxCreateRevision = id.Revision(f.number)
		}
	}
	return !f.odd
}

func decodeDelete(message []byte, d *command.DeleteRangeRequest) bool {
	*d = command.DeleteRangeRequest{}
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case stringed(1):
			d.Key = f.bytes
		case stringed(2):
			d.End = f.bytes
		case numbered(3):
			d.PrevKV = f.number != 0
		}
	}
	return !f.odd
}

// operand is which field of a compare's target_union came last; the others are
// as if they had not come.
var operand = [...]uint64{
	command.CompareVersion: numbered(4),
	command.CompareCreate:  numbered(5),
	command.CompareMod:     numbered(6),
	command.CompareValue:   stringed(7),
	command.CompareLease:   numbered(8),
}

func decodeCompare(message []byte, c *command.Compare) bool {
	*c = command.Compare{}
	var union, number uint64
	var value []byte
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case numbered(1):
			c.Result = enum[command.CompareResult](int32(f.number))
		case numbered(2):
			c.Target = enum[command.CompareTarget](int32(f.number))
		case stringed(3):
			c.Key = f.bytes
		case numbered(4), numbered(5), numbered(6), numbered(8):
			union, number = f.tag, f.number
		case stringed(7):
			union, value = f.tag, f.bytes
		case stringed(64):
			c.End = f.bytes
		}
	}
	// An operand of another kind than the target counts as zero (spec 2.5).
	if int(c.Target) < len(operand) && operand[c.Target] == union {
		if c.Target == command.CompareValue {
			c.Value = value
		} else {
			c.Number = int64(number)
		}
	}
	return !f.odd
}

// txnParts is memory for the parts of one txn at a time. A part stays where it
// is as long as the txn is in use: when a slab is full, another one begins.
type txnParts struct {
	compares []command.Compare
	ops      []command.Op
	ranges   []command.RangeRequest
	puts     []command.PutRequest
	deletes  []command.DeleteRangeRequest
	txns     []command.TxnRequest
}

// keptParts of a kind are kept for the next txn; a txn of the usual limit has no
// more.
const keptParts = 128

// empty makes room for the next txn.
func (p *txnParts) empty() {
	p.compares, p.ops, p.ranges = emptied(p.compares), emptied(p.ops), emptied(p.ranges)
	p.puts, p.deletes, p.txns = emptied(p.puts), emptied(p.deletes), emptied(p.txns)
}

func emptied[T any](slab []T) []T {
	if cap(slab) > 2*keptParts {
		return nil
	}
	clear(slab)
	return slab[:0]
}

// carve takes n parts off a slab.
func carve[T any](slab *[]T, n int) []T {
	if n == 0 {
		return nil
	}
	if cap(*slab)-len(*slab) < n {
		*slab = make([]T, 0, max(n, 2*cap(*slab), 4))
	}
	at := len(*slab)
	*slab = (*slab)[:at+n]
	return (*slab)[at : at+n : at+n]
}

// decodeTxn decodes in two passes: the first counts the parts.
func (p *txnParts) decodeTxn(message []byte, t *command.TxnRequest, depth int) bool {
	*t = command.TxnRequest{}
	if depth > command.MaxTxnDepth {
		return false // how deep a message may be is the generated code's affair
	}
	var compares, success, failure int
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case stringed(1):
			compares++
		case stringed(2):
			success++
		case stringed(3):
			failure++
		}
	}
	if f.odd {
		return false
	}
	t.Compares = carve(&p.compares, compares)
	t.Success, t.Failure = carve(&p.ops, success), carve(&p.ops, failure)
	compares, success, failure = 0, 0, 0
	f = fields{rest: message}
	for ok := true; f.next(); {
		switch f.tag {
		case stringed(1):
			ok = decodeCompare(f.bytes, &t.Compares[compares])
			compares++
		case stringed(2):
			ok = p.decodeOp(f.bytes, &t.Success[success], depth)
			success++
		case stringed(3):
			ok = p.decodeOp(f.bytes, &t.Failure[failure], depth)
			failure++
		}
		if !ok {
			return false
		}
	}
	return true
}

// decodeOp decodes one operation. An operation that comes in pieces would have to
// be merged: that is odd.
func (p *txnParts) decodeOp(message []byte, op *command.Op, depth int) bool {
	*op = command.Op{}
	f := fields{rest: message}
	for ok := true; f.next(); {
		if f.tag < stringed(1) || f.tag > stringed(4) || f.tag&7 != 2 {
			continue
		}
		if *op != (command.Op{}) {
			return false
		}
		switch f.tag {
		case stringed(1):
			op.Range = &carve(&p.ranges, 1)[0]
			ok = decodeRange(f.bytes, op.Range)
		case stringed(2):
			op.Put = &carve(&p.puts, 1)[0]
			ok = decodePut(f.bytes, op.Put)
		case stringed(3):
			op.Delete = &carve(&p.deletes, 1)[0]
			ok = decodeDelete(f.bytes, op.Delete)
		case stringed(4):
			op.Txn = &carve(&p.txns, 1)[0]
			ok = p.decodeTxn(f.bytes, op.Txn, depth+1)
		}
		if !ok {
			return false
		}
	}
	return !f.odd
}
