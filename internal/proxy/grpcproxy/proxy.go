// Package grpcproxy is `etcd grpc-proxy`: a server of etcd's v3 services that answers
// for a cluster, and spares it work that many clients ask for alike.
//
//	pass.go       services whose calls go through as they are, message for message
//	namespace.go  keys with a prefix on the way up, without it on the way down
//	kv.go cache.go   reads that need not be linearizable are answered from memory for a moment
//	watch.go      one client's Watch stream: what it is owed, and one cursor for each watch
//	progress.go   how far all watches of a stream are
//	share.go      watches of equal interest and equal credentials hang on one watch of the cluster
//	link.go       a Watch stream to the cluster that is opened again when it breaks
//	lease.go      keep-alives of one lease at about the same time are one
//	cluster.go    proxies that know of each other, and are the members that clients are told of
//	web.go        health and metrics;  upstream.go the connection to the cluster
//
// Whoever calls is known by what he shows, a token: it goes on to the cluster with his
// call, and nothing that the cluster said to one token is ever given to another. The
// proxy itself has no rights: its own certificate must name nobody (upstream.go).
package grpcproxy

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kvorum/kvorum/internal/api/metrics"
	"github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
)

// Options are what a proxy is made with.
type Options struct {
	// Upstream is the connection to the cluster; it is the caller's to close, after
	// Close.
	Upstream grpc.ClientConnInterface
	// Namespace is put before every key; empty is none.
	Namespace string
	// Ordering has reads that are not linearizable never go back behind what was
	// answered before (--experimental-serializable-ordering).
	Ordering bool
	// Members tells the proxies that are registered; nil has the cluster's own members
	// told.
	Members func() []*pb.Member
	// FragmentBytes is the size from which on watch responses are sent in pieces to
	// who wants that: that of the largest request.
	FragmentBytes int
}

// Proxy serves the services. It is safe for concurrent use.
type Proxy struct {
	conn    grpc.ClientConnInterface
	space   space
	members func() []*pb.Member
	kv      *kv
	watches *watches
	leases  *leases
	stop    context.CancelFunc
}

// New makes a proxy. It asks for nothing before it is asked.
func New(o Options) *Proxy {
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{conn: o.Upstream, space: space(o.Namespace), members: o.Members, stop: stop}
	p.kv = newKV(p, o.Ordering)
	p.watches = newWatches(ctx, p, o.FragmentBytes)
	p.leases = newLeases(ctx, p)
	return p
}

// Close ends what goes on in the background: calls that stand are cut off.
func (p *Proxy) Close() { p.stop() }

// Register adds all services to a server.
func (p *Proxy) Register(to grpc.ServiceRegistrar) {
	pb.RegisterKVServer(to, p.kv)
	pb.RegisterWatchServer(to, p.watches)
	pb.RegisterLeaseServer(to, p.leases)
	p.pass(to, service{
		name: pb.Cluster_ServiceDesc.ServiceName, unary: names(&pb.Cluster_ServiceDesc),
		own: map[string]unary{"MemberList": p.memberList},
	})
	p.pass(to, service{
		name: pb.Maintenance_ServiceDesc.ServiceName, unary: names(&pb.Maintenance_ServiceDesc), streams: pb.Maintenance_ServiceDesc.Streams,
	})
	p.pass(to, service{name: pb.Auth_ServiceDesc.ServiceName, unary: names(&pb.Auth_ServiceDesc), after: p.afterAuth})
	p.pass(to, service{name: healthpb.Health_ServiceDesc.ServiceName, unary: names(&healthpb.Health_ServiceDesc), streams: healthpb.Health_ServiceDesc.Streams})
	p.registerLines(to)
}

// afterAuth forgets what was read under other rights.
func (p *Proxy) afterAuth(method string) {
	switch method {
	case "Authenticate", "AuthStatus", "UserGet", "UserList", "RoleGet", "RoleList":
	default:
		p.kv.cache.clear()
	}
}

// registerLines adds locks and elections: their calls write.
func (p *Proxy) registerLines(to grpc.ServiceRegistrar) {
	forget := func(string) { p.kv.cache.clear() }
	lock := service{name: concurrencypb.LockService, unary: []string{"Lock", "Unlock"}, after: forget}
	election := service{
		name: concurrencypb.ElectionService, unary: []string{"Campaign", "Proclaim", "Leader", "Resign"}, after: forget,
		streams: []grpc.StreamDesc{{StreamName: "Observe", ServerStreams: true}},
	}
	if p.space != "" {
		lock.own = map[string]unary{
			"Lock":   through(p, concurrencypb.LockMethod, p.space.lock, p.space.locked),
			"Unlock": through(p, concurrencypb.UnlockMethod, p.space.unlock, asIs[concurrencypb.UnlockResponse]),
		}
		election.own = map[string]unary{
			"Campaign": through(p, concurrencypb.CampaignMethod, p.space.campaign, p.space.elected),
			"Proclaim": through(p, concurrencypb.ProclaimMethod, p.space.proclaim, asIs[concurrencypb.ProclaimResponse]),
			"Resign":   through(p, concurrencypb.ResignMethod, p.space.resign, asIs[concurrencypb.ResignResponse]),
			"Leader":   through(p, concurrencypb.LeaderMethod, p.space.line, p.space.leads),
		}
		election.streams[0].Handler = p.observe
	}
	p.pass(to, lock)
	p.pass(to, election)
}

func names(desc *grpc.ServiceDesc) (list []string) {
	for i := range desc.Methods {
		list = append(list, desc.Methods[i].MethodName)
	}
	return list
}

// memberList answers with the proxies, if any are registered: a client that asks for
// the members to find endpoints must not be led past them.
func (p *Proxy) memberList(ctx context.Context, decode func(any) error) (any, error) {
	in := new(pb.MemberListRequest)
	if err := decode(in); err != nil {
		return nil, err
	}
	if p.members != nil {
		return &pb.MemberListResponse{Header: &pb.ResponseHeader{}, Members: p.members()}, nil
	}
	return pb.NewClusterClient(p.conn).MemberList(outgoing(ctx), in)
}

// interval bounds how long something may go unnoticed that nobody tells of.
const interval = time.Second

// observe is the stream of an election's leaders.
func (p *Proxy) observe(_ any, down grpc.ServerStream) error {
	in := new(concurrencypb.LeaderRequest)
	if err := down.RecvMsg(in); err != nil {
		return err
	}
	p.space.line(in)
	ctx, cancel := context.WithCancel(outgoing(down.Context()))
	defer cancel()
	up, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, concurrencypb.ObserveMethod)
	if err != nil {
		return err
	}
	if err := errors.Join(ignoreEnd(up.SendMsg(in)), up.CloseSend()); err != nil {
		return err
	}
	for {
		m := new(concurrencypb.LeaderResponse)
		if err := up.RecvMsg(m); err != nil {
			return ignoreEnd(err)
		}
		p.space.leads(m)
		if err := down.SendMsg(m); err != nil {
			return err
		}
	}
}

// Show puts what was spared into the metrics.
func (p *Proxy) Show(to *metrics.Sink) {
	keys, hits, misses := p.kv.cache.counts()
	to.Gauge("etcd_grpc_proxy_cache_keys_total", "Answers to reads that are remembered.", float64(keys))
	to.Gauge("etcd_grpc_proxy_cache_hits_total", "Reads that were answered from memory.", float64(hits))
	to.Gauge("etcd_grpc_proxy_cache_misses_total", "Reads that might have been, and were not.", float64(misses))
	beside, events := p.watches.counts()
	to.Gauge("etcd_grpc_proxy_watchers_coalescing_total", "Watches that hang on another one's watch of the cluster.", float64(beside))
	to.Counter("etcd_grpc_proxy_events_coalescing_total", "Events that the cluster did not have to send again.", events)
	to.Counter("kvorum_grpc_proxy_keepalives_coalescing_total", "Keep-alives that the cluster was not asked for.", p.leases.spared())
}
