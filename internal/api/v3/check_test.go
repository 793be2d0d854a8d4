package v3

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/state/command"
)

// standing is a member that is whatever the test says.
type standing struct {
	versionless, old, learner, leaderless atomic.Bool
	counted                               atomic.Int64
}

func (s *standing) Capable(needs command.Version) bool {
	return !s.versionless.Load() && (!s.old.Load() || needs == command.FirstVersion)
}
func (s *standing) IsLearner() bool { return s.learner.Load() }
func (s *standing) HasLeader() bool { return !s.leaderless.Load() }

func (s *standing) CountClient(string, bool) { s.counted.Add(1) }

// Each check is reached only when the ones before it passed.
func TestChecksComeInOrder(t *testing.T) {
	const binary = "\xff\xfe"
	s := &standing{}
	s.versionless.Store(true)
	s.learner.Store(true)
	s.leaderless.Store(true)
	md := metadata.Pairs("client-api-version", binary, "hasleader", "true")
	check := func(want codes.Code, text string) {
		t.Helper()
		err := Check(incoming{metadata.NewIncomingContext(t.Context(), md)}, s, command.FirstVersion, false, false)
		if got := status.Convert(err); got.Code() != want || got.Message() != text {
			t.Errorf("got %v %q, want %v %q", got.Code(), got.Message(), want, text)
		}
	}
	check(codes.FailedPrecondition, "etcdserver: not capable")
	s.versionless.Store(false)
	check(codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
	s.learner.Store(false)
	check(codes.InvalidArgument, "etcdserver: invalid client api version")
	md.Set("client-api-version", "3.7")
	check(codes.Unavailable, "etcdserver: no leader")
	for _, other := range []string{"TRUE", "1", "", "true "} {
		md.Set("hasleader", other)
		check(codes.OK, "")
	}
	md.Set("hasleader", "true")
	s.leaderless.Store(false)
	check(codes.OK, "")
	if err := Check(incoming{t.Context()}, &standing{}, command.FirstVersion, false, false); err != nil {
		t.Errorf("a call without metadata: %v", err)
	}
}

// A stream that came with a later version waits until all members have it; what was
// always there does not.
func TestACallThatNotAllMembersKnow(t *testing.T) {
	s := &standing{}
	stream := CheckStream(s, time.Second)
	call := func(method string) codes.Code {
		return status.Code(stream(nil, plainStream{t.Context()}, &grpc.StreamServerInfo{FullMethod: method}, func(any, grpc.ServerStream) error { return nil }))
	}
	s.old.Store(true)
	if got := call(pb.KV_RangeStream_FullMethodName); got != codes.FailedPrecondition {
		t.Errorf("a streamed range in an old cluster: %v", got)
	}
	if got := call(pb.Watch_Watch_FullMethodName); got != codes.OK {
		t.Errorf("a watch in an old cluster: %v", got)
	}
	s.old.Store(false)
	if got := call(pb.KV_RangeStream_FullMethodName); got != codes.OK {
		t.Errorf("a streamed range: %v", got)
	}
}

// plainStream is a stream of which only the context is asked.
type plainStream struct{ ctx context.Context }

func (s plainStream) Context() context.Context   { return s.ctx }
func (plainStream) SetHeader(metadata.MD) error  { return nil }
func (plainStream) SendHeader(metadata.MD) error { return nil }
func (plainStream) SetTrailer(metadata.MD)       {}
func (plainStream) SendMsg(any) error            { return nil }
func (plainStream) RecvMsg(any) error            { return nil }

func TestWhatALearnerAnswers(t *testing.T) {
	s := &standing{}
	s.learner.Store(true)
	unary := CheckUnary(s)
	for _, c := range []struct {
		what string
		req  any
		want codes.Code
	}{
		{"status", &pb.StatusRequest{}, codes.OK},
		{"a serializable range", &pb.RangeRequest{Serializable: true}, codes.OK},
		{"a linearizable range", &pb.RangeRequest{}, codes.FailedPrecondition},
		{"a put", &pb.PutRequest{}, codes.FailedPrecondition},
		{"a txn", &pb.TxnRequest{}, codes.FailedPrecondition},
		{"the list of members", &pb.MemberListRequest{}, codes.FailedPrecondition},
	} {
		_, err := unary(t.Context(), c.req, nil, func(context.Context, any) (any, error) { return nil, nil })
		if status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	stream := CheckStream(s, time.Second)
	for method, want := range map[string]codes.Code{
		pb.Maintenance_Snapshot_FullMethodName: codes.OK,
		pb.Watch_Watch_FullMethodName:          codes.FailedPrecondition,
		pb.KV_RangeStream_FullMethodName:       codes.FailedPrecondition,
		pb.Lease_LeaseKeepAlive_FullMethodName: codes.FailedPrecondition,
	} {
		err := stream(nil, bare{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: method}, func(any, grpc.ServerStream) error { return nil })
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %v", method, err, want)
		}
	}
}

// bare is a stream of which only the context is asked.
type bare struct {
	grpc.ServerStream
	ctx context.Context
}

func (b bare) Context() context.Context { return b.ctx }

// watching is a Watch service whose every stream waits for its client, as a real
// one does, and tells why its context ended.
type watching struct {
	pb.UnimplementedWatchServer
	begun chan struct{}
	cause chan error
}

func (w *watching) Watch(stream pb.Watch_WatchServer) error {
	ctx := stream.Context()
	go func() {
		<-ctx.Done()
		w.cause <- context.Cause(ctx)
	}()
	w.begun <- struct{}{}
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&pb.WatchResponse{WatchId: 7}); err != nil {
			return err
		}
	}
}

func TestStreamsThatInsistOnALeader(t *testing.T) {
	const election = 20 * time.Millisecond
	s := &standing{}
	interceptor := CheckStream(s, election)
	g := grpc.NewServer(grpc.StreamInterceptor(interceptor))
	service := &watching{begun: make(chan struct{}, 8), cause: make(chan error, 8)}
	pb.RegisterWatchServer(g, service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(l)
	defer g.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	open := func(md ...string) pb.Watch_WatchClient {
		t.Helper()
		stream, err := pb.NewWatchClient(conn).Watch(metadata.AppendToOutgoingContext(t.Context(), md...))
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	echo := func(stream pb.Watch_WatchClient) {
		t.Helper()
		if err := stream.Send(&pb.WatchRequest{}); err != nil {
			t.Fatal(err)
		}
		if resp, err := stream.Recv(); err != nil || resp.WatchId != 7 {
			t.Fatalf("%v, %v", resp, err)
		}
	}

	patient, insisting := open(), open("hasleader", "true")
	echo(patient)
	echo(insisting)
	<-service.begun
	<-service.begun
	lost := time.Now()
	s.leaderless.Store(true)
	if _, err := insisting.Recv(); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "etcdserver: no leader" {
		t.Errorf("the stream ended with %v", err)
	}
	// Three looks, of which the first may follow the loss at once.
	if took := time.Since(lost); took < 2*election {
		t.Errorf("ended after %v, before three election time-outs", took)
	}
	if cause := <-service.cause; status.Convert(cause).Message() != "etcdserver: no leader" {
		t.Errorf("the handler was told %v", cause)
	}
	echo(patient)
	if _, err := open("hasleader", "true").Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a new stream without a leader: %v", err)
	}

	// With a leader again streams live on; when the last is gone nobody looks.
	s.leaderless.Store(false)
	insisting = open("hasleader", "true")
	<-service.begun
	for begin := time.Now(); time.Since(begin) < 5*election; {
		echo(insisting)
	}
	if err := insisting.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := insisting.Recv(); err == nil {
		t.Error("the stream goes on after its end")
	}
}

// The goroutine that looks for the leader is there only while it is needed.
func TestNobodyLooksForALeaderInVain(t *testing.T) {
	s := &standing{}
	g := &leaderGuard{member: s, election: time.Millisecond}
	for range 3 {
		err := g.run(nil, bare{ctx: t.Context()}, func(any, grpc.ServerStream) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			g.mu.Lock()
			looking := g.looking
			g.mu.Unlock()
			if !looking {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("it looks on without a stream")
			}
		}
	}
}
