package bench

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// fake is as much of an etcd as the load generator needs, with the faults that a
// story gives it.
type fake struct {
	pb.UnimplementedKVServer
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	// streams says whether it has RangeStream.
	streams bool
	// refuse, if set, may fail a put.
	refuse func(puts int) error
	// lost keys are left out of answers.
	lost int
	// compacting, if set, holds Compact up until it returns.
	compacting func(context.Context) error

	mu       sync.Mutex
	kvs      map[string]*mvccpb.KeyValue
	revision int64
	calls    map[string]int
	made     chan struct{} // a put was made, if somebody listens

	hearing hearing
	logins  *logins // nil: nobody has to say who he is
}

// logins are counted, and calls that carry their token. While it is on, everybody needs
// one.
type logins struct {
	pb.UnimplementedAuthServer
	made, named atomic.Int64
	on          atomic.Bool
	// users have passwords; so has ann, who need not be made.
	users sync.Map
}

func (l *logins) count(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if shown := metadata.ValueFromIncomingContext(ctx, "token"); len(shown) == 1 && shown[0] == "token.1" {
		l.named.Add(1)
	} else if l.on.Load() && info.FullMethod != pb.Auth_Authenticate_FullMethodName && info.FullMethod != pb.Auth_AuthStatus_FullMethodName {
		return nil, status.Error(codes.InvalidArgument, "user name is empty")
	}
	return next(ctx, req)
}

// Authenticate gives everybody with the right password one token.
func (l *logins) Authenticate(_ context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	password, known := l.users.Load(r.Name)
	if r.Name == "ann" {
		password, known = "secret", true
	}
	if !known || r.Password != password {
		return nil, status.Error(codes.InvalidArgument, "authentication failed")
	}
	l.made.Add(1)
	return &pb.AuthenticateResponse{Token: "token.1"}, nil
}

func (l *logins) UserAdd(_ context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	if _, known := l.users.LoadOrStore(r.Name, r.Password); known {
		return nil, status.Error(codes.FailedPrecondition, "user name already exists")
	}
	return &pb.AuthUserAddResponse{}, nil
}

func (l *logins) UserDelete(_ context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	l.users.Delete(r.Name)
	return &pb.AuthUserDeleteResponse{}, nil
}

func (l *logins) UserGrantRole(context.Context, *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	return &pb.AuthUserGrantRoleResponse{}, nil
}

func (l *logins) RoleAdd(context.Context, *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	return &pb.AuthRoleAddResponse{}, nil
}

func (l *logins) RoleDelete(context.Context, *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	return &pb.AuthRoleDeleteResponse{}, nil
}

func (l *logins) RoleGrantPermission(context.Context, *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	return &pb.AuthRoleGrantPermissionResponse{}, nil
}

func (l *logins) AuthStatus(context.Context, *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	return &pb.AuthStatusResponse{Enabled: l.on.Load()}, nil
}

func (l *logins) AuthEnable(context.Context, *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	l.on.Store(true)
	return &pb.AuthEnableResponse{}, nil
}

func (l *logins) AuthDisable(context.Context, *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	l.on.Store(false)
	return &pb.AuthDisableResponse{}, nil
}

func newFake() *fake {
	return &fake{kvs: map[string]*mvccpb.KeyValue{}, calls: map[string]int{}, revision: 1, made: make(chan struct{})}
}

// serve until the test ends.
func (f *fake) serve(t *testing.T) Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := f.on(l)
	t.Cleanup(s.Stop)
	return Server{Endpoint: l.Addr().String()}
}

func (f *fake) on(l net.Listener) *grpc.Server {
	s := grpc.NewServer()
	if f.logins != nil {
		s = grpc.NewServer(grpc.UnaryInterceptor(f.logins.count))
		pb.RegisterAuthServer(s, f.logins)
	}
	pb.RegisterKVServer(s, f)
	pb.RegisterMaintenanceServer(s, f)
	pb.RegisterWatchServer(s, f)
	pb.RegisterLeaseServer(s, f)
	go func() { _ = s.Serve(l) }()
	return s
}

// saw is how many calls of a kind came in.
func (f *fake) saw(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[kind]
}

// keys that it has now.
func (f *fake) keys() map[string]*mvccpb.KeyValue {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.kvs)
}

// from now on puts may fail.
func (f *fake) refusing(refuse func(puts int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

func (f *fake) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Version: "9.9"}, nil
}

func (f *fake) header() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: f.revision} }

func (f *fake) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[kindOf(r)]++
	answer := &pb.RangeResponse{Header: f.header()}
	if len(r.RangeEnd) == 0 {
		if kv := f.kvs[string(r.Key)]; kv != nil {
			answer.Kvs = append(answer.Kvs, kv)
		}
	} else {
		for k, kv := range f.kvs {
			if k >= string(r.Key) && k < string(r.RangeEnd) {
				answer.Kvs = append(answer.Kvs, kv)
			}
		}
		slices.SortFunc(answer.Kvs, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
		answer.Kvs = answer.Kvs[:max(len(answer.Kvs)-f.lost, 0)]
	}
	answer.Count = int64(len(answer.Kvs))
	if r.Limit > 0 && answer.Count > r.Limit {
		answer.Kvs, answer.More = answer.Kvs[:r.Limit], true
	}
	if r.CountOnly {
		answer.Kvs = nil
	}
	return answer, nil
}

func kindOf(r *pb.RangeRequest) string {
	switch {
	case r.CountOnly:
		return "count"
	case r.Serializable:
		return "serializable"
	case r.Limit > 0:
		return "limit"
	case len(r.RangeEnd) > 0:
		return "range"
	}
	return "get"
}

func (f *fake) RangeStream(r *pb.RangeRequest, out grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	if !f.streams {
		return status.Error(codes.Unimplemented, "unknown method RangeStream")
	}
	all, err := f.Range(out.Context(), r)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(all.Kvs, 7) {
		if err := out.Send(&pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Kvs: part}}); err != nil {
			return err
		}
	}
	return out.Send(&pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Header: all.Header, Count: all.Count}})
}

func (f *fake) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls["put"]++
	if f.refuse != nil {
		if err := f.refuse(f.calls["put"]); err != nil {
			return nil, err
		}
	}
	return &pb.PutResponse{Header: f.put(r)}, nil
}

func (f *fake) put(r *pb.PutRequest) *pb.ResponseHeader {
	f.revision++
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, ModRevision: f.revision, Lease: r.Lease}
	f.kvs[string(r.Key)] = kv
	f.tell(&mvccpb.Event{Kv: kv})
	select {
	case f.made <- struct{}{}:
	default:
	}
	return f.header()
}

func (f *fake) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls["txn"]++
	c := r.Compare[0]
	if kv := f.kvs[string(c.Key)]; kv == nil || kv.ModRevision != c.GetModRevision() {
		return &pb.TxnResponse{Header: f.header()}, nil
	}
	return &pb.TxnResponse{Header: f.put(r.Success[0].GetRequestPut()), Succeeded: true}, nil
}

func (f *fake) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	f.mu.Lock()
	now := f.revision
	f.calls["compact"]++
	f.mu.Unlock()
	if !r.Physical || r.Revision > now {
		return nil, status.Errorf(codes.OutOfRange, "a compaction at %d of %d, physical %t", r.Revision, now, r.Physical)
	}
	if f.compacting != nil {
		if err := f.compacting(ctx); err != nil {
			return nil, err
		}
	}
	return &pb.CompactionResponse{}, nil
}

// asProgram makes the test binary itself a server that bench can start: it takes
// etcd's flags and keeps its keys' names in its data directory.
const asProgram = "KVORUM_BENCH_FAKE"

func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{catchUpVerb}) {
		if err := Command(os.Stdout, os.Stderr).Execute(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(asProgram) != "" {
		if err := beProgram(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func beProgram(args []string) error {
	given := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		given[args[i]] = args[i+1]
	}
	if os.Getenv(asProgram) == "broken" {
		return fmt.Errorf("the disk of %s is upside down", given["--name"])
	}
	if err := os.MkdirAll(given["--data-dir"], 0o700); err != nil {
		return err
	}
	file := given["--data-dir"] + "/keys"
	f := newFake()
	text, _ := os.ReadFile(file)
	for key := range strings.FieldsSeq(string(text)) {
		f.put(&pb.PutRequest{Key: []byte(key)})
	}
	keep, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", strings.TrimPrefix(given["--listen-client-urls"], "http://"))
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	pb.RegisterKVServer(s, &keeper{fake: f, file: keep})
	pb.RegisterMaintenanceServer(s, f)
	return s.Serve(l)
}

// keeper is a fake that survives a restart, unless it forgets.
type keeper struct {
	*fake
	file *os.File
}

func (k *keeper) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if os.Getenv(asProgram) != "forgetful" {
		if _, err := k.file.WriteString(string(r.Key) + "\n"); err != nil {
			return nil, err
		}
	}
	return k.fake.Put(ctx, r)
}
