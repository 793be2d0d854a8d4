package embed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v3 "github.com/kvorum/kvorum/internal/api/v3"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/proxy/grpcproxy"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// walk is a random walk over all calls that there are, each by whoever comes: people with
// tokens of now and of before, with none, and with one that is nobody's. The oracle
// (testkit/rights) goes along and says of each who is refused, and with which words. What
// hangs on leases is looked up in the member's state, which is not what is judged here.
type walk struct {
	t      testing.TB
	m      *member
	conn   *grpc.ClientConn
	r      *rand.Rand
	draws  model.Generator
	oracle *rights.Table
	tokens map[string][]given // of each user, the latest last
	leases []id.Lease
	lines  int // names of locks and elections so far
	// lacks are methods that this door does not judge: they are left out.
	lacks []string
	// asked counts calls by method, refused those that the oracle refuses.
	asked, refused map[string]int
}

// given is a token as its holder has it, and the auth revision at which he was given it.
type given struct {
	token  string
	issued uint64
}

// asking is one call: what is sent, and what the oracle says of who sends it.
type asking struct {
	request proto.Message
	judge   func(rights.Caller) error
	// anybodys is asked for no credentials: bad ones are not looked at.
	anybodys bool
	// done notes what is so once it was not refused and went well.
	done func(answer []byte)
}

// method is one of those that are registered.
type method struct {
	full   string
	stream bool
}

// registered collects them.
type registered []method

func (l *registered) RegisterService(d *grpc.ServiceDesc, _ any) {
	for _, m := range d.Methods {
		*l = append(*l, method{full: "/" + d.ServiceName + "/" + m.MethodName})
	}
	for _, s := range d.Streams {
		*l = append(*l, method{full: "/" + d.ServiceName + "/" + s.StreamName, stream: true})
	}
}

// refusals are the words in which the oracle's verdicts come.
var refusals = map[error]string{
	command.ErrUserEmpty: "user name is empty", command.ErrPermissionDenied: "permission denied",
	command.ErrInvalidAuthToken: "invalid auth token", command.ErrAuthOldRevision: "revision of auth store is old",
}

// newWalk begins at a member of whose users the oracle knows.
func newWalk(t testing.TB, m *member, conn *grpc.ClientConn, seed uint64) *walk {
	w := &walk{
		t: t, m: m, conn: conn, r: rand.New(rand.NewPCG(seed, 11)), oracle: rights.New(), tokens: map[string][]given{},
		asked: map[string]int{}, refused: map[string]int{},
	}
	w.draws = model.Generator{Rand: w.r}
	for _, c := range []struct {
		method  string
		request proto.Message
		body    command.Body
	}{
		{pb.Auth_UserAdd_FullMethodName, &pb.AuthUserAddRequest{Name: rights.Root, Password: passwordOf(rights.Root)}, &command.UserAdd{Name: rights.Root}},
		{pb.Auth_UserGrantRole_FullMethodName, &pb.AuthUserGrantRoleRequest{User: rights.Root, Role: rights.Root}, &command.UserGrantRole{User: rights.Root, Role: rights.Root}},
		{pb.Auth_AuthEnable_FullMethodName, &pb.AuthEnableRequest{}, &command.AuthEnable{}},
	} {
		if _, err := w.send(method{full: c.method}, nil, c.request); err != nil {
			t.Fatal(err)
		}
		w.obey(c.body)
	}
	return w
}

// passwordOf is the password that a user has at all times.
func passwordOf(user string) string { return "pw of " + user }

// obey has the oracle do what the member has done.
func (w *walk) obey(body command.Body) {
	next, err := w.oracle.Apply(body)
	if err != nil {
		w.t.Fatalf("%T %+v was done, the oracle says %v", body, body, err)
	}
	w.oracle = next
}

// attached are the keys of a lease.
func (w *walk) attached(lease id.Lease) [][]byte {
	list, err := w.m.state.View().LeaseKeys(lease, math.MaxInt)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// send makes a call with a token, or with none, and returns the first answer. How it ended
// is an error also where a watch tells it in its answer.
func (w *walk) send(m method, token *string, request proto.Message) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if token != nil {
		ctx = metadata.AppendToOutgoingContext(ctx, []string{"token", "authorization"}[w.r.IntN(2)], *token)
	}
	body := encoded(request)
	if !m.stream {
		err = w.conn.Invoke(ctx, m.full, body, &answer, grpc.ForceCodec(raw{}))
		return answer, err
	}
	s, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, m.full, grpc.ForceCodec(raw{}))
	if err != nil {
		return nil, err
	}
	if err := s.SendMsg(body); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if m.full != pb.Watch_Watch_FullMethodName && m.full != pb.Lease_LeaseKeepAlive_FullMethodName {
		if err := s.CloseSend(); err != nil {
			return nil, err
		}
	}
	if err := s.RecvMsg(&answer); err != nil {
		return nil, err
	}
	var created pb.WatchResponse
	if m.full == pb.Watch_Watch_FullMethodName && proto.Unmarshal(answer, &created) == nil && created.Canceled {
		return nil, errors.New(created.CancelReason)
	}
	return answer, nil
}

// refusalIn is which refusal a call ended with; nil is for everything else.
func refusalIn(err error) error {
	if err == nil {
		return nil
	}
	text := status.Convert(err).Message()
	for refusal, words := range refusals {
		if strings.HasSuffix(text, "etcdserver: "+words) {
			return refusal
		}
	}
	return nil
}

// caller draws who calls: somebody, nobody, or one with a token that is nobody's.
func (w *walk) caller() (token *string, who rights.Caller, bad error) {
	switch w.r.IntN(12) {
	case 0:
		return nil, rights.Caller{}, nil
	case 1:
		text := []string{"", "bad", strings.Repeat("x", 16) + ".1", "Bearer "}[w.r.IntN(4)]
		return &text, rights.Caller{}, command.ErrInvalidAuthToken
	}
	return w.shows([]string{rights.Root, "ann", "ann", "bob", "cleo"}[w.r.IntN(5)])
}

// shows is a user with his token, mostly the latest, and what the oracle makes of it.
func (w *walk) shows(user string) (token *string, who rights.Caller, bad error) {
	_, known := w.oracle.Users[user]
	if known && w.oracle.Enabled {
		w.logIn(user)
	}
	list := w.tokens[user]
	if len(list) == 0 {
		return nil, rights.Caller{}, nil
	}
	one := list[len(list)-1]
	if w.r.IntN(6) == 0 {
		one = list[w.r.IntN(len(list))]
	}
	text := []string{"", "Bearer "}[w.r.IntN(2)] + one.token
	who = rights.Caller{User: user, Issued: one.issued}
	if !known || !w.oracle.Good(who) {
		return &text, who, command.ErrInvalidAuthToken
	}
	return &text, who, nil
}

// mostGiven is how many tokens of a user are kept.
const mostGiven = 4

// logIn gets a user a token, unless his latest one is still good.
func (w *walk) logIn(user string) {
	if list := w.tokens[user]; len(list) > 0 && w.oracle.Good(rights.Caller{User: user, Issued: list[len(list)-1].issued}) {
		return
	}
	answer, err := w.send(method{full: pb.Auth_Authenticate_FullMethodName}, nil, &pb.AuthenticateRequest{Name: user, Password: passwordOf(user)})
	if err != nil {
		w.t.Fatalf("%s cannot log in: %v\n%v", user, err, w.oracle)
	}
	w.note(user, answer)
}

func (w *walk) note(user string, answer []byte) {
	var r pb.AuthenticateResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		w.t.Fatal(err)
	}
	list := append(w.tokens[user], given{r.Token, w.oracle.Revision})
	w.tokens[user] = list[max(len(list)-mostGiven, 0):]
}

// byRoot makes a call that nobody judges, and returns its answer.
func (w *walk) byRoot(full string, request proto.Message) []byte {
	var token *string
	if w.oracle.Enabled {
		w.logIn(rights.Root)
		list := w.tokens[rights.Root]
		token = &list[len(list)-1].token
	}
	answer, err := w.send(method{full: full}, token, request)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer
}

// step makes a call, and says what is wrong with how it was judged.
func (w *walk) step(m method, token *string, who rights.Caller, bad error) (wrong string) {
	if !w.oracle.Enabled {
		who, bad = rights.Caller{}, nil
	}
	a := calls[m.full](w, who)
	var want error
	if !a.anybodys {
		if want = bad; bad == nil && a.judge != nil {
			want = a.judge(who)
		}
	}
	w.asked[m.full]++
	if want != nil {
		w.refused[m.full]++
	}
	answer, err := w.send(m, token, a.request)
	if got := refusalIn(err); !errors.Is(got, want) || (got == nil) != (want == nil) {
		return fmt.Sprintf("%s of %q %v ended with %v, the oracle says %v\n%v\n%v", m.full, who.User, a.request, err, want, w.oracle, w.leases)
	}
	if err == nil && a.done != nil {
		a.done(answer)
	}
	return ""
}

// walked makes so many calls; half of them are of KV, Watch and Lease.
func (w *walk) walked(steps int) (wrong string) {
	var all registered
	v3.Register(&all, nil)
	all = slices.DeleteFunc(all, func(m method) bool { return slices.Contains(w.lacks, m.full) })
	var ofKeys []method
	for _, m := range all {
		if calls[m.full] == nil {
			return m.full + " is asked by nobody"
		}
		if strings.HasPrefix(m.full, "/etcdserverpb.") && !slices.ContainsFunc([]string{"Maintenance", "Cluster", "Auth"}, func(s string) bool { return strings.Contains(m.full, s) }) {
			ofKeys = append(ofKeys, m)
		}
	}
	ofKeys = append(ofKeys, slices.Repeat([]method{{full: pb.KV_Txn_FullMethodName}}, 4)...) // which have most to them
	for range steps {
		from := []method(all)
		if w.r.IntN(2) == 0 {
			from = ofKeys
		}
		token, who, bad := w.caller()
		if w.r.IntN(6) == 0 {
			from = ofRoot
			token, who, bad = w.shows(rights.Root)
		}
		if wrong := w.step(from[w.r.IntN(len(from))], token, who, bad); wrong != "" {
			return wrong
		}
	}
	return ""
}

// ofRoot are the calls by which root gives rights and takes them.
var ofRoot = func() (list []method) {
	for name, times := range map[string]int{
		pb.Auth_UserAdd_FullMethodName: 2, pb.Auth_UserGrantRole_FullMethodName: 4, pb.Auth_UserRevokeRole_FullMethodName: 1,
		pb.Auth_RoleAdd_FullMethodName: 2, pb.Auth_RoleGrantPermission_FullMethodName: 4, pb.Auth_RoleRevokePermission_FullMethodName: 2,
		pb.Auth_RoleDelete_FullMethodName: 1, pb.Auth_AuthEnable_FullMethodName: 2,
	} {
		list = append(list, slices.Repeat([]method{{full: name}}, times)...)
	}
	slices.SortFunc(list, func(a, b method) int { return strings.Compare(a.full, b.full) })
	return list
}()

// thick says that every method was asked, and refused unless it is anybody's: that
// the walk asked for enough.
func (w *walk) thick() error {
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		if slices.Contains(w.lacks, name) {
			continue
		}
		a, r := w.asked[name], w.refused[name]
		free := name == pb.Auth_Authenticate_FullMethodName || strings.HasPrefix(name, "/grpc.health")
		if a < 3 || (r == 0) != free || !free && r == a {
			return fmt.Errorf("%s: asked %d times, refused %d times", name, a, r)
		}
	}
	return nil
}

// byProxy opens a door through a gRPC proxy.
func byProxy(t *testing.T, m *member) *grpc.ClientConn {
	t.Helper()
	proxy := grpcproxy.New(grpcproxy.Options{Upstream: m.conn, FragmentBytes: 1 << 20})
	s := rpc.NewServer(rpc.Limits{MaxRequestBytes: 1 << 20}, nil, nil)
	proxy.Register(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		proxy.Close()
		s.Stop()
		<-served
	})
	return conn
}

// callsAsked is how many calls each walk makes; KVORUM_AUTH_CALLS sets another number.
func callsAsked(t *testing.T) int {
	text := os.Getenv("KVORUM_AUTH_CALLS")
	switch {
	case text == "" && testing.Short():
		return 1500
	case text == "":
		return 6000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Every call there is, at every door, is refused to whom the oracle refuses it and to
// nobody else, and in the same words:
//
//	KVORUM_AUTH_CALLS=70000 go test -run EveryCall -v ./embed
func TestEveryCallIsJudgedAsTheOracleJudges(t *testing.T) {
	for i, door := range []string{"our server", "grpc-go's", "a proxy"} {
		t.Run(door, func(t *testing.T) {
			if door == "grpc-go's" {
				t.Setenv(otherServer, "grpc-go")
			}
			m := startMember(t, t.TempDir(), "--bcrypt-cost=4", "--unsafe-no-fsync")
			w := newWalk(t, m, m.conn, uint64(i))
			if door == "a proxy" {
				w.conn = byProxy(t, m)
				// A proxy has no RangeStream, and believes for a second that who has renewed a
				// lease may renew it.
				w.lacks = []string{pb.KV_RangeStream_FullMethodName, pb.Lease_LeaseKeepAlive_FullMethodName}
			}
			steps := callsAsked(t)
			if wrong := w.walked(steps); wrong != "" {
				t.Fatal(wrong)
			}
			if err := w.thick(); err != nil && !testing.Short() {
				t.Error(err)
			}
			refused := 0
			for _, n := range w.refused {
				refused += n
			}
			t.Logf("%d calls, %d of them refused", steps, refused)
		})
	}
}
