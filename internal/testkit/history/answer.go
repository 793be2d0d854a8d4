package history

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// answer is what a call ends with: a message, or a refusal with its code and
// text.
type answer struct {
	message proto.Message
	code    codes.Code
	text    string
}

func (a answer) String() string {
	if a.code != codes.OK {
		return fmt.Sprintf("%v %q", a.code, a.text)
	}
	return fmt.Sprintf("%T{%v}", a.message, a.message)
}

// answered makes an answer of what a stub returned.
func answered(m proto.Message, err error) answer {
	if err != nil {
		s := status.Convert(err)
		return answer{code: s.Code(), text: s.Message()}
	}
	return answer{message: m}
}

// refusals are the codes and the whole texts of spec 1.3 and 2.2.
var refusals = []struct {
	err  error
	code codes.Code
	text string
}{
	{command.ErrEmptyKey, codes.InvalidArgument, "etcdserver: key is not provided"},
	{command.ErrKeyNotFound, codes.InvalidArgument, "etcdserver: key not found"},
	{command.ErrValueProvided, codes.InvalidArgument, "etcdserver: value is provided"},
	{command.ErrLeaseProvided, codes.InvalidArgument, "etcdserver: lease is provided"},
	{command.ErrTooManyOps, codes.InvalidArgument, "etcdserver: too many operations in txn request"},
	{command.ErrDuplicateKey, codes.InvalidArgument, "etcdserver: duplicate key given in txn request"},
	{command.ErrBadSort, codes.InvalidArgument, "etcdserver: invalid sort option"},
	{command.ErrCompacted, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
	{command.ErrFutureRevision, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
	{command.ErrLeaseExists, codes.FailedPrecondition, "etcdserver: lease already exists"},
	{command.ErrLeaseNotFound, codes.NotFound, "etcdserver: requested lease not found"},
	{errStreamSort, codes.Unimplemented, "RangeStream does not support custom sort orders"},
	{errStreamFilter, codes.Unimplemented, "RangeStream does not support revision filters"},
}

var (
	errStreamSort   = errors.New("a stream in an order of its own")
	errStreamFilter = errors.New("a stream with a filter")
)

// expected asks the oracle and makes the answer of what it says.
func expected(oracle *model.Store, step Step, request any) answer {
	var response any
	var err error
	if step.Stream {
		response, err = streamed(oracle, request.(*command.RangeRequest))
	} else {
		response, err = oracle.Do(request)
	}
	if err != nil {
		for _, r := range refusals {
			if errors.Is(err, r.err) {
				return answer{code: r.code, text: r.text}
			}
		}
		panic(fmt.Sprintf("the oracle refuses with %v", err))
	}
	return answer{message: responseMessage(response)}
}

// streamed is what the pieces of a stream amount to (spec 2.2).
func streamed(oracle *model.Store, r *command.RangeRequest) (any, error) {
	switch err := model.Validate(r); {
	case err != nil:
		return nil, err
	case r.Order == command.SortDescend, r.Order == command.SortAscend && r.Target != command.SortByKey:
		return nil, errStreamSort
	case r.MinModRevision != 0, r.MaxModRevision != 0, r.MinCreateRevision != 0, r.MaxCreateRevision != 0:
		return nil, errStreamFilter
	}
	byKey := *r
	byKey.Target = command.SortByKey
	return oracle.Do(&byKey)
}

// responseMessage makes the message of a response. Its header has the revision
// only: the rest is the server's.
func responseMessage(response any) proto.Message {
	switch r := response.(type) {
	case *command.RangeResponse:
		return rangeMessage(r)
	case *command.PutResponse:
		return putMessage(r)
	case *command.DeleteRangeResponse:
		return deleteMessage(r)
	case *command.TxnResponse:
		m := txnMessage(r)
		m.Header = headerMessage(r.Revision)
		return m
	case *command.LeaseGrantResponse:
		return &pb.LeaseGrantResponse{Header: headerMessage(r.Revision), ID: int64(r.ID), TTL: r.TTL}
	case *command.LeaseRevokeResponse:
		return &pb.LeaseRevokeResponse{Header: headerMessage(r.Revision)}
	case *command.CompactResponse:
		return &pb.CompactionResponse{Header: headerMessage(r.Revision)}
	}
	panic(fmt.Sprintf("%T is no response", response))
}

func headerMessage(rev id.Revision) *pb.ResponseHeader {
	return &pb.ResponseHeader{Revision: int64(rev)}
}

func rangeMessage(r *command.RangeResponse) *pb.RangeResponse {
	return &pb.RangeResponse{Header: headerMessage(r.Revision), Kvs: pairMessages(r.KVs), More: r.More, Count: r.Count}
}

func putMessage(r *command.PutResponse) *pb.PutResponse {
	m := &pb.PutResponse{Header: headerMessage(r.Revision)}
	if r.Prev != nil {
		m.PrevKv = pairMessage(*r.Prev)
	}
	return m
}

func deleteMessage(r *command.DeleteRangeResponse) *pb.DeleteRangeResponse {
	return &pb.DeleteRangeResponse{Header: headerMessage(r.Revision), Deleted: r.Deleted, PrevKvs: pairMessages(r.Prevs)}
}

// txnMessage leaves the header empty, as that of a nested txn is.
func txnMessage(r *command.TxnResponse) *pb.TxnResponse {
	m := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: r.Succeeded}
	for _, op := range r.Responses {
		out := &pb.ResponseOp{}
		switch {
		case op.Range != nil:
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: rangeMessage(op.Range)}
		case op.Put != nil:
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: putMessage(op.Put)}
		case op.Delete != nil:
			out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: deleteMessage(op.Delete)}
		case op.Txn != nil:
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: txnMessage(op.Txn)}
		}
		m.Responses = append(m.Responses, out)
	}
	return m
}

func pairMessage(kv command.KeyValue) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: kv.Key, Value: kv.Value, CreateRevision: int64(kv.CreateRevision),
		ModRevision: int64(kv.ModRevision), Version: kv.Version, Lease: int64(kv.Lease),
	}
}

func pairMessages(kvs []command.KeyValue) []*mvccpb.KeyValue {
	var out []*mvccpb.KeyValue
	for _, kv := range kvs {
		out = append(out, pairMessage(kv))
	}
	return out
}
