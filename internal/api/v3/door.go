// Package v3 is the door of etcd's v3 gRPC API: it turns the messages of
// go.etcd.io/etcd/api/v3 into the server's requests and back, checks shapes, and
// gives errors the texts and codes that clients compare (spec/v3-api.md).
package v3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/server"
)

// Register adds the services of a member to a gRPC server. One that takes hot
// methods gets those of the KV service.
func Register(to grpc.ServiceRegistrar, member *server.Member) {
	s := &kv{member: member, reads: make(gate, readsAtOnce)}
	if hot, ok := to.(rpc.HotRegistrar); ok {
		registerHot(hot, s)
		// A stream that insists on a leader is watched over by a goroutine (CheckStream).
		hot.RegisterHotStream(pb.KV_RangeStream_FullMethodName, hotStream{s}, rpctypes.MetadataRequireLeaderKey)
	}
	pb.RegisterKVServer(to, s)
	pb.RegisterLeaseServer(to, &lease{member: member, reads: s.reads})
	pb.RegisterWatchServer(to, &watches{member: member})
	pb.RegisterAuthServer(to, &auth{member: member})
	pb.RegisterClusterServer(to, &cluster{member: member})
	pb.RegisterMaintenanceServer(to, &maintenance{
		member: member, hashes: make(gate, hashesAtOnce), backups: make(gate, backupsAtOnce), making: make(gate, 1)})
	wait := &line{member: member, reads: s.reads}
	concurrencypb.RegisterLockServer(to, &lock{wait})
	concurrencypb.RegisterElectionServer(to, &election{wait})
	healthpb.RegisterHealthServer(to, &health{})
}

// header makes the header of an answer.
func header(member *server.Member, revision id.Revision) *pb.ResponseHeader {
	return headerOf(member.Header(), revision)
}

func headerOf(h server.Header, revision id.Revision) *pb.ResponseHeader {
	return &pb.ResponseHeader{
		ClusterId: uint64(h.Cluster), MemberId: uint64(h.Member),
		RaftTerm: uint64(h.Term), Revision: int64(revision),
	}
}

// waiter is the Completions of one call whose goroutine waits for it.
type waiter chan host.Result

// Push takes the one result of the call; it never waits.
func (w waiter) Push(r host.Result) { w <- r }

// await starts a call and waits for its result or for the caller's end. What a
// caller leaves behind goes on: only its result is dropped.
func await(ctx context.Context, member *server.Member, start func(host.Call)) (host.Result, error) {
	return awaitUntil(ctx, member.Deadline(), start)
}

// awaitUntil is await with another deadline than the server's; 0 is none.
func awaitUntil(ctx context.Context, deadline env.Instant, start func(host.Call)) (host.Result, error) {
	w := make(waiter, 1)
	start(host.Call{To: w, Deadline: deadline})
	select {
	case r := <-w:
		return r, r.Err
	case <-ctx.Done():
		return host.Result{}, ctx.Err()
	}
}
