package v3

import (
	"bytes"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/watch"
)

var _ rpc.Encoded = (*watchNews)(nil)

// Events go out as the generated code would marshal them, by our own server and by
// any other.
func TestNewsOfAWatchAreAsTheGeneratedCodeMakesThem(t *testing.T) {
	events := []*mvccpb.Event{
		{Kv: &mvccpb.KeyValue{Key: []byte("a"), Value: []byte("1"), CreateRevision: 2, ModRevision: 300, Version: 4}},
		{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("b"), ModRevision: 301}, PrevKv: &mvccpb.KeyValue{Key: []byte("b"), Value: bytes.Repeat([]byte("x"), 200)}},
	}
	body, err := proto.Marshal(&pb.WatchResponse{Events: events})
	if err != nil {
		t.Fatal(err)
	}
	h := server.Header{Cluster: 1 << 63, Member: 7, Term: 3}
	for _, n := range []watchNews{
		{h, watch.Response{ID: 0, Revision: 301, Events: body}},
		{h, watch.Response{ID: 1 << 40, Revision: 301, Events: body, Fragment: true}},
		{h, watch.Response{ID: 3, Revision: 1 << 50}},
		{h, watch.Response{ID: watch.NoID, Revision: 12}},
		{server.Header{}, watch.Response{}},
	} {
		want := &pb.WatchResponse{WatchId: n.r.ID, Fragment: n.r.Fragment, Header: &pb.ResponseHeader{
			ClusterId: uint64(n.header.Cluster), MemberId: uint64(n.header.Member), RaftTerm: uint64(n.header.Term), Revision: int64(n.r.Revision)}}
		if n.r.Events != nil {
			want.Events = events
		}
		expected, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		head, shared := n.Wire([]byte("before"))
		if got := append(head[len("before"):], shared...); !bytes.Equal(got, expected) {
			t.Errorf("%+v on the wire:\n%x, want\n%x", n.r, got, expected)
		}
		if got, err := proto.Marshal(&n); err != nil || !bytes.Equal(got, expected) {
			t.Errorf("%+v marshalled:\n%x, want\n%x (%v)", n.r, got, expected, err)
		}
	}
}
