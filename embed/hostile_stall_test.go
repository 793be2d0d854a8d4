package embed

import (
	"fmt"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/wire"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// Readers that ask for everything and take nothing: while they stall they hold no
// iterator (rule 23), compaction passes them by, others are served, and when they
// go nothing of them is left.
func TestStalledReaders(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	kv := pb.NewKVClient(m.conn)
	for i := range 8 { // 8 MB
		txn := &pb.TxnRequest{}
		for j := range 100 {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "big/%d/%02d", i, j), Value: make([]byte, 10000)}}})
		}
		if _, err := kv.Txn(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	before := m.calmNow(t)
	first := heap()
	all := wire.Framed(false, encoded(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}))
	old := wire.Framed(false, encoded(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: 6}))
	var stalled []*wire.Conn
	for range 8 {
		w := wire.DialNarrow(t, m.client, 100)
		for i := range 8 {
			message := all
			if i%2 == 1 {
				message = old
			}
			w.Data(w.Headers(pb.KV_RangeStream_FullMethodName, false), true, message)
		}
		stalled = append(stalled, w)
	}
	// Each stream begins: the first hundred bytes of every one come.
	for _, w := range stalled {
		for id := uint32(1); id < w.Next; id += 2 {
			for len(w.Got[id].Body) < 100 && !w.Got[id].Ended {
				w.Pump()
			}
		}
	}
	for deadline := time.Now().Add(20 * time.Second); m.db.Metrics().Iterators != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("64 stalled readers hold %d iterators", m.db.Metrics().Iterators)
		}
	}
	// Each holds the one piece that it was being sent, not its whole answer.
	if grown := int64(heap()) - int64(first); grown > 64*4*mebi {
		t.Errorf("64 stalled readers of 8 MB hold %d bytes", grown)
	}
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Errorf("another client is not served: %v", err)
	}
	if _, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 13, Physical: true}); err != nil {
		t.Errorf("a compaction beside stalled readers: %v", err)
	}
	// One that wakes up finds its answer whole, or is told that its revision is gone.
	w := stalled[0]
	for id := uint32(1); id < w.Next; id += 2 {
		w.Must(w.WriteWindowUpdate(id, 1<<30))
		a := w.Await(id)
		if id%4 == 1 && (a.Code != codes.OK || len(a.Body) < 8000000) || id%4 == 3 && (a.Code != codes.OutOfRange || a.Text != compacted) {
			t.Errorf("stream %d after the compaction: %v, %d bytes", id, a, len(a.Body))
		}
	}
	// The others leave in different ways.
	for i, w := range stalled[1:] {
		if i%2 == 0 {
			for id := uint32(1); id < w.Next; id += 2 {
				w.Must(w.WriteRSTStream(id, http2.ErrCodeCancel))
			}
		}
		w.Net.Close()
	}
	w.Net.Close()
	before.store = m.contents(t) // compacted since
	before.again(t)
}

// Callers who ask for the dearest answers and leave at once.
func TestAbandonedReads(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	kv := pb.NewKVClient(m.conn)
	for i := range 5000 / 125 {
		if _, err := kv.Txn(t.Context(), &pb.TxnRequest{Success: puts(125, fmt.Sprintf("%03d/", i))}); err != nil {
			t.Fatal(err)
		}
	}
	before := m.calmNow(t)
	all := encoded(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_VALUE})
	for range 10 {
		w := wire.Dial(t, m.client)
		for i := range 100 {
			method, message := pb.KV_Range_FullMethodName, all
			switch i % 4 {
			case 1:
				method, message = pb.Maintenance_HashKV_FullMethodName, nil
			case 2:
				method, message = pb.KV_Txn_FullMethodName, encoded(&pb.TxnRequest{Success: []*pb.RequestOp{
					rangeOf(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}), rangeOf(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})}})
			case 3:
				method = pb.KV_RangeStream_FullMethodName
			}
			id := w.Headers(method, false)
			w.Must(w.WriteData(id, true, wire.Framed(false, message)))
			if i%2 == 0 {
				w.Must(w.WriteRSTStream(id, http2.ErrCodeCancel))
			}
		}
		w.Net.Close()
	}
	begin := time.Now()
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("a put beside them took %v", took)
	}
	before.store = m.contents(t)
	before.again(t)
}
