package embed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// stream reads a whole RangeStream: the messages, or what ended it.
func stream(t *testing.T, m *member, req *pb.RangeRequest) ([]*pb.RangeResponse, error) {
	t.Helper()
	s, err := pb.NewKVClient(m.conn).RangeStream(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var all []*pb.RangeResponse
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, r.RangeResponse)
	}
}

// Whatever is asked for, the pieces of a stream put together are the range; the
// header, more and count come with the last one.
func TestAStreamIsTheRange(t *testing.T) {
	m := startMember(t, t.TempDir(), "--max-request-bytes=20000")
	kv, ctx := pb.NewKVClient(m.conn), t.Context()
	random := rand.NewChaCha8([32]byte{})
	for i := range 400 {
		value := make([]byte, 10+i*i%6000)
		random.Read(value)
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i*7%300), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	all := pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	for name, change := range map[string]func(*pb.RangeRequest){
		"all":                    func(*pb.RangeRequest) {},
		"from a key":             func(r *pb.RangeRequest) { r.Key, r.RangeEnd = []byte("k100"), []byte{0} },
		"one":                    func(r *pb.RangeRequest) { r.Key, r.RangeEnd = []byte("k100"), nil },
		"none":                   func(r *pb.RangeRequest) { r.Key, r.RangeEnd = []byte("x"), nil },
		"reversed":               func(r *pb.RangeRequest) { r.Key, r.RangeEnd = []byte("l"), []byte("k") },
		"a limit":                func(r *pb.RangeRequest) { r.Limit = 123 },
		"a limit beyond the end": func(r *pb.RangeRequest) { r.Limit = 1000 },
		"exactly the limit":      func(r *pb.RangeRequest) { r.Limit = 300 },
		"a negative limit":       func(r *pb.RangeRequest) { r.Limit = -1 },
		"an old revision":        func(r *pb.RangeRequest) { r.Revision = 200 },
		"an old one with limit":  func(r *pb.RangeRequest) { r.Revision, r.Limit = 200, 50 },
		"keys only":              func(r *pb.RangeRequest) { r.KeysOnly = true },
		"count only":             func(r *pb.RangeRequest) { r.CountOnly, r.Limit = true, 3 },
		"serializable":           func(r *pb.RangeRequest) { r.Serializable = true },
		"sorted by key":          func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_ASCEND },
	} {
		req := proto.CloneOf(&all)
		change(req)
		want, err := kv.Range(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := stream(t, m, req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		whole := proto.CloneOf(got[len(got)-1])
		whole.Kvs = nil
		for i, piece := range got {
			if i < len(got)-1 && (piece.Header != nil || piece.More || piece.Count != 0) {
				t.Errorf("%s: piece %d of %d has header %v, more %v, count %d", name, i, len(got), piece.Header, piece.More, piece.Count)
			}
			whole.Kvs = append(whole.Kvs, piece.Kvs...)
		}
		if !proto.Equal(whole, want) {
			t.Errorf("%s: the stream has %d keys, header %v, more %v, count %d; the range has %d, %v, %v, %d", name,
				len(whole.Kvs), whole.Header, whole.More, whole.Count, len(want.Kvs), want.Header, want.More, want.Count)
		}
		switch pieces := len(got); {
		case name == "all" && (pieces < 5 || len(got[0].Kvs) != 10):
			t.Errorf("%d pieces, the first of %d keys", pieces, len(got[0].Kvs))
		case (name == "a negative limit" || name == "count only") && pieces != 1:
			t.Errorf("%s: %d pieces", name, pieces)
		}
	}

	// The order of a target without an order is that of the keys.
	req := proto.CloneOf(&all)
	req.SortTarget = pb.RangeRequest_VALUE
	got, err := stream(t, m, req)
	var kvs []*mvccpb.KeyValue
	for _, piece := range got {
		kvs = append(kvs, piece.Kvs...)
	}
	for i := 1; i < len(kvs); i++ {
		if bytes.Compare(kvs[i-1].Key, kvs[i].Key) >= 0 {
			t.Fatalf("%q before %q", kvs[i-1].Key, kvs[i].Key)
		}
	}
	if err != nil || len(kvs) != 300 {
		t.Errorf("%d keys, %v", len(kvs), err)
	}
}

func TestWhatAStreamRefuses(t *testing.T) {
	m := startMember(t, t.TempDir())
	for name, c := range map[string]struct {
		req  *pb.RangeRequest
		code codes.Code
		text string
	}{
		"no key":     {&pb.RangeRequest{}, codes.InvalidArgument, "etcdserver: key is not provided"},
		"no order":   {&pb.RangeRequest{Key: []byte("a"), SortOrder: 9}, codes.InvalidArgument, "etcdserver: invalid sort option"},
		"descending": {&pb.RangeRequest{Key: []byte("a"), SortOrder: pb.RangeRequest_DESCEND}, codes.Unimplemented, "RangeStream does not support custom sort orders"},
		"by value": {&pb.RangeRequest{Key: []byte("a"), SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_VALUE},
			codes.Unimplemented, "RangeStream does not support custom sort orders"},
		"filter": {&pb.RangeRequest{Key: []byte("a"), MinModRevision: 1}, codes.Unimplemented, "RangeStream does not support revision filters"},
		"future": {&pb.RangeRequest{Key: []byte("a"), Revision: 99}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
	} {
		_, err := stream(t, m, c.req)
		if status.Code(err) != c.code || status.Convert(err).Message() != c.text {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A compaction that passes the pinned revision ends the stream after a part of
// the answer; writes between the pieces do not show.
func TestAStreamMeetsWritesAndACompaction(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv, ctx := pb.NewKVClient(m.conn), t.Context()
	value := make([]byte, 1<<20)
	for i := range 60 {
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", i), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	if err != nil {
		t.Fatal(err)
	}
	// The first piece is here; flow control holds the rest back.
	first, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	put, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k59"), Value: []byte("new")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: put.Header.Revision}); err != nil {
		t.Fatal(err)
	}
	seen := len(first.RangeResponse.Kvs)
	for err == nil {
		var r *pb.RangeStreamResponse
		if r, err = s.Recv(); err == nil {
			seen += len(r.RangeResponse.Kvs)
		}
	}
	if status.Code(err) != codes.OutOfRange || seen == 60 {
		t.Errorf("after %d keys: %v", seen, err)
	}
}

func TestAPhysicalCompactionEndsWhenAllIsRemoved(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv, ctx := pb.NewKVClient(m.conn), t.Context()
	var last int64
	for i := range 3000 {
		put, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i%10), Value: make([]byte, 100)})
		if err != nil {
			t.Fatal(err)
		}
		last = put.Header.Revision
	}
	before, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: last, Physical: true}); err != nil || r.Header.Revision != last {
		t.Fatalf("%v, %v", r, err)
	}
	after, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
	if err != nil || after.DbSizeInUse*100 > before.DbSizeInUse {
		t.Errorf("%d bytes in use, %d before: %v", after.DbSizeInUse, before.DbSizeInUse, err)
	}
	if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: last, Physical: true}); status.Convert(err).Message() != "etcdserver: mvcc: required revision has been compacted" {
		t.Errorf("again: %v", err)
	}
}

// The sums of two members with one history are equal, before and after
// compactions and a restart, and only then.
func TestHashesOfEqualStores(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	members := []*member{startMember(t, dirs[0]), startMember(t, dirs[1])}
	hash := func(i int, rev int64) *pb.HashKVResponse {
		t.Helper()
		r, err := pb.NewMaintenanceClient(members[i].conn).HashKV(t.Context(), &pb.HashKVRequest{Revision: rev})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	var same int64
	for i, m := range members {
		kv := pb.NewKVClient(m.conn)
		for n := range 50 {
			if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", n%5), Value: fmt.Append(nil, n)}); err != nil {
				t.Fatal(err)
			}
		}
		del, err := kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("k3")})
		if err != nil {
			t.Fatal(err)
		}
		same = del.Header.Revision
		for range i + 1 { // from here on they differ
			if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k1"), Value: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 40, Physical: i == 0}); err != nil {
			t.Fatal(err)
		}
	}
	a, b := hash(0, same), hash(1, same)
	if a.Hash != b.Hash || a.CompactRevision != 40 || a.HashRevision != same || a.Header.Revision != same+1 {
		t.Errorf("at %d: %v and %v", same, a, b)
	}
	if a, b := hash(0, 0), hash(1, 0); a.Hash == b.Hash || a.HashRevision != same+1 || b.HashRevision != same+2 {
		t.Errorf("at the end: %v and %v", a, b)
	}
	members[1].stop()
	members[1] = startMember(t, dirs[1])
	if again := hash(1, same); again.Hash != b.Hash {
		t.Errorf("after a restart: %v, before %v", again, b)
	}
	if r, err := pb.NewMaintenanceClient(members[0].conn).Hash(t.Context(), &pb.HashRequest{}); err != nil || r.Hash == 0 || r.Header.Revision != same+1 {
		t.Errorf("hash: %v, %v", r, err)
	}
	if r, err := pb.NewMaintenanceClient(members[0].conn).Defragment(t.Context(), &pb.DefragmentRequest{}); err != nil || r.Header != nil {
		t.Errorf("defragment: %v, %v", r, err)
	}
}
