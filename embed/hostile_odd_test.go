package embed

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// odd is a request that nobody should send and that is answered all the same.
type odd struct {
	what    string
	method  string
	message []byte
	answer  interface {
		proto.Message
		GetHeader() *pb.ResponseHeader
	}
	check func(answer proto.Message) bool
}

// stranger are fields that no message has, of every wire type.
func stranger() []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1<<63)
	b = protowire.AppendBytes(protowire.AppendTag(b, 1001, protowire.BytesType), []byte("\xff unknown"))
	b = append(protowire.AppendTag(b, 1002, protowire.Fixed32Type), 1, 2, 3, 4)
	b = append(protowire.AppendTag(b, 1003, protowire.Fixed64Type), 1, 2, 3, 4, 5, 6, 7, 8)
	b = protowire.AppendTag(b, 1004, protowire.StartGroupType)
	b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), 7)
	return protowire.AppendTag(b, 1004, protowire.EndGroupType)
}

// branch is a txn that asks one thing; what it says is whether the compare held.
func branch(what string, c *pb.Compare, holds bool) odd {
	return odd{"a compare " + what, pb.KV_Txn_FullMethodName, encoded(&pb.TxnRequest{Compare: []*pb.Compare{c}}), &pb.TxnResponse{},
		func(a proto.Message) bool { return a.(*pb.TxnResponse).Succeeded == holds }}
}

func oddities() []odd {
	k, none := []byte("k"), []byte("none")
	with := func(m proto.Message, more []byte) []byte { return append(encoded(m), more...) }
	count := func(n int64) func(proto.Message) bool {
		return func(a proto.Message) bool { return a.(*pb.RangeResponse).Count == n }
	}
	asks := func(what string, r *pb.RangeRequest, n int64) odd {
		return odd{"a range " + what, pb.KV_Range_FullMethodName, encoded(r), &pb.RangeResponse{}, count(n)}
	}
	one := &pb.Compare_Version{Version: 1}
	list := []odd{
		{"a range with unknown fields", pb.KV_Range_FullMethodName, with(&pb.RangeRequest{Key: k}, stranger()), &pb.RangeResponse{}, count(1)},
		{"a key given twice: the last one counts", pb.KV_Range_FullMethodName, append(encoded(&pb.RangeRequest{Key: none}), encoded(&pb.RangeRequest{Key: k})...), &pb.RangeResponse{}, count(1)},
		{"a bool of 7 and a long varint", pb.KV_Range_FullMethodName, append(encoded(&pb.RangeRequest{Key: k}), 0x48, 0x87, 0x80, 0x80, 0x00), &pb.RangeResponse{},
			func(a proto.Message) bool {
				return a.(*pb.RangeResponse).Count == 1 && len(a.(*pb.RangeResponse).Kvs) == 0
			}},
		asks("of negative limit and revision", &pb.RangeRequest{Key: k, RangeEnd: []byte{0}, Limit: -5, Revision: -9}, 2),
		asks("of the smallest numbers there are", &pb.RangeRequest{Key: k, Limit: -1 << 63, Revision: -1 << 63, MinModRevision: -1 << 63, MaxCreateRevision: 1<<63 - 1}, 1),
		asks("that ends before it begins", &pb.RangeRequest{Key: []byte("z"), RangeEnd: []byte("a")}, 0),
		asks("of filters that contradict", &pb.RangeRequest{Key: k, MinModRevision: 9, MaxModRevision: 2}, 1),
		asks("counted, keys only, limited and sorted", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true, KeysOnly: true, Limit: 1, SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_VALUE}, 2),
		{"an empty txn", pb.KV_Txn_FullMethodName, nil, &pb.TxnResponse{}, func(a proto.Message) bool { return a.(*pb.TxnResponse).Succeeded }},
		{"a txn of unknown fields", pb.KV_Txn_FullMethodName, stranger(), &pb.TxnResponse{}, func(a proto.Message) bool { return a.(*pb.TxnResponse).Succeeded }},
		branch("of unknown target: equal", &pb.Compare{Key: k, Target: 77}, true),
		branch("of unknown target: not unequal", &pb.Compare{Key: k, Target: -1, Result: pb.Compare_NOT_EQUAL}, false),
		branch("of unknown target, on no key", &pb.Compare{Key: none, Target: 300, Result: pb.Compare_LESS}, false),
		branch("of unknown result: true", &pb.Compare{Key: k, Target: pb.Compare_VERSION, Result: 99, TargetUnion: one}, true),
		branch("of unknown result, on no key", &pb.Compare{Key: none, Target: pb.Compare_MOD, Result: -3}, true),
		branch("of unknown result, on the value of no key: false", &pb.Compare{Key: none, Target: pb.Compare_VALUE, Result: 256}, false),
		branch("of unknown result and target, on no key", &pb.Compare{Key: none, Target: 256, Result: 256}, true),
		branch("with another operand than its target", &pb.Compare{Key: k, Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: one}, true),
		branch("without operand", &pb.Compare{Key: k, Target: pb.Compare_VALUE, Result: pb.Compare_EQUAL}, false),
		branch("over a reversed range", &pb.Compare{Key: k, RangeEnd: []byte("a"), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL}, true),
		branch("over all keys, one of which fails", &pb.Compare{Key: []byte{0}, RangeEnd: []byte{0}, Target: pb.Compare_VERSION, TargetUnion: one}, false),
		{"a put with unknown fields", pb.KV_Put_FullMethodName, with(&pb.PutRequest{Key: []byte("new"), Value: k, PrevKv: true}, stranger()), &pb.PutResponse{},
			func(a proto.Message) bool { return a.(*pb.PutResponse).Header.Revision == 6 }},
		{"a txn of 128 of everything", pb.KV_Txn_FullMethodName, encoded(&pb.TxnRequest{Compare: comparesOf(128), Success: puts(128, "p"), Failure: puts(128, "q")}), &pb.TxnResponse{},
			func(a proto.Message) bool { return len(a.(*pb.TxnResponse).Responses) == 128 }},
		{"126 puts and a nested txn of one", pb.KV_Txn_FullMethodName, encoded(&pb.TxnRequest{Success: append(puts(126, "p"), txnOf(&pb.TxnRequest{Success: puts(1, "q"), Failure: puts(1, "q")}))}), &pb.TxnResponse{},
			func(a proto.Message) bool { return len(a.(*pb.TxnResponse).Responses) == 127 }},
		{"two nested txns with all that is left each", pb.KV_Txn_FullMethodName, encoded(&pb.TxnRequest{Success: []*pb.RequestOp{
			txnOf(&pb.TxnRequest{Success: puts(126, "p")}), txnOf(&pb.TxnRequest{Success: puts(126, "q")})}}), &pb.TxnResponse{},
			func(a proto.Message) bool { return len(a.(*pb.TxnResponse).Responses) == 2 }},
		{"a deletion of nothing", pb.KV_DeleteRange_FullMethodName, encoded(&pb.DeleteRangeRequest{Key: []byte("z"), RangeEnd: []byte("y"), PrevKv: true}), &pb.DeleteRangeResponse{},
			func(a proto.Message) bool { return a.(*pb.DeleteRangeResponse).Deleted == 0 }},
		{"a deletion of everything", pb.KV_DeleteRange_FullMethodName, encoded(&pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}), &pb.DeleteRangeResponse{},
			func(a proto.Message) bool { return a.(*pb.DeleteRangeResponse).Deleted > 200 }},
	}
	return list
}

// ask sends an oddity and returns its answer without what differs from cluster
// to cluster.
func ask(t *testing.T, name string, conn *grpc.ClientConn, c odd) proto.Message {
	t.Helper()
	b, err := invoke(t.Context(), conn, c.method, c.message)
	if err != nil {
		t.Errorf("%s: %s: %v", name, c.what, err)
		return nil
	}
	answer := proto.Clone(c.answer).(interface {
		proto.Message
		GetHeader() *pb.ResponseHeader
	})
	if err := proto.Unmarshal(b, answer); err != nil {
		t.Fatalf("%s: %s: %v", name, c.what, err)
	}
	if !c.check(answer) {
		t.Errorf("%s: %s: %.500s", name, c.what, fmt.Sprint(answer))
	}
	h := answer.GetHeader()
	if h == nil {
		t.Fatalf("%s: %s: no header", name, c.what)
	}
	h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	return answer
}

// One table, two servers: odd requests have the same answers, field by field.
func TestOddRequests(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	var ours []proto.Message
	for _, c := range oddities() {
		ours = append(ours, ask(t, "kvorum", m.conn, c))
	}
	// 3.4 gives a list of alarms no header, and crashes at an unknown action.
	list, err := pb.NewMaintenanceClient(m.conn).Alarm(t.Context(), &pb.AlarmRequest{Alarm: 99, MemberID: 1})
	if err != nil || len(list.Alarms) != 0 || list.Header.GetRevision() == 0 {
		t.Errorf("alarms of an unknown type: %v, %v", list, err)
	}
	for _, action := range []int32{3, -1, 99} {
		_, err := pb.NewMaintenanceClient(m.conn).Alarm(t.Context(), &pb.AlarmRequest{Action: pb.AlarmRequest_AlarmAction(action)})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("alarm action %d: %v", action, err)
		}
	}
	t.Run("etcd 3.4", func(t *testing.T) {
		conn, _ := debian(t)
		fourPuts(t, conn)
		for i, c := range oddities() {
			if theirs := ask(t, "etcd 3.4", conn, c); ours[i] != nil && theirs != nil && !proto.Equal(ours[i], theirs) {
				t.Errorf("%s: ours\n%.1000s\netcd's\n%.1000s", c.what, fmt.Sprint(ours[i]), fmt.Sprint(theirs))
			}
		}
	})
}
