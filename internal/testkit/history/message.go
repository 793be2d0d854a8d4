package history

import (
	"math"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/state/command"
)

// form draws how a request looks as a message where several messages mean the
// same: which of the unknown numbers an enum has, of which other kind the operand
// of a compare is, fields that nobody knows.
type form struct{ *rand.Rand }

// Message makes the message of a request about keys or leases; the seed draws its form.
func Message(request any, seed uint64) proto.Message {
	f := form{rand.New(rand.NewPCG(seed, 0))}
	var m proto.Message
	switch r := request.(type) {
	case *command.RangeRequest:
		m = f.ranges(r)
	case *command.PutRequest:
		m = f.put(r)
	case *command.DeleteRangeRequest:
		m = f.remove(r)
	case *command.TxnRequest:
		m = f.txn(r)
	case *command.LeaseGrant:
		m = &pb.LeaseGrantRequest{ID: int64(r.ID), TTL: r.TTL}
	case *command.LeaseRevoke:
		m = &pb.LeaseRevokeRequest{ID: int64(r.ID)}
	case *command.CompactRequest:
		m = &pb.CompactionRequest{Revision: int64(r.Revision), Physical: r.Physical}
	}
	f.strange(m)
	return m
}

// strange adds a field that the service does not have, now and then.
func (f form) strange(m proto.Message) {
	if f.IntN(40) != 0 {
		return
	}
	field := protowire.AppendTag(nil, 1000, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendBytes(field, []byte("unknown")))
}

// outside are numbers that no enum has; 256 and more must not be cut to a byte.
var outside = []int32{7, 9, 255, 256, 257, 1 << 16, -1, -256, math.MinInt32, math.MaxInt32}

// enum gives a known number as it is and for any other one that is unknown.
func enum[E ~int32, T ~uint8](f form, v T, known T) E {
	if v <= known {
		return E(v)
	}
	if v == known+1 {
		return E(v) // the first beyond
	}
	return E(outside[f.IntN(len(outside))])
}

func (f form) ranges(r *command.RangeRequest) *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.End, Limit: r.Limit, Revision: int64(r.Revision),
		SortOrder:    enum[pb.RangeRequest_SortOrder](f, r.Order, command.SortDescend),
		SortTarget:   enum[pb.RangeRequest_SortTarget](f, r.Target, command.SortByValue),
		Serializable: r.Serializable, KeysOnly: r.KeysOnly, CountOnly: r.CountOnly,
		MinModRevision: int64(r.MinModRevision), MaxModRevision: int64(r.MaxModRevision),
		MinCreateRevision: int64(r.MinCreateRevision), MaxCreateRevision: int64(r.MaxCreateRevision),
	}
}

func (f form) put(r *command.PutRequest) *pb.PutRequest {
	return &pb.PutRequest{
		Key: r.Key, Value: r.Value, Lease: int64(r.Lease),
		PrevKv: r.PrevKV, IgnoreValue: r.IgnoreValue, IgnoreLease: r.IgnoreLease,
	}
}

func (f form) remove(r *command.DeleteRangeRequest) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: r.Key, RangeEnd: r.End, PrevKv: r.PrevKV}
}

func (f form) txn(r *command.TxnRequest) *pb.TxnRequest {
	t := &pb.TxnRequest{Success: f.ops(r.Success), Failure: f.ops(r.Failure)}
	for _, c := range r.Compares {
		t.Compare = append(t.Compare, f.compare(c))
	}
	return t
}

func (f form) ops(ops []command.Op) []*pb.RequestOp {
	var out []*pb.RequestOp
	for _, op := range ops {
		m := &pb.RequestOp{}
		switch {
		case op.Range != nil:
			m.Request = &pb.RequestOp_RequestRange{RequestRange: f.ranges(op.Range)}
		case op.Put != nil:
			m.Request = &pb.RequestOp_RequestPut{RequestPut: f.put(op.Put)}
		case op.Delete != nil:
			m.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: f.remove(op.Delete)}
		case op.Txn != nil:
			m.Request = &pb.RequestOp_RequestTxn{RequestTxn: f.txn(op.Txn)}
		}
		out = append(out, m)
	}
	return out
}

// compare makes a compare. An operand that is zero may also be missing, or be of
// another kind than the target (spec 2.5); that of an unknown target is never
// looked at.
func (f form) compare(c command.Compare) *pb.Compare {
	m := &pb.Compare{
		Key: c.Key, RangeEnd: c.End,
		Result: enum[pb.Compare_CompareResult](f, c.Result, command.NotEqual),
		Target: enum[pb.Compare_CompareTarget](f, c.Target, command.CompareLease),
	}
	operand := c.Target
	if c.Target > command.CompareLease {
		operand = command.CompareTarget(f.IntN(6))
	} else if c.Number == 0 && len(c.Value) == 0 && f.IntN(3) == 0 {
		operand = (operand + 1 + command.CompareTarget(f.IntN(5))) % 6 // any but its own, or none
		c.Number, c.Value = f.Int64(), []byte("of another kind")
	}
	switch operand {
	case command.CompareVersion:
		m.TargetUnion = &pb.Compare_Version{Version: c.Number}
	case command.CompareCreate:
		m.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.Number}
	case command.CompareMod:
		m.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.Number}
	case command.CompareValue:
		m.TargetUnion = &pb.Compare_Value{Value: c.Value}
	case command.CompareLease:
		m.TargetUnion = &pb.Compare_Lease{Lease: c.Number}
	}
	return m
}
