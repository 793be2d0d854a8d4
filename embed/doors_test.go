package embed

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v3 "github.com/kvorum/kvorum/internal/api/v3"
	"github.com/kvorum/kvorum/internal/rpc"
)

// raw is a message that is sent and received as it is.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(b)
	return nil
}
func (raw) Name() string { return "proto" }

// doors opens two more doors to a member: the hot one, and grpc-go's.
func doors(t *testing.T, m *member) (hot, plain *grpc.ClientConn) {
	t.Helper()
	return doorsWithin(t, m, 0)
}

// doorsWithin is doors with so many bytes for answers in flight.
func doorsWithin(t *testing.T, m *member, answers int) (hot, plain *grpc.ClientConn) {
	t.Helper()
	limits := rpc.Limits{MaxRequestBytes: int(m.cfg.MaxRequestBytes), AnswerBytes: answers}
	unary, stream := v3.CheckUnary(m.member), v3.CheckStream(m.member, m.cfg.ElectionTimeout)
	open := func(s rpc.Body) *grpc.ClientConn {
		v3.Register(s, m.member)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			conn.Close()
			s.Stop()
			<-served
		})
		return conn
	}
	return open(rpc.NewServer(limits, unary, stream)), open(rpc.NewGRPCGo(limits, unary, stream))
}

// atDoor sends bytes to a method and returns what came: bytes, or a status.
func atDoor(t *testing.T, conn *grpc.ClientConn, method string, message []byte, headers ...string) ([]byte, *status.Status) {
	t.Helper()
	var reply []byte
	ctx := metadata.AppendToOutgoingContext(t.Context(), headers...)
	err := conn.Invoke(ctx, method, message, &reply, grpc.ForceCodec(raw{}))
	return reply, status.Convert(err)
}

// read is an answer as text.
func read(t *testing.T, m proto.Message, reply []byte) string {
	t.Helper()
	if err := proto.Unmarshal(reply, m); err != nil {
		t.Fatalf("%x: %v", reply, err)
	}
	return fmt.Sprintf("%.5000v", m)
}

// both asks two doors the same and compares, byte for byte.
func both(t *testing.T, hot, plain *grpc.ClientConn, method string, message []byte, into func() proto.Message, headers ...string) *status.Status {
	t.Helper()
	got, gotStatus := atDoor(t, hot, method, message, headers...)
	want, wantStatus := atDoor(t, plain, method, message, headers...)
	if gotStatus.Code() != wantStatus.Code() || gotStatus.Message() != wantStatus.Message() {
		t.Fatalf("%s %x: %v, the other door says %v", method, message, gotStatus, wantStatus)
	}
	if gotStatus.Code() == codes.OK && !bytes.Equal(got, want) {
		t.Fatalf("%s %x:\n%d bytes, %s, the other door says\n%d bytes, %s", method, message, len(got), read(t, into(), got), len(want), read(t, into(), want))
	}
	return gotStatus
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// doorKeys are few, so that all is met.
func doorKey(r *rand.Rand) []byte {
	if r.IntN(20) == 0 {
		return nil
	}
	return fmt.Appendf(nil, "k%02d", r.IntN(40))
}

func doorRange(r *rand.Rand, revisions int64) *pb.RangeRequest {
	q := &pb.RangeRequest{Key: doorKey(r), Serializable: r.IntN(3) == 0, KeysOnly: r.IntN(4) == 0, CountOnly: r.IntN(8) == 0}
	switch r.IntN(4) {
	case 0:
		q.RangeEnd = doorKey(r)
	case 1:
		q.RangeEnd = []byte{0}
	}
	if r.IntN(4) == 0 {
		q.Limit = r.Int64N(80) - 1
	}
	if r.IntN(4) == 0 {
		q.Revision = r.Int64N(revisions+6) - 2
	}
	if r.IntN(4) == 0 {
		q.SortOrder, q.SortTarget = pb.RangeRequest_SortOrder(r.IntN(4)), pb.RangeRequest_SortTarget(r.IntN(6))
	}
	if r.IntN(6) == 0 {
		q.MinModRevision, q.MaxCreateRevision = r.Int64N(revisions), r.Int64N(revisions)
	}
	return q
}

// Both doors give the same answers and the same refusals to whatever is read, and to
// writes that are refused; what one writes the other reads.
func TestBothDoorsSayTheSame(t *testing.T) {
	m := startMember(t, t.TempDir(), "--max-request-bytes=40000", "--max-txn-ops=6")
	hot, plain := doors(t, m)
	r := rand.New(rand.NewPCG(1, 5))
	rangeReply := func() proto.Message { return new(pb.RangeResponse) }
	txnReply := func() proto.Message { return new(pb.TxnResponse) }
	seen := map[codes.Code]int{}
	for i := range int64(1500) {
		door := hot
		if r.IntN(2) == 0 {
			door = plain
		}
		kv := pb.NewKVClient(door)
		switch r.IntN(6) {
		case 0:
			q := &pb.PutRequest{Key: doorKey(r), Value: bytes.Repeat([]byte{'v'}, r.IntN(3)*r.IntN(9000)), PrevKv: r.IntN(2) == 0}
			if len(q.Key) == 0 || len(q.Value) > 17_000 {
				q.Lease = 77
				q.IgnoreLease = r.IntN(2) == 0
				seen[both(t, hot, plain, pb.KV_Put_FullMethodName, marshal(t, q), nil).Code()]++
				continue
			}
			if _, err := kv.Put(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		case 1:
			if _, err := kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "k%02d", r.IntN(40)), PrevKv: true}); err != nil {
				t.Fatal(err)
			}
		case 2:
			q := &pb.TxnRequest{}
			for range r.IntN(4) {
				q.Compare = append(q.Compare, &pb.Compare{Key: doorKey(r), Target: pb.Compare_MOD, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_ModRevision{ModRevision: r.Int64N(i + 2)}})
			}
			for range r.IntN(8) {
				q.Success = append(q.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: doorRange(r, i)}})
				q.Failure = append(q.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: doorRange(r, i)}})
			}
			seen[both(t, hot, plain, pb.KV_Txn_FullMethodName, marshal(t, q), txnReply).Code()]++
		default:
			seen[both(t, hot, plain, pb.KV_Range_FullMethodName, marshal(t, doorRange(r, i)), rangeReply).Code()]++
		}
	}
	if seen[codes.OK] < 500 || seen[codes.InvalidArgument] < 50 || seen[codes.OutOfRange] < 5 {
		t.Errorf("what was seen: %v", seen)
	}
}

// What a txn writes it writes at either door, and answers of all kinds come back.
func TestATxnAtTheHotDoor(t *testing.T) {
	m := startMember(t, t.TempDir())
	hot, _ := doors(t, m)
	put := func(key, value string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value), PrevKv: true}}}
	}
	kv := pb.NewKVClient(hot)
	for round := range int64(3) {
		txn := &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: round}}},
			Success: []*pb.RequestOp{
				put("a", fmt.Sprint(round)),
				{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{put("b", "x")}}}},
				{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("c")}}},
				{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("c"), PrevKv: true}}},
			},
		}
		got, err := kv.Txn(t.Context(), txn)
		if err != nil {
			t.Fatal(err)
		}
		pair := got.Responses[2].GetResponseRange()
		if !got.Succeeded || got.Header.Revision != round+2 || len(pair.GetKvs()) != 2 || string(pair.Kvs[0].Value) != fmt.Sprint(round) || pair.Kvs[0].Version != round+1 {
			t.Fatalf("round %d: %v", round, got)
		}
		if prev := got.Responses[0].GetResponsePut().PrevKv; (prev != nil) != (round > 0) || prev != nil && string(prev.Value) != fmt.Sprint(round-1) {
			t.Fatalf("round %d: before it %v", round, prev)
		}
	}
	if got, err := kv.Txn(t.Context(), &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 9}}}, Success: []*pb.RequestOp{put("a", "no")}}); err != nil || got.Succeeded {
		t.Fatalf("a compare that fails: %v, %v", got, err)
	}
}

// Messages that do not parse, metadata that is refused: in the same words.
func TestBothDoorsRefuseTheSame(t *testing.T) {
	m := startMember(t, t.TempDir())
	hot, plain := doors(t, m)
	methods := map[string]func() proto.Message{
		pb.KV_Put_FullMethodName:         func() proto.Message { return new(pb.PutResponse) },
		pb.KV_Range_FullMethodName:       func() proto.Message { return new(pb.RangeResponse) },
		pb.KV_DeleteRange_FullMethodName: func() proto.Message { return new(pb.DeleteRangeResponse) },
		pb.KV_Txn_FullMethodName:         func() proto.Message { return new(pb.TxnResponse) },
	}
	deep := []byte{}
	for range 300 {
		deep = append(append([]byte{0x12, 0xff, 0x7f}, deep...), 0)
	}
	for method, into := range methods {
		for _, message := range [][]byte{{}, {0x0a}, {0x0a, 9, 'k'}, {0xff}, {0x0b, 0x0c}, {0x0a, 0}, {0x12, 2, 0x0a, 9}, deep} {
			both(t, hot, plain, method, message, into)
		}
		both(t, hot, plain, method, []byte{0x0a, 0}, into, "client-api-version", "\xff\xfe", "hasleader", "true")
		both(t, hot, plain, method, []byte{0x0a, 0}, into, "client-api-version", "3.7", "hasleader", "true")
	}
}

// A range that is longer than what the writer answers itself, asked for by many at
// once, between puts that go on.
func TestLongRangesLeaveTheWriter(t *testing.T) {
	m := startMember(t, t.TempDir())
	hot, _ := doors(t, m)
	kv := pb.NewKVClient(hot)
	const keys = 500
	for i := range keys {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "k%04d", i), Value: bytes.Repeat([]byte{byte(i)}, 1<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for reader := range 8 {
		all.Go(func() {
			for round := range 10 {
				limit := int64(0)
				if reader%2 == 0 {
					limit = 100
				}
				got, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: limit, KeysOnly: round%3 == 2})
				if err != nil || got.Count != keys || limit == 0 && len(got.Kvs) != keys || limit > 0 && (len(got.Kvs) != int(limit) || !got.More) {
					t.Errorf("%d of %d keys, more %v, %v", len(got.GetKvs()), got.GetCount(), got.GetMore(), err)
					return
				}
				for i, kv := range got.Kvs {
					if string(kv.Key) != fmt.Sprintf("k%04d", i) || round%3 != 2 && (len(kv.Value) != 1<<10 || kv.Value[9] != byte(i)) {
						t.Errorf("pair %d is %s with %d bytes", i, kv.Key, len(kv.Value))
						return
					}
				}
			}
		})
	}
	for i := range 100 {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "x%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
}
