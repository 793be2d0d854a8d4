package embed

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/server"
)

// login is a client of the official library, of a user unless the name is empty.
func login(t testing.TB, user, password string, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Username: user, Password: password, DialTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// people makes root, and ann who may read and write "a" to "c", and switches the
// checking on.
func people(t testing.TB, c *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	must(c.UserAdd(ctx, "root", "rootpw"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.RoleAdd(ctx, "ac"))
	must(c.RoleGrantPermission(ctx, "ac", "a", "c", clientv3.PermissionType(clientv3.PermReadWrite)))
	must(c.UserAdd(ctx, "ann", "annpw"))
	must(c.UserGrantRole(ctx, "ann", "ac"))
	must(c.AuthEnable(ctx))
}

// said is how a call ended: its text, or ok.
func said(_ any, err error) string {
	if err == nil {
		return "ok"
	}
	return strings.TrimPrefix(rpctypes.ErrorDesc(err), "etcdserver: ")
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

var cheap = []string{"--bcrypt-cost=4"}

// A member with users: what each may do, that it lasts over a restart, and that it can
// be switched off.
func TestAuthOnOneMember(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, dir, cheap...)
	ctx := t.Context()
	nobody := login(t, "", "", m.client)
	login(t, "x", "y", m.client) // whoever asks while nobody is asked for
	expect(t, "enable", said(nobody.AuthEnable(ctx)), "root user does not exist")
	people(t, nobody)
	root, ann := login(t, "root", "rootpw", m.client), login(t, "ann", "annpw", m.client)
	_, err := clientv3.New(clientv3.Config{Endpoints: []string{m.client}, Username: "ann", Password: "no", DialTimeout: 5 * time.Second})
	expect(t, "a wrong password", said(nil, err), "authentication failed, invalid user ID or password")
	_, err = clientv3.New(clientv3.Config{Endpoints: []string{m.client}, Username: "eve", Password: "no", DialTimeout: 5 * time.Second})
	expect(t, "an unknown user", said(nil, err), "authentication failed, invalid user ID or password")

	expect(t, "nobody puts", said(nobody.Put(ctx, "a", "1")), "user name is empty")
	expect(t, "nobody gets", said(nobody.Get(ctx, "a")), "user name is empty")
	expect(t, "nobody's status", said(nobody.Status(ctx, m.client)), "user name is empty")
	expect(t, "nobody's members", said(nobody.MemberList(ctx)), "user name is empty")
	expect(t, "nobody's alarms", said(nobody.AlarmList(ctx)), "user name is empty")
	expect(t, "nobody compacts", said(nobody.Compact(ctx, 1)), "user name is empty")
	expect(t, "nobody grants", said(nobody.Grant(ctx, 60)), "user name is empty")
	expect(t, "nobody defragments", said(nobody.Defragment(ctx, m.client)), "user name is empty")
	expect(t, "ann puts", said(ann.Put(ctx, "a1", "1")), "ok")
	expect(t, "ann gets", said(ann.Get(ctx, "a", clientv3.WithRange("c"))), "ok")
	expect(t, "ann gets more", said(ann.Get(ctx, "a", clientv3.WithRange("d"))), "permission denied")
	expect(t, "ann gets all", said(ann.Get(ctx, "a", clientv3.WithFromKey())), "permission denied")
	expect(t, "ann puts elsewhere", said(ann.Put(ctx, "c", "1")), "permission denied")
	expect(t, "ann deletes", said(ann.Delete(ctx, "b", clientv3.WithPrefix())), "ok")
	expect(t, "ann's txn", said(ann.Txn(ctx).Then(clientv3.OpPut("a", "1")).Else(clientv3.OpGet("x")).Commit()), "permission denied")
	expect(t, "ann's nested txn", said(ann.Txn(ctx).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("x", "1")}, nil)).Commit()), "permission denied")
	expect(t, "ann's compare", said(ann.Txn(ctx).If(clientv3.Compare(clientv3.Value("x"), "=", "1")).Commit()), "permission denied")
	expect(t, "ann's own txn", said(ann.Txn(ctx).If(clientv3.Compare(clientv3.Version("a"), "=", 0)).Then(clientv3.OpPut("a", "1"), clientv3.OpGet("b")).Commit()), "ok")
	expect(t, "ann compacts", said(ann.Compact(ctx, 2)), "permission denied")
	expect(t, "ann's status", said(ann.Status(ctx, m.client)), "ok")
	expect(t, "ann's hash", said(ann.HashKV(ctx, m.client, 0)), "permission denied")
	expect(t, "ann asks about herself", said(ann.UserGet(ctx, "ann")), "ok")
	expect(t, "ann asks about root", said(ann.UserGet(ctx, "root")), "permission denied")
	expect(t, "ann asks about her role", said(ann.RoleGet(ctx, "ac")), "ok")
	expect(t, "ann lists users", said(ann.UserList(ctx)), "permission denied")
	expect(t, "ann adds a member", said(ann.MemberAdd(ctx, []string{"http://127.0.0.1:1"})), "permission denied")
	expect(t, "root removes root", said(root.UserDelete(ctx, "root")), "invalid auth management")

	lease := must(root.Grant(ctx, 60)).ID
	must(root.Put(ctx, "x", "1", clientv3.WithLease(lease)))
	expect(t, "ann joins a lease", said(ann.Put(ctx, "a", "1", clientv3.WithLease(lease))), "permission denied")
	expect(t, "ann joins it in a txn", said(ann.Txn(ctx).Then(clientv3.OpPut("a", "1", clientv3.WithLease(lease))).Commit()), "permission denied")
	expect(t, "ann renews it", said(ann.KeepAliveOnce(ctx, lease)), "permission denied")
	expect(t, "ann ends it", said(ann.Revoke(ctx, lease)), "permission denied")
	expect(t, "ann asks for its time", said(ann.TimeToLive(ctx, lease)), "ok")
	expect(t, "ann asks for its keys", said(ann.TimeToLive(ctx, lease, clientv3.WithAttachedKeys())), "permission denied")
	expect(t, "ann lists leases", said(ann.Leases(ctx)), "permission denied")
	expect(t, "root lists leases", said(root.Leases(ctx)), "ok")

	// The library authenticates again when a member has forgotten its token.
	cfg := m.cfg
	m.stop()
	startMemberAs(t, cfg, m.client)
	expect(t, "ann after a restart", said(ann.Put(ctx, "a1", "2")), "ok")
	expect(t, "ann elsewhere after it", said(ann.Put(ctx, "c", "2")), "permission denied")
	expect(t, "root switches it off", said(root.AuthDisable(ctx)), "ok")
	expect(t, "nobody puts", said(nobody.Put(ctx, "c", "1")), "ok")
}

// watching begins a watch with a token, and returns what it is told.
func watching(t *testing.T, m *member, token, key, end string) pb.Watch_WatchClient {
	t.Helper()
	w := must(pb.NewWatchClient(m.conn).Watch(metadata.AppendToOutgoingContext(t.Context(), "token", token)))
	err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A watch ends when its permission goes, and shows nothing that came after.
func TestAuthEndsWatches(t *testing.T) {
	m := startMember(t, t.TempDir(), cheap...)
	ctx := t.Context()
	people(t, login(t, "", "", m.client))
	root, ann := login(t, "root", "rootpw", m.client), login(t, "ann", "annpw", m.client)
	token := must(root.Authenticate(ctx, "ann", "annpw")).Token
	const denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
	refused := func(what, token, key, end, want string) {
		t.Helper()
		r := must(watching(t, m, token, key, end).Recv())
		if !r.Created || !r.Canceled || r.WatchId != -1 || r.CancelReason != want {
			t.Errorf("%s: %v", what, r)
		}
	}
	refused("of what may not be read", token, "c", "", denied)
	refused("of all from a key on", token, "a", "\x00", denied)
	refused("with a bad token", "bad", "a", "", "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token")
	if r := <-ann.Watch(ctx, "c"); !r.Canceled || !strings.Contains(r.Err().Error(), "permission denied") {
		t.Errorf("the library is told %v", r.Err())
	}
	created := func(key, end string) pb.Watch_WatchClient {
		t.Helper()
		w := watching(t, m, token, key, end)
		if r := must(w.Recv()); !r.Created || r.Canceled {
			t.Fatalf("not created: %v", r)
		}
		return w
	}
	busy, idle := created("a", "c"), created("b", "")
	byLibrary := ann.Watch(ctx, "a", clientv3.WithCreatedNotify())
	<-byLibrary
	must(ann.Put(ctx, "a", "1"))
	if r := must(busy.Recv()); len(r.Events) != 1 {
		t.Fatalf("shown %v", r)
	}
	if r := <-byLibrary; len(r.Events) != 1 {
		t.Fatalf("shown %v", r)
	}
	must(root.UserRevokeRole(ctx, "ann", "ac"))
	must(root.Put(ctx, "a", "secret"))
	for what, w := range map[string]pb.Watch_WatchClient{"after the role was taken": busy, "where nothing happens": idle} {
		if r := must(w.Recv()); r.Created || !r.Canceled || r.CancelReason != denied || len(r.Events) > 0 {
			t.Errorf("%s: %v", what, r)
		}
	}
	if r, open := <-byLibrary; open { // the library closes the channel, and keeps the reason
		t.Errorf("the library is told %v", r)
	}
}

// Three members: tokens of one are good at all, also after the leader has gone, and
// what is decided by one is obeyed by the others.
func TestAuthOnThreeMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("several processes' worth of work")
	}
	tb := newTable(t, 3)
	tb.flags = cheap
	tb.start("new", tb.seats...)
	ctx := t.Context()
	people(t, login(t, "", "", tb.seats[0].client))
	r, err := pb.NewAuthClient(tb.seats[0].conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "annpw"})
	if err != nil {
		t.Fatal(err)
	}
	token := r.Token
	put := func(s *seat, token, key string) string {
		ctx := metadata.AppendToOutgoingContext(ctx, "token", token)
		return said(pb.NewKVClient(s.conn).Put(ctx, &pb.PutRequest{Key: []byte(key)}))
	}
	for i := range 20 { // at once: the other members may not have heard of it
		s := tb.seats[i%3]
		fresh := must(pb.NewAuthClient(s.conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "annpw"})).Token
		expect(t, "a new token elsewhere", put(tb.seats[(i+1)%3], fresh, "a"), "ok")
		expect(t, "forbidden elsewhere", put(tb.seats[(i+2)%3], fresh, "c"), "permission denied")
	}
	for _, s := range tb.seats {
		expect(t, "at "+s.name, put(s, token, "a"), "ok")
		expect(t, "by Bearer at "+s.name, put(s, "Bearer "+token, "a"), "ok")
		expect(t, "an empty one at "+s.name, put(s, "", "a"), "invalid auth token")
		expect(t, "of the future at "+s.name, put(s, strings.Split(token, ".")[0]+".999999", "a"), "invalid auth token")
		expect(t, "with another index at "+s.name, put(s, token+"1", "a"), "invalid auth token")
	}
	leader := tb.seats[0]
	for _, s := range tb.seats {
		if uint64(s.group.Leader()) == s.id() {
			leader = s
		}
	}
	leader.stop()
	for _, s := range tb.seats {
		if s != leader {
			tb.eventually("a put with the token of before by "+s.name, func(context.Context) bool { return put(s, token, "a") == "ok" })
			expect(t, "forbidden at "+s.name, put(s, token, "c"), "permission denied")
		}
	}
	tb.start("new", leader)
	root := login(t, "root", "rootpw", leader.client)
	must(root.UserChangePassword(ctx, "ann", "other"))
	for _, s := range tb.seats {
		tb.eventually("the token ends with its password at "+s.name, func(context.Context) bool {
			return put(s, token, "a") == "invalid auth token"
		})
	}
	// What is granted at one counts at all, at once: refusals are asked again.
	for i := range 20 {
		key := fmt.Sprint("z", i)
		ann := must(pb.NewAuthClient(tb.seats[i%3].conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "other"})).Token
		must(root.RoleGrantPermission(ctx, "ac", key, "", clientv3.PermissionType(clientv3.PermReadWrite)))
		if got := put(tb.seats[(i+1)%3], ann, key); got != "ok" && got != "revision of auth store is old" {
			t.Errorf("after a grant elsewhere: %s", got)
		}
	}
}

// Flags that cannot be obeyed keep a member from starting.
func TestAuthFlags(t *testing.T) {
	for _, flag := range []string{"odd", "jwt", "jwt,sign-method=RS256", "jwt,sign-method=HS256,priv-key=/nowhere", "jwt,sign-method=HS256,odd=1"} {
		cfg, _ := configFor(t, t.TempDir(), "--auth-token", flag)
		if s, err := Start(cfg, slog.New(slog.DiscardHandler)); err == nil {
			s.Close()
			t.Errorf("started with --auth-token=%s", flag)
		}
	}
}

// signing starts a member that gives signed tokens.
func signing(t *testing.T) *member {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("a shared secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	return startMember(t, filepath.Join(dir, "data"), "--bcrypt-cost=4", "--auth-token=jwt,sign-method=HS256,priv-key="+key+",ttl=1h")
}

// A signed token that was given after what this member has applied is judged once it has
// caught up, be it that permissions are not checked here yet or that the user is new; one
// that says more than anybody knows is then worth what it is by what is known.
func TestASignedTokenOfLater(t *testing.T) {
	m := signing(t)
	shows := func(user string, revision uint64, caughtUp bool) string {
		token, err := m.Server.auth.Signed.Sign(user, revision)
		if err != nil {
			t.Fatal(err)
		}
		who, later, err := m.Server.member.Identify(&server.Credentials{Token: token, Shown: true}, caughtUp)
		return fmt.Sprintf("%q, later %v, %v", who.User, later, err)
	}
	now := func() uint64 { _, revision := m.Server.member.AuthStatus(); return revision }
	expect(t, "of now, unchecked", shows("ann", now(), false), `"", later false, <nil>`)
	expect(t, "of later, unchecked", shows("ann", now()+1, false), `"", later true, <nil>`)
	expect(t, "of never, unchecked", shows("ann", now()+1, true), `"", later false, <nil>`)
	people(t, login(t, "", "", m.client))
	expect(t, "of now", shows("ann", now(), false), `"ann", later false, <nil>`)
	expect(t, "of later", shows("new", now()+1, false), `"", later true, <nil>`)
	expect(t, "of never", shows("new", now()+1, true), `"new", later false, <nil>`)
	forged := server.Credentials{Token: "x.y.z", Shown: true}
	_, later, err := m.Server.member.Identify(&forged, false)
	expect(t, "forged", fmt.Sprintf("later %v, %v", later, err), "later false, etcdserver: invalid auth token")
}

// Signed tokens need no memory, and outlive changes of others.
func TestAuthBySignedTokens(t *testing.T) {
	m := signing(t)
	ctx := t.Context()
	people(t, login(t, "", "", m.client))
	root := login(t, "root", "rootpw", m.client)
	token := must(root.Authenticate(ctx, "ann", "annpw")).Token
	put := func(conn *grpc.ClientConn, key string) string {
		return said(pb.NewKVClient(conn).Put(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), &pb.PutRequest{Key: []byte(key)}))
	}
	expect(t, "put", put(m.conn, "a"), "ok")
	expect(t, "put elsewhere", put(m.conn, "c"), "permission denied")
	must(root.UserAdd(ctx, "bob", "bobpw"))
	must(root.RoleGrantPermission(ctx, "ac", "c", "", clientv3.PermissionType(clientv3.PermReadWrite)))
	expect(t, "put after changes", put(m.conn, "c"), "ok")
	cfg, client := m.cfg, m.client
	m.stop()
	m = startMemberAs(t, cfg, client)
	expect(t, "put after a restart", put(m.conn, "c"), "ok")
	must(root.UserChangePassword(ctx, "ann", "other"))
	expect(t, "put after another password", put(m.conn, "c"), "revision of auth store is old")
}
