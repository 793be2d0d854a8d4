package v3

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/internal/state/command"
)

// leaderless is how many looks in a row, an election time-out apart, must find no
// leader before the streams that insist on one are ended (spec 1.4).
const leaderless = 3

// CheckStream runs the checks before every streaming method, and ends a stream
// whose caller insists on a leader once there was none for three election
// time-outs.
func CheckStream(member Standing, election time.Duration) grpc.StreamServerInterceptor {
	guard := &leaderGuard{member: member, election: election}
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx := stream.Context()
		// A learner has no stream to give but the copy of its own store.
		if err := Check(incoming{ctx}, member, streamNeeds(info.FullMethod), info.FullMethod == pb.Maintenance_Snapshot_FullMethodName, true); err != nil {
			return err
		}
		if !insists(incoming{ctx}) {
			return next(srv, stream)
		}
		return guard.run(srv, stream, next)
	}
}

// streamNeeds is the version of the cluster with which a stream came.
func streamNeeds(method string) command.Version {
	if method == pb.KV_RangeStream_FullMethodName {
		return command.Version{Major: 3, Minor: 7}
	}
	return command.FirstVersion
}

// leaderGuard looks for a leader on behalf of all streams that insist on one. Its
// goroutine lives while there are such streams.
type leaderGuard struct {
	member   Standing
	election time.Duration

	mu      sync.Mutex
	streams int
	looking bool
	lost    chan struct{} // closed when no leader was found for too long; then made anew
}

// run serves one stream until its handler ends or no leader is there. A handler
// that waits for its client is left behind then: the end of the stream wakes it.
func (g *leaderGuard) run(srv any, stream grpc.ServerStream, next grpc.StreamHandler) error {
	lost := g.enter()
	defer g.leave()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- next(srv, &guardedStream{stream, ctx}) }()
	select {
	case err := <-done:
		return err
	case <-lost:
		cancel(rpctypes.ErrGRPCNoLeader)
		return rpctypes.ErrGRPCNoLeader
	}
}

func (g *leaderGuard) enter() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.streams++
	if g.lost == nil {
		g.lost = make(chan struct{})
	}
	if !g.looking {
		g.looking = true
		go g.look()
	}
	return g.lost
}

func (g *leaderGuard) leave() {
	g.mu.Lock()
	g.streams--
	g.mu.Unlock()
}

// look runs as long as there are streams to look for.
func (g *leaderGuard) look() {
	tick := time.NewTicker(g.election)
	defer tick.Stop()
	for missed := 0; ; {
		<-tick.C
		if missed++; g.member.HasLeader() {
			missed = 0
		}
		g.mu.Lock()
		if missed == leaderless {
			missed = 0
			close(g.lost)
			g.lost = make(chan struct{})
		}
		if g.streams == 0 {
			g.looking = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
	}
}

// guardedStream is a stream whose context also ends when the leader is missed.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is the handler's.
func (s *guardedStream) Context() context.Context { return s.ctx }
