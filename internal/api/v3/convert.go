package v3

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// The messages of the wire as requests of the server, and its answers as
// messages. Byte slices are shared, not copied.

// enum narrows a number of the wire; one that no enum has stays one that no enum
// has, for the checks that follow.
func enum[T ~uint8, E ~int32](e E) T {
	if e < 0 || e > math.MaxUint8 {
		return T(math.MaxUint8)
	}
	return T(e)
}

func rangeFromWire(r *pb.RangeRequest) command.RangeRequest {
	return command.RangeRequest{
		Key: r.GetKey(), End: r.GetRangeEnd(), Limit: r.GetLimit(), Revision: id.Revision(r.GetRevision()),
		Order: enum[command.SortOrder](r.GetSortOrder()), Target: enum[command.SortTarget](r.GetSortTarget()),
		Serializable: r.GetSerializable(), KeysOnly: r.GetKeysOnly(), CountOnly: r.GetCountOnly(),
		MinModRevision: id.Revision(r.GetMinModRevision()), MaxModRevision: id.Revision(r.GetMaxModRevision()),
		MinCreateRevision: id.Revision(r.GetMinCreateRevision()), MaxCreateRevision: id.Revision(r.GetMaxCreateRevision()),
	}
}

func putFromWire(r *pb.PutRequest) command.PutRequest {
	return command.PutRequest{
		Key: r.GetKey(), Value: r.GetValue(), Lease: id.Lease(r.GetLease()),
		PrevKV: r.GetPrevKv(), IgnoreValue: r.GetIgnoreValue(), IgnoreLease: r.GetIgnoreLease(),
	}
}

func deleteFromWire(r *pb.DeleteRangeRequest) command.DeleteRangeRequest {
	return command.DeleteRangeRequest{Key: r.GetKey(), End: r.GetRangeEnd(), PrevKV: r.GetPrevKv()}
}

func compactFromWire(r *pb.CompactionRequest) command.CompactRequest {
	return command.CompactRequest{Revision: id.Revision(r.GetRevision()), Physical: r.GetPhysical()}
}

func compareFromWire(c *pb.Compare) command.Compare {
	out := command.Compare{
		Key: c.GetKey(), End: c.GetRangeEnd(),
		Result: enum[command.CompareResult](c.GetResult()), Target: enum[command.CompareTarget](c.GetTarget()),
	}
	// An operand of another kind than the target counts as zero (spec 2.5): the
	// getters give just that.
	switch out.Target {
	case command.CompareVersion:
		out.Number = c.GetVersion()
	case command.CompareCreate:
		out.Number = c.GetCreateRevision()
	case command.CompareMod:
		out.Number = c.GetModRevision()
	case command.CompareValue:
		out.Value = c.GetValue()
	case command.CompareLease:
		out.Number = c.GetLease()
	}
	return out
}

func txnFromWire(t *pb.TxnRequest) command.TxnRequest {
	out := command.TxnRequest{Success: opsFromWire(t.GetSuccess()), Failure: opsFromWire(t.GetFailure())}
	for _, c := range t.GetCompare() {
		out.Compares = append(out.Compares, compareFromWire(c))
	}
	return out
}

func opsFromWire(ops []*pb.RequestOp) []command.Op {
	out := make([]command.Op, len(ops))
	for i, op := range ops {
		switch r := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			in := rangeFromWire(r.RequestRange)
			out[i].Range = &in
		case *pb.RequestOp_RequestPut:
			in := putFromWire(r.RequestPut)
			out[i].Put = &in
		case *pb.RequestOp_RequestDeleteRange:
			in := deleteFromWire(r.RequestDeleteRange)
			out[i].Delete = &in
		case *pb.RequestOp_RequestTxn:
			in := txnFromWire(r.RequestTxn)
			out[i].Txn = &in
		}
	}
	return out
}

func pairToWire(kv *command.KeyValue) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: kv.Key, Value: kv.Value, Version: kv.Version, Lease: int64(kv.Lease),
		CreateRevision: int64(kv.CreateRevision), ModRevision: int64(kv.ModRevision),
	}
}

func pairsToWire(kvs []command.KeyValue) []*mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	out := make([]*mvccpb.KeyValue, len(kvs))
	for i := range kvs {
		out[i] = pairToWire(&kvs[i])
	}
	return out
}

func rangeToWire(r *command.RangeResponse) *pb.RangeResponse {
	return &pb.RangeResponse{Kvs: pairsToWire(r.KVs), More: r.More, Count: r.Count}
}

func putToWire(r *command.PutResponse) *pb.PutResponse {
	if r.Prev == nil {
		return &pb.PutResponse{}
	}
	return &pb.PutResponse{PrevKv: pairToWire(r.Prev)}
}

func deleteToWire(r *command.DeleteRangeResponse) *pb.DeleteRangeResponse {
	return &pb.DeleteRangeResponse{Deleted: r.Deleted, PrevKvs: pairsToWire(r.Prevs)}
}

// txnToWire makes the answer of a txn: inner headers carry the revision only,
// that of a nested txn is there and empty (spec 1.2).
func txnToWire(t *command.TxnResponse) *pb.TxnResponse {
	out := &pb.TxnResponse{Succeeded: t.Succeeded, Responses: make([]*pb.ResponseOp, len(t.Responses))}
	for i := range t.Responses {
		out.Responses[i] = opToWire(&t.Responses[i])
	}
	return out
}

func opToWire(op *command.OpResponse) *pb.ResponseOp {
	inner := func(r id.Revision) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: int64(r)} }
	switch {
	case op.Range != nil:
		resp := rangeToWire(op.Range)
		resp.Header = inner(op.Range.Revision)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: resp}}
	case op.Put != nil:
		resp := putToWire(op.Put)
		resp.Header = inner(op.Put.Revision)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: resp}}
	case op.Delete != nil:
		resp := deleteToWire(op.Delete)
		resp.Header = inner(op.Delete.Revision)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: resp}}
	default:
		resp := txnToWire(op.Txn)
		resp.Header = &pb.ResponseHeader{}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}
	}
}
