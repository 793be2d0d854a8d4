package embed

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/wire"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Lists of megabytes are their reader's as long as he may read them: one that reaches
// over what he may not is refused before a byte of it, and one that he is being sent ends
// when he loses the permission.
func TestListsUnderPermissions(t *testing.T) {
	m := startMember(t, t.TempDir(), cheap...)
	putLists(t, m)
	people(t, login(t, "", "", m.client))
	root := login(t, "root", "rootpw", m.client)
	allow := func() {
		must(root.RoleGrantPermission(t.Context(), "ac", "l", "m", clientv3.PermissionType(clientv3.PermRead)))
	}
	forbid := func() { must(root.RoleRevokePermission(t.Context(), "ac", "l", "m")) }
	allow()
	token := must(root.Authenticate(t.Context(), "ann", "annpw")).Token
	hot, plain := doorsWithin(t, m, 32<<20)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "token", token)
	list := func(end string, tilt func(*pb.RangeRequest)) *pb.RangeRequest {
		r := &pb.RangeRequest{Key: []byte("l"), RangeEnd: []byte(end)}
		if tilt != nil {
			tilt(r)
		}
		return r
	}
	tilts := map[string]func(*pb.RangeRequest){
		"all": nil, "serializable": func(r *pb.RangeRequest) { r.Serializable = true }, "count": func(r *pb.RangeRequest) { r.CountOnly = true },
		"by value": func(r *pb.RangeRequest) { r.SortTarget = pb.RangeRequest_VALUE }, "limit": func(r *pb.RangeRequest) { r.Limit = 10 },
	}
	for door, conn := range map[string]*grpc.ClientConn{"ours": hot, "grpc-go's": plain} {
		kv := pb.NewKVClient(conn)
		for what, tilt := range tilts {
			got, err := kv.Range(ctx, list("m", tilt))
			expect(t, what+" at "+door, said(got, err), "ok")
			if got.GetCount() != 3000 {
				t.Errorf("%s at %s: %d keys", what, door, got.GetCount())
			}
			_, err = kv.Range(ctx, list("n", tilt))
			expect(t, what+" at "+door+" and more", said(nil, err), "permission denied")
		}
		read := func(end string) *pb.TxnRequest {
			return &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: list(end, nil)}}}}
		}
		expect(t, "in a txn at "+door, said(kv.Txn(ctx, read("m"))), "ok")
		expect(t, "in a txn at "+door+" and more", said(kv.Txn(ctx, read("n"))), "permission denied")
		keys, err := keysOf(must(kv.RangeStream(ctx, list("m", nil))))
		if expect(t, "streamed at "+door, said(nil, err), "ok"); keys != 3000 {
			t.Errorf("streamed at %s: %d keys", door, keys)
		}
		keys, err = keysOf(must(kv.RangeStream(ctx, list("n", nil))))
		if expect(t, "streamed at "+door+" and more", said(nil, err), "permission denied"); keys != 0 {
			t.Errorf("streamed at %s and more: %d keys", door, keys)
		}
		// A client that takes little at a time, and that nothing is sent ahead of.
		slow, err := grpc.NewClient(conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithInitialWindowSize(65535), grpc.WithInitialConnWindowSize(65535), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
		if err != nil {
			t.Fatal(err)
		}
		stream := must(pb.NewKVClient(slow).RangeStream(ctx, list("m", nil)))
		if first, err := stream.Recv(); err != nil || len(first.RangeResponse.Kvs) == 0 {
			t.Fatalf("at %s: %v, %v", door, first, err)
		}
		forbid()
		keys, err = keysOf(stream)
		if expect(t, "while it is streamed at "+door, said(nil, err), "permission denied"); keys > 2000 {
			t.Errorf("%d keys were streamed at %s after the permission was gone", keys, door)
		}
		slow.Close()
		allow()
	}
	// One long message, of which little is made ahead: it cannot end with a status any more,
	// is reset, and half of it is no answer.
	hot, _ = doorsWithin(t, m, 1<<20)
	w := wire.DialNarrow(t, hot.Target(), 1000)
	id := w.Headers(pb.KV_Range_FullMethodName, false, "token", token)
	w.Data(id, true, wire.Framed(false, encoded(list("m", nil))))
	for len(w.Got[id].Body) < 1000 && !w.Got[id].Ended {
		w.Pump()
	}
	forbid()
	w.Must(w.WriteWindowUpdate(id, 1<<30))
	if a := w.Await(id); a.Reset != http2.ErrCodeInternal || a.Status || len(a.Body) > 5<<20 {
		t.Errorf("one message while it is sent: %v, %d bytes", a, len(a.Body))
	}
	id = w.Headers(pb.KV_Range_FullMethodName, false, "token", token)
	w.Data(id, true, wire.Framed(false, encoded(list("m", nil))))
	if a := w.Await(id); !bytes.Contains([]byte(a.Text), []byte("permission denied")) || len(a.Body) > 0 {
		t.Errorf("one message afterwards: %v, %d bytes", a, len(a.Body))
	}
}

// keysOf counts the keys of a stream, and says how it ended.
func keysOf(s pb.KV_RangeStreamClient) (keys int, err error) {
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return keys, nil
		}
		if err != nil {
			return keys, err
		}
		keys += len(r.RangeResponse.GetKvs())
	}
}
