package grpcproxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// leases is the Lease service. Keep-alives of one lease that wait at the same time, from
// whomever, are one; the next goes to the cluster only once that is answered, and a
// renewal serves those who ask within a moment after it was asked for, with the time
// that is then left at least:
//
//	asked   t0        t1 (in flight)   t2
//	cluster |---------->|--------------->|
//	        answers t0  answers those of t1 and after, asked for at the end of the first
//
// Invariant: nobody is told of more time than the lease has: an answer counts from when
// the renewal was asked for.
type leases struct {
	pb.UnimplementedLeaseServer
	ctx   context.Context
	up    pb.LeaseClient
	space space
	cache *cache

	mu      sync.Mutex
	keepers map[keeperKey]*keeper
	saved   uint64 // keep-alives that the cluster was not asked for
}

const (
	// lanes is how many streams of keep-alives go to the cluster for one caller: each
	// is answered one after the other, so a slow one holds up a part only.
	lanes = 8
	// fresh is how long a renewal serves others at most, and freshPart the part of the
	// lease's time.
	fresh, freshPart = time.Second, 4
	// mostAsked is how many keep-alives of one stream may be unanswered.
	mostAsked = 1000
)

func newLeases(ctx context.Context, p *Proxy) *leases {
	return &leases{ctx: ctx, up: pb.NewLeaseClient(p.conn), space: p.space, cache: p.kv.cache, keepers: map[keeperKey]*keeper{}}
}

// LeaseGrant passes.
func (s *leases) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return s.up.LeaseGrant(outgoing(ctx), r)
}

// LeaseRevoke passes; it deletes keys that are not known here.
func (s *leases) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	defer s.cache.clear()
	defer s.forget(r.ID)
	return s.up.LeaseRevoke(outgoing(ctx), r)
}

// LeaseTimeToLive passes.
func (s *leases) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	resp, err := s.up.LeaseTimeToLive(outgoing(ctx), r)
	if err == nil {
		resp.Keys = s.space.keys(resp.Keys)
	}
	return resp, err
}

// LeaseLeases passes.
func (s *leases) LeaseLeases(ctx context.Context, r *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	return s.up.LeaseLeases(outgoing(ctx), r)
}

// LeaseKeepAlive answers one request after the other, in their order, and asks for them
// all at once.
func (s *leases) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	by := shown(ctx)
	md, _ := metadata.FromIncomingContext(ctx)
	used := map[*keeper]bool{}
	asked := make(chan chan renewed, mostAsked)
	received := make(chan error, 1)
	done := make(chan struct{})
	defer close(done)
	go func() {
		defer func() {
			<-done // answers may still be awaited when the client has no more to ask
			for k := range used {
				s.leave(k)
			}
		}()
		defer close(asked)
		for {
			r, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			answer := make(chan renewed, 1)
			s.keep(r.ID, by, md, used, answer)
			select {
			case asked <- answer:
			case <-ctx.Done():
				received <- ctx.Err()
				return
			}
		}
	}()
	for answer := range asked {
		select {
		case got := <-answer:
			if got.err != nil {
				return got.err
			}
			if err := stream.Send(got.resp); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := <-received; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// keeperKey is a caller and a lane.
type keeperKey struct {
	who    string
	leader bool
	lane   uint64
}

// keeper is one stream of keep-alives to the cluster, while anybody uses it.
type keeper struct {
	of  *leases
	key keeperKey
	by  caller
	md  metadata.MD

	users int // guarded by leases.mu

	mu     sync.Mutex
	leases map[int64]*renewal
	queue  []*renewal
	open   *keeping
	since  int // answers since old renewals were forgotten
}

// keeping is the stream while it is open.
type keeping struct {
	cancel context.CancelFunc
	wake   chan struct{}
	sent   []*renewal // asked for and not answered, in order
}

// renewal is one lease.
type renewal struct {
	id      int64
	flying  []chan renewed // wait for the answer under way; not nil: there is one
	waiting []chan renewed // wait for the one after it
	asked   time.Time      // when the last one that was answered was asked for
	sent    time.Time
	last    *pb.LeaseKeepAliveResponse
}

// renewed is an answer.
type renewed struct {
	resp *pb.LeaseKeepAliveResponse
	err  error
}

// keep answers a keep-alive, at once or later.
func (s *leases) keep(id int64, by caller, md metadata.MD, used map[*keeper]bool, answer chan renewed) {
	key := keeperKey{by.who, by.leader, uint64(id) % lanes}
	s.mu.Lock()
	k := s.keepers[key]
	if k == nil {
		k = &keeper{of: s, key: key, by: by, md: md, leases: map[int64]*renewal{}}
		s.keepers[key] = k
	}
	if !used[k] {
		used[k] = true
		k.users++
	}
	s.mu.Unlock()
	if !k.ask(id, answer) {
		return
	}
	s.mu.Lock()
	s.saved++
	s.mu.Unlock()
}

// leave ends a stream's use of a keeper, and the keeper with the last one.
func (s *leases) leave(k *keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.users--; k.users > 0 {
		return
	}
	delete(s.keepers, k.key)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open != nil {
		k.open.cancel()
	}
}

// forget forgets a lease that may have ended.
func (s *leases) forget(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keepers {
		k.mu.Lock()
		if r := k.leases[id]; r != nil {
			r.last = nil
		}
		k.mu.Unlock()
	}
}

// ask answers from a renewal that is fresh, or waits for the next. It says whether the
// cluster is spared a request.
func (k *keeper) ask(id int64, answer chan renewed) (spared bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.leases[id]
	if r == nil {
		r = &renewal{id: id}
		k.leases[id] = r
	}
	if left := r.left(time.Now()); left > 0 {
		answer <- renewed{resp: &pb.LeaseKeepAliveResponse{Header: r.last.Header, ID: id, TTL: left}}
		return true
	}
	r.waiting = append(r.waiting, answer)
	if len(r.waiting) > 1 {
		return true
	}
	if r.flying == nil {
		k.request(r)
	}
	return false
}

// left is what a fresh renewal still is worth, in whole seconds; 0: it is not fresh.
func (r *renewal) left(now time.Time) int64 {
	if r.last == nil || r.last.TTL <= 0 {
		return 0
	}
	age := now.Sub(r.asked)
	if age >= fresh || age >= time.Duration(r.last.TTL)*time.Second/freshPart {
		return 0
	}
	return r.last.TTL - int64((age+time.Second-1)/time.Second)
}

// request has a lease renewed for those who wait. k.mu is held.
func (k *keeper) request(r *renewal) {
	r.flying, r.waiting = r.waiting, nil
	k.queue = append(k.queue, r)
	if k.open == nil {
		ctx, cancel := context.WithCancel(k.by.context(k.of.ctx, k.md))
		k.open = &keeping{cancel: cancel, wake: make(chan struct{}, 1)}
		go k.run(ctx, k.open)
	}
	signal(k.open.wake)
}

// run opens the stream and takes answers until it breaks: then all who wait are told
// why. The next request opens another.
func (k *keeper) run(ctx context.Context, o *keeping) {
	defer o.cancel()
	stream, err := k.of.up.LeaseKeepAlive(ctx)
	if err == nil {
		go k.write(ctx, o, stream)
		for {
			var resp *pb.LeaseKeepAliveResponse
			if resp, err = stream.Recv(); err != nil {
				break
			}
			k.took(o, resp)
		}
	}
	if errors.Is(err, io.EOF) {
		err = rpctypes.ErrGRPCStopped
	}
	k.broke(o, err)
}

// broke tells why a stream has ended: those who waited for the answer that was due, or,
// if the whole way is gone, everybody. The others are asked for on another stream.
func (k *keeper) broke(o *keeping, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open != o {
		return
	}
	k.open, k.queue = nil, nil
	var due *renewal
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled:
	default:
		if len(o.sent) > 0 {
			due = o.sent[0]
		}
	}
	for id, r := range k.leases {
		waiting := append(r.flying, r.waiting...)
		r.flying, r.waiting = nil, nil
		if due != nil && r != due {
			if r.waiting = waiting; len(waiting) > 0 {
				k.request(r)
			}
			continue
		}
		for _, answer := range waiting {
			answer <- renewed{err: err}
		}
		delete(k.leases, id)
	}
}

// write sends what is asked for.
func (k *keeper) write(ctx context.Context, o *keeping, stream pb.Lease_LeaseKeepAliveClient) {
	for {
		k.mu.Lock()
		var queue []*renewal
		if k.open == o {
			queue, k.queue = k.queue, nil
			now := time.Now()
			for _, r := range queue {
				r.sent = now
			}
			o.sent = append(o.sent, queue...)
		}
		k.mu.Unlock()
		for _, r := range queue {
			if stream.Send(&pb.LeaseKeepAliveRequest{ID: r.id}) != nil {
				return // Recv says why
			}
		}
		select {
		case <-o.wake:
		case <-ctx.Done():
			return
		}
	}
}

// took gives an answer to those who wait for it.
func (k *keeper) took(o *keeping, resp *pb.LeaseKeepAliveResponse) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(o.sent) == 0 || o.sent[0].id != resp.ID {
		o.cancel() // answers come in the order of their requests, or not at all
		return
	}
	r := o.sent[0]
	o.sent = o.sent[1:]
	for _, answer := range r.flying {
		answer <- renewed{resp: resp}
	}
	r.flying, r.last, r.asked = nil, resp, r.sent
	if len(r.waiting) > 0 {
		k.request(r)
	}
	if k.since++; k.since > len(k.leases) {
		k.since = 0
		k.tidy(time.Now())
	}
}

// tidy forgets leases of which nothing is known that counts. k.mu is held.
func (k *keeper) tidy(now time.Time) {
	for id, r := range k.leases {
		if r.flying == nil && len(r.waiting) == 0 && r.left(now) == 0 {
			delete(k.leases, id)
		}
	}
}

// spared is for the metrics.
func (s *leases) spared() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved
}
