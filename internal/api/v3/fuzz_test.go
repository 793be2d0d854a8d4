package v3

import (
	"bytes"
	"reflect"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/state/command"
)

// What passes the checks at the door goes into the log, and what is in the log
// must be readable by every member: a command that its own decoder refused would
// stop them all. Requests are any bytes that parse.
func FuzzWhatIsTakenCanBeDecoded(f *testing.F) {
	op := func(r *pb.RequestOp) []*pb.RequestOp { return []*pb.RequestOp{r} }
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: -1, PrevKv: true}}}
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}, Limit: -1, Revision: -7, SortTarget: 4, MinModRevision: 1 << 60}}}
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("d"), RangeEnd: []byte("c")}}}
	inner := &pb.TxnRequest{
		Compare: []*pb.Compare{
			{Key: []byte("k"), Target: 99, Result: -1}, {Key: []byte("k"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("x")}},
			{Key: []byte("k"), Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: -5}},
		},
		Success: op(put), Failure: op(get),
	}
	outer := &pb.TxnRequest{Success: []*pb.RequestOp{del, get, {Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}}}}
	for kind, m := range []proto.Message{get.GetRequestRange(), put.GetRequestPut(), del.GetRequestDeleteRange(), outer, &pb.CompactionRequest{Revision: -9, Physical: true}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(kind), b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, message []byte) {
		body := taken(kind%5, message)
		if body == nil {
			return
		}
		encoded := command.Encode(nil, command.Header{Wall: 1}, body)
		c, err := command.Decode(encoded)
		if err != nil {
			t.Fatalf("%T is taken and cannot be decoded: %v", body, err)
		}
		again := command.Encode(nil, c.Header, c.Body)
		if !bytes.Equal(encoded, again) || reflect.TypeOf(c.Body) != reflect.TypeOf(body) {
			t.Fatalf("%+v\ncomes back as\n%+v", body, c.Body)
		}
	})
}

// taken is the command of a message that parses and passes the checks, or nil.
// A range is not replicated alone: it goes into a txn.
func taken(kind uint8, message []byte) command.Body {
	parsed := func(m proto.Message) bool { return proto.Unmarshal(message, m) == nil }
	const maxOps = 128
	switch kind {
	case 0:
		if m := new(pb.RangeRequest); parsed(m) {
			in := rangeFromWire(m)
			txn := &command.TxnRequest{Success: []command.Op{{Range: &in}}}
			if in.Validate() == nil && command.ValidateTxn(txn, maxOps) == nil {
				return txn
			}
		}
	case 1:
		if m := new(pb.PutRequest); parsed(m) {
			if in := putFromWire(m); in.Validate() == nil {
				return &in
			}
		}
	case 2:
		if m := new(pb.DeleteRangeRequest); parsed(m) {
			if in := deleteFromWire(m); in.Validate() == nil {
				return &in
			}
		}
	case 3:
		if m := new(pb.TxnRequest); parsed(m) {
			if in := txnFromWire(m); command.ValidateTxn(&in, maxOps) == nil {
				return &in
			}
		}
	case 4:
		if m := new(pb.CompactionRequest); parsed(m) {
			in := compactFromWire(m)
			return &in
		}
	}
	return nil
}
