package embed

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// fuzzed are the methods whose messages the fuzzer makes, and their answers.
var fuzzed = []struct {
	method string
	answer proto.Message
}{
	{pb.KV_Range_FullMethodName, &pb.RangeResponse{}},
	{pb.KV_Put_FullMethodName, &pb.PutResponse{}},
	{pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeResponse{}},
	{pb.KV_Txn_FullMethodName, &pb.TxnResponse{}},
	{pb.KV_Compact_FullMethodName, &pb.CompactionResponse{}},
	{pb.KV_RangeStream_FullMethodName, &pb.RangeStreamResponse{}},
	{pb.Maintenance_HashKV_FullMethodName, &pb.HashKVResponse{}},
	{pb.Maintenance_Alarm_FullMethodName, &pb.AlarmResponse{}},
	{pb.Cluster_MemberList_FullMethodName, &pb.MemberListResponse{}},
}

// answers calls any method and returns the messages of its answer.
func answers(ctx context.Context, conn *grpc.ClientConn, method string, message []byte) ([][]byte, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodec(bytesCodec{}))
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(message); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var all [][]byte
	for {
		var one []byte
		if err := stream.RecvMsg(&one); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, one)
	}
}

// Whatever bytes a request is, it is answered or refused with a status that
// clients know, the member lives on, and a refused request has changed nothing.
func FuzzKVRequests(f *testing.F) {
	for _, list := range [][]refusal{single(), inTxns(), broken()} {
		for _, c := range list {
			for i := range fuzzed {
				if fuzzed[i].method == c.method {
					f.Add(uint8(i), c.message[:min(len(c.message), 10000)])
				}
			}
		}
	}
	for _, c := range oddities() {
		for i := range fuzzed {
			if fuzzed[i].method == c.method {
				f.Add(uint8(i), c.message)
			}
		}
	}
	f.Add(uint8(3), nestedTxn(20))
	f.Add(uint8(5), encoded(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: 3}))
	m := startMember(f, f.TempDir())
	f.Fuzz(func(t *testing.T, which uint8, message []byte) {
		c := fuzzed[int(which)%len(fuzzed)]
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		m.keepSmall(t)
		before := m.contents(t)
		got, err := answers(ctx, m.conn, c.method, message)
		switch code := status.Code(err); code {
		case codes.OK:
			if len(got) == 0 {
				t.Fatal("neither an answer nor a refusal")
			}
			for _, one := range got {
				answer := proto.Clone(c.answer)
				if err := proto.Unmarshal(one, answer); err != nil {
					t.Fatalf("an answer that is no message: %v", err)
				}
			}
			return
		case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.Internal, codes.Unimplemented, codes.ResourceExhausted:
		default:
			t.Fatalf("a refusal that no client expects: %v", err)
		}
		if after := m.contents(t); after != before {
			t.Fatalf("refused with %v, and yet\n%.2000s\nbecame\n%.2000s", err, before, after)
		}
	})
}

// keepSmall empties a store that has grown: comparing it must stay cheap.
func (m *member) keepSmall(t testing.TB) {
	t.Helper()
	kv := pb.NewKVClient(m.conn)
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	got, err := kv.Range(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	if proto.Size(got) < 100000 {
		return
	}
	if _, err := kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: all.Key, RangeEnd: all.RangeEnd}); err != nil {
		t.Fatal(err)
	}
}
