package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// proxied is a proxy in front of members, and where it listens.
func proxied(t *testing.T, endpoints string, flags ...string) (*process, string) {
	t.Helper()
	door := ports.Reserve(t)
	p := launch(t, append([]string{"grpc-proxy", "start", "--listen-addr", door, "--advertise-client-url", door, "--endpoints", endpoints}, flags...)...)
	for {
		conn, err := net.Dial("tcp", door)
		if err == nil {
			conn.Close()
			return p, door
		}
		select {
		case <-p.exited:
			t.Fatalf("the proxy ended: %s", p.raw)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// userOf is a client of a port; login may name who it is.
func userOf(t *testing.T, address string, login ...string) *clientv3.Client {
	t.Helper()
	cfg := clientv3.Config{Endpoints: []string{address}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()}
	if len(login) > 0 {
		cfg.Username, cfg.Password = login[0], login[1]
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// rawConn is a connection without the client library.
func rawConn(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// page reads one of a port's pages.
func page(t *testing.T, address, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// metric reads the sum of a metric's lines that begin with a text.
func metric(t *testing.T, address, path, beginning string) (sum float64) {
	t.Helper()
	_, text := page(t, address, path)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, beginning) {
			value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1:]), 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += value
		}
	}
	return sum
}

// eventually waits for what must come to be.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never comes to be that %s", what)
		}
	}
}

// seen is what a watch was told, in the order of coming.
func seen(events []*clientv3.Event) string {
	var s []string
	for _, e := range events {
		s = append(s, fmt.Sprintf("%s=%s@%d", e.Kv.Key, e.Kv.Value, e.Kv.ModRevision))
	}
	return strings.Join(s, " ")
}

// A member and a proxy in front of it, and one story after the other on them.
func TestAGRPCProxy(t *testing.T) {
	member := start(t, t.TempDir())
	member.awaitReady()
	proxy, door := proxied(t, member.client)
	t.Run("every service passes", func(t *testing.T) { everyService(t, member, door) })
	t.Run("identical watches are one", func(t *testing.T) { identicalWatches(t, member, door) })
	t.Run("a watch is told what the member would tell it", func(t *testing.T) { oddWatches(t, member, door) })
	t.Run("who does not read delays nobody", func(t *testing.T) { slowReader(t, member, door) })
	t.Run("keep-alives of one lease are one", func(t *testing.T) { keepAlives(t, member, door) })
	t.Run("reads that need not be linearizable are kept", func(t *testing.T) { keptReads(t, member, door) })
	t.Run("a namespace", func(t *testing.T) { namespaced(t, member) })
	t.Run("proxies know of each other", func(t *testing.T) { registered(t, member) })
	t.Run("rights are the caller's", func(t *testing.T) { rightsThrough(t, member, door) })
	proxy.signal(syscall.SIGTERM)
	if code, _ := proxy.awaitExit(); code != 0 {
		t.Errorf("the proxy ends with %d: %s", code, proxy.raw)
	}
}

func everyService(t *testing.T, member *process, door string) {
	c, ctx := userOf(t, door), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := asked[*clientv3.PutResponse](t)(c.Put(ctx, "all/a", "1"))
	if got := asked[*clientv3.GetResponse](t)(c.Get(ctx, "all/", clientv3.WithPrefix())); pairs(got) != "all/a=1" || got.Header.MemberId != put.Header.MemberId {
		t.Errorf("a range: %v", got)
	}
	txn := asked[*clientv3.TxnResponse](t)(c.Txn(ctx).If(clientv3.Compare(clientv3.Value("all/a"), "=", "1")).Then(clientv3.OpPut("all/b", "2", clientv3.WithPrevKV())).Commit())
	if !txn.Succeeded {
		t.Errorf("a transaction: %v", txn)
	}
	if got := asked[*clientv3.DeleteResponse](t)(c.Delete(ctx, "all/", clientv3.WithPrefix(), clientv3.WithPrevKV())); got.Deleted != 2 || len(got.PrevKvs) != 2 {
		t.Errorf("a deletion: %v", got)
	}
	_, err := c.Put(ctx, "", "x")
	if err != rpctypes.ErrEmptyKey {
		t.Errorf("an empty key: %v", err)
	}
	_, err = c.Get(ctx, "a", clientv3.WithRev(1<<40))
	if err != rpctypes.ErrFutureRev {
		t.Errorf("a revision to come: %v", err)
	}
	lease := asked[*clientv3.LeaseGrantResponse](t)(c.Grant(ctx, 60))
	if kept := asked[*clientv3.LeaseKeepAliveResponse](t)(c.KeepAliveOnce(ctx, lease.ID)); kept.TTL != 60 {
		t.Errorf("a keep-alive: %v", kept)
	}
	_, err = c.KeepAliveOnce(ctx, 12345)
	if err != rpctypes.ErrLeaseNotFound {
		t.Errorf("the keep-alive of a lease that there is not: %v", err)
	}
	if left := asked[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, lease.ID)); left.GrantedTTL != 60 {
		t.Errorf("a time to live: %v", left)
	}
	asked[*clientv3.LeaseRevokeResponse](t)(c.Revoke(ctx, lease.ID))
	if members := asked[*clientv3.MemberListResponse](t)(c.MemberList(ctx)); len(members.Members) != 1 || members.Members[0].ClientURLs[0] != door {
		t.Errorf("the members: %v", members)
	}
	if s := asked[*clientv3.StatusResponse](t)(c.Status(ctx, door)); s.Leader != put.Header.MemberId {
		t.Errorf("the status: %v", s)
	}
	asked[*clientv3.AlarmResponse](t)(c.AlarmList(ctx))
	asked[*clientv3.AuthStatusResponse](t)(c.AuthStatus(ctx))
	backup := asked[io.ReadCloser](t)(c.Snapshot(ctx))
	if n, err := io.Copy(io.Discard, backup); err != nil || n < 4096 {
		t.Errorf("a backup of %d bytes: %v", n, err)
	}
	session := asked[*concurrency.Session](t)(concurrency.NewSession(c, concurrency.WithTTL(10)))
	must(concurrency.NewMutex(session, "all/lock").Lock(ctx))
	must(session.Close())
	conn := rawConn(t, door)
	stream := asked[grpc.ServerStreamingClient[pb.RangeStreamResponse]](t)(pb.NewKVClient(conn).RangeStream(ctx, &pb.RangeRequest{Key: []byte("a")}))
	if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented || status.Convert(err).Message() != "RangeStream is not supported by the gRPC proxy" {
		t.Errorf("a range in pieces: %v", err)
	}
	for path, want := range map[string]string{"/health": `{"health":"true","reason":""}`, "/proxy/health": `{"health":"true","reason":""}`} {
		if code, body := page(t, door, path); code != 200 || strings.TrimSpace(body) != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, body := page(t, door, "/metrics"); !strings.Contains(body, "etcd_server_has_leader 1") {
		t.Error("/metrics is not the member's")
	}
	if _, body := page(t, door, "/proxy/metrics"); !strings.Contains(body, "etcd_grpc_proxy_cache_misses_total") || strings.Contains(body, "etcd_server_has_leader") {
		t.Error("/proxy/metrics is not the proxy's")
	}
}

const memberWatchers = "etcd_debugging_mvcc_watcher_total "

func identicalWatches(t *testing.T, member *process, door string) {
	before := metric(t, member.client, "/metrics", memberWatchers)
	ctx, cancel := context.WithCancel(t.Context())
	writer := userOf(t, member.client)
	var channels []clientv3.WatchChan
	var users []*clientv3.Client
	for range 10 {
		users = append(users, userOf(t, door))
	}
	for i := range 100 { // each on a stream of its own
		channels = append(channels, users[i%len(users)].Watch(metadata.AppendToOutgoingContext(ctx, "stream", strconv.Itoa(i)), "same/", clientv3.WithPrefix(), clientv3.WithCreatedNotify()))
	}
	for _, ch := range channels {
		if r := <-ch; !r.Created {
			t.Fatalf("the first word is %v", r)
		}
	}
	eventually(t, "100 watches are one to the member", func() bool { return metric(t, member.client, "/metrics", memberWatchers) == before+1 })
	if n := metric(t, door, "/proxy/metrics", "etcd_grpc_proxy_watchers_coalescing_total "); n != 99 {
		t.Errorf("%v watches hang on another's", n)
	}
	const n = 20
	for i := range n {
		asked[*clientv3.PutResponse](t)(writer.Put(ctx, fmt.Sprintf("same/%d", i), "v"))
	}
	var want string
	for i, ch := range channels {
		var events []*clientv3.Event
		for len(events) < n {
			r := <-ch
			if r.Err() != nil {
				t.Fatal(r.Err())
			}
			events = append(events, r.Events...)
		}
		got := seen(events)
		if i == 0 {
			want = got
		}
		if got != want || strings.Count(got, "same/") != n {
			t.Fatalf("watch %d was told\n%s\nand the first\n%s", i, got, want)
		}
	}
	cancel()
	eventually(t, "nothing is left of them", func() bool { return metric(t, member.client, "/metrics", memberWatchers) == before })
}

// oddWatches asks a member and a proxy the same, and compares what they say.
func oddWatches(t *testing.T, member *process, door string) {
	c := userOf(t, member.client)
	var revision int64
	for i := range 10 {
		revision = asked[*clientv3.PutResponse](t)(c.Put(t.Context(), "odd", strconv.Itoa(i))).Header.Revision
	}
	asked[*clientv3.CompactResponse](t)(c.Compact(t.Context(), revision-5))
	create := func(r *pb.WatchCreateRequest) *pb.WatchRequest {
		if r.Key == nil {
			r.Key = []byte("odd")
		}
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
	}
	cancel := func(id int64) *pb.WatchRequest {
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	}
	told := func(address string, requests []*pb.WatchRequest, answers int) string {
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		stream := asked[pb.Watch_WatchClient](t)(pb.NewWatchClient(rawConn(t, address)).Watch(ctx))
		for _, r := range requests {
			if err := stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		var lines []string
		for range answers {
			r, err := stream.Recv()
			if err != nil {
				return strings.Join(append(lines, err.Error()), "\n")
			}
			line := fmt.Sprintf("id %d created %v canceled %v reason %q compacted %d at %d:", r.WatchId, r.Created, r.Canceled, r.CancelReason, r.CompactRevision, r.Header.Revision)
			for _, e := range r.Events {
				line += fmt.Sprintf(" %v %s=%s@%d before %q", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.ModRevision, e.PrevKv.GetValue())
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "\n")
	}
	for what, s := range map[string]struct {
		requests []*pb.WatchRequest
		answers  int
	}{
		"of the past, with values before": {[]*pb.WatchRequest{create(&pb.WatchCreateRequest{StartRevision: revision - 3, PrevKv: true})}, 2},
		"of what is compacted":            {[]*pb.WatchRequest{create(&pb.WatchCreateRequest{StartRevision: revision - 7})}, 2},
		"of before the beginning":         {[]*pb.WatchRequest{create(&pb.WatchCreateRequest{StartRevision: -1})}, 1},
		"of an empty range":               {[]*pb.WatchRequest{create(&pb.WatchCreateRequest{RangeEnd: []byte("a")})}, 1},
		"with numbers given and chosen": {[]*pb.WatchRequest{
			create(&pb.WatchCreateRequest{}), create(&pb.WatchCreateRequest{WatchId: 7}), create(&pb.WatchCreateRequest{WatchId: 7}),
			create(&pb.WatchCreateRequest{WatchId: 1}), create(&pb.WatchCreateRequest{}), cancel(99), cancel(7), create(&pb.WatchCreateRequest{WatchId: 7}),
		}, 7},
		"without deletions": {[]*pb.WatchRequest{create(&pb.WatchCreateRequest{StartRevision: revision - 2, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}})}, 2},
	} {
		want, got := told(member.client, s.requests, s.answers), told(door, s.requests, s.answers)
		if got != want {
			t.Errorf("a watch %s: the proxy says\n%s\nand the member\n%s", what, got, want)
		}
	}
	through := userOf(t, door)
	watch := through.Watch(t.Context(), "odd", clientv3.WithCreatedNotify())
	<-watch
	for {
		if err := through.RequestProgress(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := <-watch; r.IsProgressNotify() && r.Header.Revision >= revision {
			break
		}
	}
}

// slowReader has one stream that does not read, beside one that does.
func slowReader(t *testing.T, member *process, door string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	conn := rawConn(t, door)
	slow := asked[pb.Watch_WatchClient](t)(pb.NewWatchClient(conn).Watch(ctx))
	if err := slow.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("slow")}}}); err != nil {
		t.Fatal(err)
	}
	asked[*pb.WatchResponse](t)(slow.Recv())
	quick := userOf(t, door).Watch(ctx, "slow", clientv3.WithCreatedNotify())
	<-quick
	before := metric(t, door, "/proxy/metrics", "etcd_grpc_proxy_watchers_coalescing_total ")
	eventually(t, "both are one", func() bool {
		return metric(t, door, "/proxy/metrics", "etcd_grpc_proxy_watchers_coalescing_total ") >= max(1, before)
	})
	writer, value := userOf(t, member.client), strings.Repeat("x", 64<<10)
	const n = 60
	first := asked[*clientv3.PutResponse](t)(writer.Put(ctx, "slow", value)).Header.Revision
	for range n - 1 {
		asked[*clientv3.PutResponse](t)(writer.Put(ctx, "slow", value))
	}
	for got := 0; got < n; {
		r := <-quick
		for i, e := range r.Events {
			if e.Kv.ModRevision != first+int64(got+i) {
				t.Fatalf("who reads was told of revision %d as number %d from %d on", e.Kv.ModRevision, got+i, first)
			}
		}
		got += len(r.Events)
	}
	for got := int64(0); got < n; {
		r := asked[*pb.WatchResponse](t)(slow.Recv())
		for _, e := range r.Events {
			if e.Kv.ModRevision != first+got {
				t.Fatalf("who did not read was told of revision %d as number %d from %d on", e.Kv.ModRevision, got, first)
			}
			got++
		}
	}
	eventually(t, "both are one again", func() bool {
		return metric(t, door, "/proxy/metrics", "etcd_grpc_proxy_watchers_coalescing_total ") == 1
	})
}

func keepAlives(t *testing.T, member *process, door string) {
	const keepAlivesAsked = `grpc_server_msg_received_total{grpc_method="LeaseKeepAlive"`
	lease := asked[*clientv3.LeaseGrantResponse](t)(userOf(t, door).Grant(t.Context(), 60))
	before := metric(t, member.client, "/metrics", keepAlivesAsked)
	var all sync.WaitGroup
	for range 20 {
		c := pb.NewLeaseClient(rawConn(t, door))
		all.Go(func() {
			stream, err := c.LeaseKeepAlive(t.Context())
			for i := 0; i < 50 && err == nil; i++ {
				err = stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease.ID)})
			}
			if err == nil {
				err = stream.CloseSend()
			}
			for n := 0; err == nil; n++ {
				var r *pb.LeaseKeepAliveResponse
				if r, err = stream.Recv(); err == io.EOF && n == 50 {
					return
				}
				if err == nil && (r.ID != int64(lease.ID) || r.TTL < 58 || r.TTL > 60) {
					t.Errorf("kept alive: %v", r)
				}
			}
			t.Errorf("keep-alives: %v", err)
		})
	}
	all.Wait()
	if n := metric(t, member.client, "/metrics", keepAlivesAsked) - before; n < 1 || n > 50 {
		t.Errorf("the member was asked %v times for 1000 keep-alives", n)
	}
}

func keptReads(t *testing.T, member *process, door string) {
	const ranges = `grpc_server_started_total{grpc_method="Range"`
	c, ctx := userOf(t, door), t.Context()
	read := func() string {
		return pairs(asked[*clientv3.GetResponse](t)(c.Get(ctx, "kept", clientv3.WithSerializable())))
	}
	asked[*clientv3.PutResponse](t)(c.Put(ctx, "kept", "1"))
	before, begun := metric(t, member.client, "/metrics", ranges), time.Now()
	for range 100 {
		if got := read(); got != "kept=1" {
			t.Fatal(got)
		}
	}
	if n := metric(t, member.client, "/metrics", ranges) - before; n < 1 || n > 2+time.Since(begun).Seconds() {
		t.Errorf("the member was asked %v times for 100 reads", n)
	}
	for i := range 20 { // what was written through the proxy is read through it
		value := strconv.Itoa(i)
		switch i % 3 {
		case 0:
			asked[*clientv3.PutResponse](t)(c.Put(ctx, "kept", value))
		case 1:
			asked[*clientv3.TxnResponse](t)(c.Txn(ctx).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("kept", value)}, nil)).Commit())
		case 2:
			asked[*clientv3.DeleteResponse](t)(c.Delete(ctx, "kep", clientv3.WithPrefix()))
			asked[*clientv3.PutResponse](t)(c.Put(ctx, "kept", value))
		}
		if got := read(); got != "kept="+value {
			t.Fatalf("%q was read after %s was written", got, value)
		}
	}
	asked[*clientv3.PutResponse](t)(userOf(t, member.client).Put(ctx, "kept", "past the proxy"))
	eventually(t, "what was written past the proxy is read", func() bool { return read() == "kept=past the proxy" })
}

func namespaced(t *testing.T, member *process) {
	_, door := proxied(t, member.client, "--namespace", "inside/", "--experimental-serializable-ordering", "--experimental-enable-grpc-logging", "--debug")
	in, out, ctx := userOf(t, door), userOf(t, member.client), t.Context()
	begun := asked[*clientv3.PutResponse](t)(out.Put(ctx, "inside0", "no")).Header.Revision
	asked[*clientv3.PutResponse](t)(out.Put(ctx, "inside/already", "yes"))
	watch := in.Watch(ctx, "", clientv3.WithFromKey(), clientv3.WithPrevKV(), clientv3.WithRev(begun))
	asked[*clientv3.PutResponse](t)(in.Put(ctx, "b", "1"))
	asked[*clientv3.TxnResponse](t)(in.Txn(ctx).If(clientv3.Compare(clientv3.Value("b"), "=", "1")).Then(clientv3.OpPut("b", "2"), clientv3.OpGet("", clientv3.WithFromKey())).Commit())
	if got := pairs(asked[*clientv3.GetResponse](t)(in.Get(ctx, "\x00", clientv3.WithFromKey()))); got != "already=yes b=2" {
		t.Errorf("inside there is %s", got)
	}
	if got := pairs(asked[*clientv3.GetResponse](t)(out.Get(ctx, "inside/", clientv3.WithPrefix()))); got != "inside/already=yes inside/b=2" {
		t.Errorf("the cluster has %s", got)
	}
	var events []*clientv3.Event
	for len(events) < 3 {
		r := <-watch
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		events = append(events, r.Events...)
	}
	if got := regexp.MustCompile(`@\d+`).ReplaceAllString(seen(events), ""); got != "already=yes b=1 b=2" || string(events[2].PrevKv.Key) != "b" {
		t.Errorf("the watch was told %s, %v", got, events[2].PrevKv)
	}
	session := asked[*concurrency.Session](t)(concurrency.NewSession(in, concurrency.WithTTL(10)))
	election := concurrency.NewElection(session, "chief")
	if err := election.Campaign(ctx, "me"); err != nil {
		t.Fatal(err)
	}
	if n := asked[*clientv3.GetResponse](t)(out.Get(ctx, "inside/chief/", clientv3.WithPrefix())).Count; n != 1 {
		t.Errorf("%d keys of the election in the cluster", n)
	}
	left := asked[*clientv3.LeaseTimeToLiveResponse](t)(in.TimeToLive(ctx, session.Lease(), clientv3.WithAttachedKeys()))
	if len(left.Keys) != 1 || !strings.HasPrefix(string(left.Keys[0]), "chief/") {
		t.Errorf("the keys of the lease: %q", left.Keys)
	}
}

func registered(t *testing.T, member *process) {
	flags := []string{"--resolver-prefix", "___proxies", "--resolver-ttl", "5"}
	one, first := proxied(t, member.client, flags...)
	_, second := proxied(t, member.client, flags...)
	want := []string{first, second}
	slices.Sort(want)
	urls := func() (list []string) {
		for _, m := range asked[*clientv3.MemberListResponse](t)(userOf(t, second).MemberList(t.Context())).Members {
			list = append(list, m.ClientURLs...)
		}
		return list
	}
	eventually(t, "both are registered", func() bool { return slices.Equal(urls(), want) })
	one.signal(syscall.SIGTERM)
	one.awaitExit()
	eventually(t, "one is left", func() bool { return slices.Equal(urls(), []string{second}) })
}

// rightsThrough turns auth on: it comes last.
func rightsThrough(t *testing.T, member *process, door string) {
	c, ctx := userOf(t, door), t.Context()
	for _, name := range []string{"root", "reader", "nobody"} {
		asked[*clientv3.AuthUserAddResponse](t)(c.UserAdd(ctx, name, name))
		asked[*clientv3.AuthRoleAddResponse](t)(c.RoleAdd(ctx, name))
		asked[*clientv3.AuthUserGrantRoleResponse](t)(c.UserGrantRole(ctx, name, name))
	}
	asked[*clientv3.AuthRoleGrantPermissionResponse](t)(c.RoleGrantPermission(ctx, "reader", "secret", "", clientv3.PermissionType(clientv3.PermRead)))
	asked[*clientv3.PutResponse](t)(c.Put(ctx, "secret", "0"))
	asked[*clientv3.GetResponse](t)(c.Get(ctx, "secret", clientv3.WithSerializable()))
	asked[*clientv3.AuthEnableResponse](t)(c.AuthEnable(ctx))
	root, reader, nobody := userOf(t, door, "root", "root"), userOf(t, door, "reader", "reader"), userOf(t, door, "nobody", "nobody")
	for range 2 {
		if _, err := c.Get(ctx, "secret", clientv3.WithSerializable()); err != rpctypes.ErrUserEmpty {
			t.Errorf("without a name one reads: %v", err)
		}
		if got := pairs(asked[*clientv3.GetResponse](t)(reader.Get(ctx, "secret", clientv3.WithSerializable()))); got != "secret=0" {
			t.Errorf("the reader reads %s", got)
		}
		if _, err := nobody.Get(ctx, "secret", clientv3.WithSerializable()); err != rpctypes.ErrPermissionDenied {
			t.Errorf("nobody reads: %v", err)
		}
	}
	good := reader.Watch(ctx, "secret", clientv3.WithCreatedNotify())
	<-good
	var bad clientv3.WatchResponse
	for bad = range nobody.Watch(ctx, "secret") {
		break
	}
	if !bad.Canceled || !strings.Contains(fmt.Sprint(bad.Err()), "permission denied") {
		t.Errorf("nobody's watch: %+v, %v", bad, bad.Err())
	}
	stream := asked[pb.Watch_WatchClient](t)(pb.NewWatchClient(rawConn(t, door)).Watch(metadata.AppendToOutgoingContext(ctx, "token", "made.1")))
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("secret")}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || !r.Canceled || !strings.Contains(r.CancelReason, "invalid auth token") {
		t.Errorf("the watch of a token that there is not: %v, %v", r, err)
	}
	asked[*clientv3.PutResponse](t)(root.Put(ctx, "secret", "1"))
	if r := <-good; seen(r.Events) == "" || string(r.Events[0].Kv.Value) != "1" {
		t.Errorf("the reader is told %v", r)
	}
	// Rights that are gone are gone: for reads that would be kept, and for new watches.
	asked[*clientv3.GetResponse](t)(reader.Get(ctx, "secret", clientv3.WithSerializable()))
	asked[*clientv3.AuthRoleRevokePermissionResponse](t)(root.RoleRevokePermission(ctx, "reader", "secret", ""))
	if _, err := reader.Get(ctx, "secret", clientv3.WithSerializable()); err != rpctypes.ErrPermissionDenied {
		t.Errorf("the reader reads still: %v", err)
	}
	if r := <-reader.Watch(ctx, "secret", clientv3.WithCreatedNotify()); !r.Canceled || !strings.Contains(fmt.Sprint(r.Err()), "permission denied") {
		t.Errorf("the reader's new watch: %+v", r)
	}
}
