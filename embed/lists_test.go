package embed

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/wire"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// putLists makes 3,000 keys, 5 MB, every third with a lease, some large, and returns the
// revision behind them.
func putLists(t *testing.T, m *member) int64 {
	t.Helper()
	if _, err := pb.NewLeaseClient(m.conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: 1 << 60, TTL: 1000}); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 9))
	var rev int64
	for batch := range 100 {
		txn := &pb.TxnRequest{}
		for i := range 30 {
			put := &pb.PutRequest{Key: fmt.Appendf(nil, "l/%02d/%02d", batch, i), Value: bytes.Repeat([]byte{byte(i)}, r.IntN(2500))}
			if i%3 == 0 {
				put.Lease = 1 << 60
			}
			if batch%40 == 7 && i == 20 {
				put.Value = make([]byte, 500_000)
			}
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		}
		got, err := pb.NewKVClient(m.conn).Txn(t.Context(), txn)
		if err != nil {
			t.Fatal(err)
		}
		rev = got.Header.Revision
	}
	return rev
}

// streamedAt reads a whole RangeStream as bytes, message by message.
func streamedAt(t *testing.T, conn *grpc.ClientConn, message []byte) (all [][]byte) {
	t.Helper()
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, pb.KV_RangeStream_FullMethodName, grpc.ForceCodec(raw{}))
	if err == nil {
		err = s.SendMsg(message)
	}
	if err == nil {
		err = s.CloseSend()
	}
	for err == nil {
		var one []byte
		if err = s.RecvMsg(&one); err == nil {
			all = append(all, one)
		}
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	return all
}

// joined is what the messages of a stream say together.
func joined(t *testing.T, all [][]byte) *pb.RangeResponse {
	t.Helper()
	sum := new(pb.RangeResponse)
	for i, one := range all {
		m := new(pb.RangeStreamResponse)
		if err := proto.Unmarshal(one, m); err != nil {
			t.Fatal(err)
		}
		if last := i == len(all)-1; last != (m.RangeResponse.Header != nil) {
			t.Fatalf("message %d of %d has header %v", i, len(all), m.RangeResponse.Header)
		}
		proto.Merge(sum, m.RangeResponse)
	}
	return sum
}

// Answers of megabytes are the same bytes at both doors, whether there is room for
// them or none.
func TestBothDoorsGiveTheSameLists(t *testing.T) {
	m := startMember(t, t.TempDir())
	rev := putLists(t, m)
	for _, budget := range []int{32 << 20, 1 << 10} {
		hot, plain := doorsWithin(t, m, budget)
		all := func(r *pb.RangeRequest) *pb.RangeRequest {
			r.Key, r.RangeEnd = []byte("l"), []byte("m")
			return r
		}
		for what, r := range map[string]*pb.RangeRequest{
			"all":              all(&pb.RangeRequest{}),
			"serializable":     all(&pb.RangeRequest{Serializable: true}),
			"at a revision":    all(&pb.RangeRequest{Revision: rev - 30}),
			"keys only":        all(&pb.RangeRequest{KeysOnly: true}),
			"a limit":          all(&pb.RangeRequest{Limit: 1500}),
			"a limit of all":   all(&pb.RangeRequest{Limit: 3000}),
			"a small limit":    all(&pb.RangeRequest{Limit: 70}),
			"count only":       all(&pb.RangeRequest{CountOnly: true}),
			"filtered":         all(&pb.RangeRequest{MinModRevision: rev - 60}),
			"filtered, cut":    all(&pb.RangeRequest{MaxCreateRevision: rev - 30, Limit: 1000}),
			"nothing":          all(&pb.RangeRequest{MinModRevision: rev + 1}),
			"descending":       all(&pb.RangeRequest{SortOrder: pb.RangeRequest_DESCEND}),
			"by value":         all(&pb.RangeRequest{SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_VALUE, Limit: 2000}),
			"by mod, keys":     all(&pb.RangeRequest{SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_MOD, KeysOnly: true}),
			"by mod, unsorted": all(&pb.RangeRequest{SortTarget: pb.RangeRequest_MOD, Limit: 2500}),
			"the future":       all(&pb.RangeRequest{Revision: rev + 10}),
		} {
			t.Run(fmt.Sprint(what, " within ", budget), func(t *testing.T) {
				both(t, hot, plain, pb.KV_Range_FullMethodName, marshal(t, r), func() proto.Message { return new(pb.RangeResponse) })
				if r.MinModRevision != 0 || r.MaxCreateRevision != 0 || r.SortOrder != 0 || r.SortTarget != 0 || r.Revision > rev {
					return
				}
				got, want := streamedAt(t, hot, marshal(t, r)), streamedAt(t, plain, marshal(t, r))
				if !proto.Equal(joined(t, got), joined(t, want)) {
					t.Errorf("streamed: %d messages, the other door sends %d", len(got), len(want))
				}
				r.Limit = -1
				if got, want = streamedAt(t, hot, marshal(t, r)), streamedAt(t, plain, marshal(t, r)); len(got) != 1 || len(want) != 1 || !bytes.Equal(got[0], want[0]) {
					t.Errorf("with a negative limit: %d messages, the other door sends %d", len(got), len(want))
				}
			})
		}
		txn := &pb.TxnRequest{}
		for range 3 {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: all(&pb.RangeRequest{})}})
		}
		both(t, hot, plain, pb.KV_Txn_FullMethodName, marshal(t, txn), func() proto.Message { return new(pb.TxnResponse) })
	}
}

// A list whose revision is compacted while it is being sent is reset with what clients
// take for Unavailable; one that has all it needs comes whole.
func TestAListOvertakenByACompaction(t *testing.T) {
	m := startMember(t, t.TempDir())
	rev := putLists(t, m)
	kv := pb.NewKVClient(m.conn)
	message := wire.Framed(false, encoded(&pb.RangeRequest{Key: []byte("l"), RangeEnd: []byte("m")}))
	short := wire.Framed(false, encoded(&pb.RangeRequest{Key: []byte("l"), RangeEnd: []byte("l/05")}))
	const budget = 1 << 20
	hot, _ := doorsWithin(t, m, budget)
	w := wire.DialNarrow(t, hot.Target(), 1000)
	var ids []uint32
	for _, say := range [][]byte{short, message} {
		id := w.Headers(pb.KV_Range_FullMethodName, false)
		w.Data(id, true, say)
		for len(w.Got[id].Body) < 1000 && !w.Got[id].Ended {
			w.Pump()
		}
		ids = append(ids, id)
	}
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("l/00/00")}); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: rev + 1}); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		w.Must(w.WriteWindowUpdate(id, 1<<30))
		a := w.Await(id)
		if i == 1 && a.Reset != http2.ErrCodeRefusedStream || i == 0 && (a.Code != codes.OK || a.Reset != 0 || len(a.Body) < 100_000) {
			t.Errorf("list %d after the compaction: %v, %d bytes", i, a, len(a.Body))
		}
	}
	// Who asks again is answered.
	if got, err := pb.NewKVClient(hot).Range(t.Context(), &pb.RangeRequest{Key: []byte("l"), RangeEnd: []byte("m")}); err != nil || got.Count != 3000 || len(got.Kvs) != 3000 {
		t.Errorf("%d keys, %v", len(got.GetKvs()), err)
	}
}
