package embed

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// member is a real member in this process, on free ports.
type member struct {
	*Server
	client string
	conn   *grpc.ClientConn
}

func configFor(t testing.TB, dir string, flags ...string) (Config, string) {
	t.Helper()
	client, peer := ports.Reserve(t), ports.Reserve(t)
	args := append([]string{
		"--data-dir", dir, "--listen-client-urls", "http://" + client, "--advertise-client-urls", "http://" + client,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
		"--initial-cluster", "default=http://" + peer,
	}, flags...)
	cfg, _, err := config.Parse(args, nil, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, client
}

func startMember(t testing.TB, dir string, flags ...string) *member {
	t.Helper()
	cfg, client := configFor(t, dir, flags...)
	return startMemberAs(t, cfg, client)
}

func startMemberAs(t testing.TB, cfg Config, client string) *member {
	t.Helper()
	s, err := Start(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	m := &member{Server: s, client: client, conn: conn}
	t.Cleanup(m.stop)
	return m
}

// stop closes the member once.
func (m *member) stop() {
	if m.Server == nil {
		return
	}
	m.conn.Close()
	if err := m.Close(); err != nil {
		panic(err)
	}
	m.Server = nil
}

func TestOneMemberPutsGetsAndDeletes(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, dir)
	kv, ctx := pb.NewKVClient(m.conn), t.Context()

	put, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("greeting"), Value: []byte("Hello, etcd")})
	if err != nil {
		t.Fatal(err)
	}
	if h := put.Header; h.Revision != 2 || h.RaftTerm == 0 || h.MemberId == 0 || h.ClusterId == 0 {
		t.Errorf("header of the first put: %v", h)
	}
	got, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("greeting")})
	if err != nil || got.Count != 1 || string(got.Kvs[0].Value) != "Hello, etcd" ||
		got.Kvs[0].CreateRevision != 2 || got.Kvs[0].ModRevision != 2 || got.Kvs[0].Version != 1 {
		t.Errorf("range: %v, %v", got, err)
	}

	m.stop()
	m = startMember(t, dir)
	kv = pb.NewKVClient(m.conn)
	if got, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte("greeting")}); err != nil || got.Count != 1 {
		t.Fatalf("after a restart: %v, %v", got, err)
	}
	del, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("greeting"), PrevKv: true})
	if err != nil || del.Deleted != 1 || string(del.PrevKvs[0].Value) != "Hello, etcd" || del.Header.Revision != 3 {
		t.Errorf("delete: %v, %v", del, err)
	}
	if old, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("greeting"), Revision: 2}); err != nil || old.Count != 1 || old.Header.Revision != 3 {
		t.Errorf("at the old revision: %v, %v", old, err)
	}
}

func TestATxnIsAllOrNothing(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv, ctx := pb.NewKVClient(m.conn), t.Context()
	create := &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("lock"), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}},
		Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("lock"), Value: []byte("me")}}},
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("log"), Value: []byte("me")}}},
		},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("lock")}}}},
	}
	first, err := kv.Txn(ctx, create)
	if err != nil || !first.Succeeded || len(first.Responses) != 2 || first.Header.Revision != 2 {
		t.Fatalf("first: %v, %v", first, err)
	}
	second, err := kv.Txn(ctx, create)
	if err != nil || second.Succeeded || second.Header.Revision != 2 {
		t.Fatalf("second: %v, %v", second, err)
	}
	if kvs := second.Responses[0].GetResponseRange().Kvs; len(kvs) != 1 || string(kvs[0].Value) != "me" || kvs[0].ModRevision != 2 {
		t.Errorf("the loser sees %v", kvs)
	}
	read, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("l"), RangeEnd: []byte("m")}}}}})
	if err != nil || !read.Succeeded || read.Responses[0].GetResponseRange().Count != 2 {
		t.Errorf("a txn that only reads: %v, %v", read, err)
	}
}

// Clients compare code and text.
func TestRefusalsHaveEtcdsWords(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv, ctx := pb.NewKVClient(m.conn), t.Context()
	for range 4 {
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 4}); err != nil {
		t.Fatal(err)
	}
	putOp := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
	}
	many := make([]*pb.RequestOp, 129)
	for i := range many {
		many[i] = putOp(strings.Repeat("x", i+1))
	}
	for _, c := range []struct {
		what string
		call func() error
		code codes.Code
		text string
	}{
		{"empty key", func() error { _, err := kv.Put(ctx, &pb.PutRequest{}); return err }, codes.InvalidArgument, "etcdserver: key is not provided"},
		{"unknown lease", func() error { _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Lease: 7}); return err }, codes.NotFound, "etcdserver: requested lease not found"},
		{"ignored value of no key", func() error {
			_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("none"), IgnoreValue: true})
			return err
		}, codes.InvalidArgument, "etcdserver: key not found"},
		{"compacted", func() error { _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 3}); return err }, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{"future", func() error { _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 99}); return err }, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{"compacted twice", func() error { _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 4}); return err }, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{"bad sort", func() error { _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), SortOrder: 9}); return err }, codes.InvalidArgument, "etcdserver: invalid sort option"},
		{"129 operations", func() error { _, err := kv.Txn(ctx, &pb.TxnRequest{Success: many}); return err }, codes.InvalidArgument, "etcdserver: too many operations in txn request"},
		{"one key twice", func() error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), putOp("a")}})
			return err
		}, codes.InvalidArgument, "etcdserver: duplicate key given in txn request"},
		{"too large", func() error {
			_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1600000)})
			return err
		}, codes.InvalidArgument, "etcdserver: request is too large"},
		{"far too large", func() error {
			_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3<<20)})
			return err
		}, codes.ResourceExhausted, "grpc: received message larger than max (3145736 vs. 2097152)"},
		{"a call that is not built", func() error {
			return m.conn.Invoke(ctx, "/etcdserverpb.Nothing/Nothing", &pb.StatusRequest{}, &pb.StatusResponse{})
		}, codes.Unimplemented, "unknown service etcdserverpb.Nothing"},
	} {
		err := c.call()
		if s := status.Convert(err); s.Code() != c.code || s.Message() != c.text {
			t.Errorf("%s: %v %q, want %v %q", c.what, s.Code(), s.Message(), c.code, c.text)
		}
	}
	if got, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}); err != nil || got.Kvs[0].Version != 4 || got.Header.Revision != 5 {
		t.Errorf("the refusals changed the store: %v, %v", got, err)
	}
}

func TestMetadataChecks(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv := pb.NewKVClient(m.conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true", "client-api-version", "3.7")
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Errorf("a member that leads refused a caller who insists on a leader: %v", err)
	}
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Error(err)
	}
}

func TestStatusMembersAndHealth(t *testing.T) {
	m := startMember(t, t.TempDir(), "--name", "default")
	ctx := t.Context()
	st, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
	if err != nil || st.Version != "3.7.1" || st.StorageVersion != "3.7.0" || st.Leader != st.Header.MemberId || st.DbSizeQuota != 2<<30 ||
		st.RaftIndex == 0 || st.RaftAppliedIndex == 0 || st.IsLearner {
		t.Errorf("status: %v, %v", st, err)
	}
	list, err := pb.NewClusterClient(m.conn).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil || len(list.Members) != 1 || list.Members[0].Name != "default" || list.Members[0].ID != st.Header.MemberId ||
		list.Members[0].ClientURLs[0] != "http://"+m.client || list.Header.Revision != 0 {
		t.Errorf("member list: %v, %v", list, err)
	}
	health := healthpb.NewHealthClient(m.conn)
	if h, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("health of another service: %v", err)
	}
	for path, want := range map[string]map[string]string{
		"/version": {"etcdserver": "3.7.1", "etcdcluster": "3.7.0", "storage": "3.7.0"},
		"/health":  {"health": "true", "reason": ""},
	} {
		resp, err := http.Get("http://" + m.client + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		got := map[string]string{}
		if err := json.Unmarshal(text, &got); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %d %s", path, resp.StatusCode, text)
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s says %s", path, text)
			}
		}
	}
}

func TestACallerWhoLeavesDoesNotTakeItsWriteAlong(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv := pb.NewKVClient(m.conn)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}); status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want Canceled", err)
	}
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Error(err)
	}
}

// A client that brings a name and a password to a cluster without users is told
// that there are none, and served.
func TestWithoutUsers(t *testing.T) {
	m := startMember(t, t.TempDir())
	_, err := pb.NewAuthClient(m.conn).Authenticate(t.Context(), &pb.AuthenticateRequest{Name: "root", Password: "x"})
	if status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != "etcdserver: authentication is not enabled" {
		t.Errorf("authenticate: %v", err)
	}
	if r, err := pb.NewAuthClient(m.conn).AuthStatus(t.Context(), &pb.AuthStatusRequest{}); err != nil || r.Enabled || r.AuthRevision != 1 {
		t.Errorf("auth status: %v, %v", r, err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.client}, Username: "root", Password: "x", DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(t.Context(), "a", "b"); err != nil {
		t.Errorf("a put with a name: %v", err)
	}
}
