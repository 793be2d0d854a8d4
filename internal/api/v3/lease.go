package v3

import (
	"context"
	"errors"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// lease is the Lease service (spec 4).
type lease struct {
	// Without Unimplemented the compiler asks for every method.
	pb.UnsafeLeaseServer
	member *server.Member
	reads  gate
}

// header is that of an answer that says nothing about keys.
func (s *lease) header() *pb.ResponseHeader { return header(s.member, s.member.Revision()) }

func (s *lease) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	in := command.LeaseGrant{ID: id.Lease(r.GetID()), TTL: r.GetTTL()}
	as, err := session(ctx, s.member)
	if err != nil {
		return nil, toWire(err)
	}
	result, err := await(ctx, s.member, func(call host.Call) { as.LeaseGrant(call, &in) })
	if err != nil {
		return nil, toWire(err)
	}
	out := result.Response.(*command.LeaseGrantResponse)
	return &pb.LeaseGrantResponse{Header: header(s.member, out.Revision), ID: int64(out.ID), TTL: out.TTL}, nil
}

func (s *lease) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	as, err := session(ctx, s.member)
	if err != nil {
		return nil, toWire(err)
	}
	result, err := await(ctx, s.member, func(call host.Call) { as.LeaseRevoke(call, id.Lease(r.GetID())) })
	if err != nil {
		return nil, toWire(err)
	}
	out := result.Response.(*command.LeaseRevokeResponse)
	return &pb.LeaseRevokeResponse{Header: header(s.member, out.Revision)}, nil
}

// LeaseTimeToLive says of a lease that is not there that it has -1 s. Its keys are
// those that this member has once it has caught up.
func (s *lease) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	name := id.Lease(r.GetID())
	resp := &pb.LeaseTimeToLiveResponse{Header: s.header(), ID: r.GetID(), TTL: -1}
	list := []askedLease{{lease: name}}
	as, err := session(ctx, s.member)
	if err == nil {
		err = as.AnyUser()
	}
	if err != nil {
		return nil, toWire(err)
	}
	err = s.askLeader(ctx, list, s.member.LeaseTimeToLive)
	if err != nil {
		return nil, toWire(err)
	}
	left, known := list[0].response.(*server.LeaseLeft)
	if !known {
		return resp, nil
	}
	resp.TTL, resp.GrantedTTL = left.Remaining, left.Granted
	if r.GetKeys() {
		if resp.Keys, err = s.keys(ctx, as, name); err != nil {
			return nil, toWire(err)
		}
	}
	return resp, nil
}

func (s *lease) keys(ctx context.Context, as server.Session, name id.Lease) ([][]byte, error) {
	if _, err := await(ctx, s.member, s.member.Barrier); err != nil {
		return nil, err
	}
	if err := s.reads.enter(ctx); err != nil {
		return nil, err
	}
	defer s.reads.leave()
	return as.LeaseKeys(name)
}

func (s *lease) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	resp := &pb.LeaseLeasesResponse{Header: s.header()}
	as, err := session(ctx, s.member)
	if err != nil {
		return nil, toWire(err)
	}
	list, err := as.Leases()
	if err != nil {
		return nil, toWire(err)
	}
	for _, name := range list {
		resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: int64(name)})
	}
	return resp, nil
}

// renewalsAtOnce is how many renewals of one stream are asked for together.
const renewalsAtOnce = 256

// LeaseKeepAlive answers each renewal, in order: with the whole TTL, or with 0 for a
// lease that is not there. Those that have come while others were answered are asked
// for together.
func (s *lease) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	from, ok := grpc.ServerTransportStreamFromContext(stream.Context()).(inbox)
	if !ok {
		return s.keepAliveApart(stream)
	}
	list := make([]askedLease, 0, renewalsAtOnce)
	for {
		list = list[:0]
		var ended error
		for more := true; more && ended == nil; more = len(list) < cap(list) && from.Waiting() > 0 {
			r, err := stream.Recv()
			if ended = err; err == nil {
				list = append(list, askedLease{lease: id.Lease(r.GetID())})
			}
		}
		if len(list) > 0 {
			if err := s.keepAlive(stream, list); err != nil {
				return err
			}
		}
		if errors.Is(ended, io.EOF) {
			return nil
		}
		if ended != nil {
			return toWire(ended)
		}
	}
}

// inbox tells of messages that have come and that nobody has received yet: to receive
// so many waits for nothing (internal/rpc).
type inbox interface{ Waiting() int }

// keepAliveApart is LeaseKeepAlive where that is not told: a goroutine of its own
// receives.
func (s *lease) keepAliveApart(stream pb.Lease_LeaseKeepAliveServer) error {
	come := make(chan askedLease, renewalsAtOnce)
	ended := make(chan error, 1)
	go func() {
		defer close(come)
		for {
			r, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case come <- askedLease{lease: id.Lease(r.GetID())}:
			case <-stream.Context().Done(): // also once this handler has returned
				return
			}
		}
	}()
	list := make([]askedLease, 0, renewalsAtOnce)
	for first := range come {
		list = append(list[:0], first)
		for len(list) < cap(list) && len(come) > 0 {
			list = append(list, <-come)
		}
		if err := s.keepAlive(stream, list); err != nil {
			return err
		}
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		return toWire(err)
	}
	return nil
}

// keepAlive answers some renewals of a stream. Headers are of the time before.
func (s *lease) keepAlive(stream pb.Lease_LeaseKeepAliveServer, list []askedLease) error {
	before := s.header()
	if err := s.mayRenew(stream.Context(), list); err != nil {
		return toWire(err)
	}
	if err := s.askLeader(stream.Context(), list, s.member.LeaseRenew); err != nil {
		return toWire(err)
	}
	for i := range list {
		resp := &pb.LeaseKeepAliveResponse{Header: before, ID: int64(list[i].lease)}
		if renewed, ok := list[i].response.(*server.LeaseRenewed); ok {
			resp.TTL = renewed.TTL
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	return nil
}

// mayRenew judges renewals, each time anew: credentials end.
func (s *lease) mayRenew(ctx context.Context, list []askedLease) error {
	if !s.member.AuthEnabled() {
		return nil
	}
	as, err := session(ctx, s.member)
	for i := range list {
		if err == nil {
			err = as.MayRenew(list[i].lease)
		}
	}
	return err
}

// askedLease is a lease that the leader is asked about, and its answer: nil if the
// lease is not there.
type askedLease struct {
	lease    id.Lease
	response any
	answered bool
}

// leaderRetry is the pause before the leader is asked again, when there was none or
// another one.
const leaderRetry = 20 * time.Millisecond

// askLeader asks about all leases of a list, again and again while no leader
// answers, as long as any call may take (spec 1.5).
func (s *lease) askLeader(caller context.Context, list []askedLease, ask func(host.Call, id.Lease)) error {
	ctx, cancel := context.WithTimeout(caller, s.member.Timeout())
	defer cancel()
	for {
		again, err := s.askOnce(ctx, list, ask)
		if err == nil && again {
			select {
			case <-time.After(leaderRetry):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		switch {
		case !errors.Is(err, context.DeadlineExceeded) || caller.Err() != nil:
			return err
		case s.member.HasLeader():
			return host.ErrTimeout
		}
		return errNoLeaderCame
	}
}

// askOnce asks about those leases of a list that have no answer yet. again says that
// some of them are to be asked about once more.
func (s *lease) askOnce(ctx context.Context, list []askedLease, ask func(host.Call, id.Lease)) (again bool, err error) {
	to, open := make(waiter, len(list)), 0
	for i := range list {
		if !list[i].answered {
			open++
			ask(host.Call{To: to, Tag: uint64(i), Deadline: s.member.Deadline()}, list[i].lease)
		}
	}
	for range open {
		select {
		case r := <-to:
			about := &list[r.Tag]
			switch {
			case r.Err == nil:
				about.response, about.answered = r.Response, true
			case errors.Is(r.Err, command.ErrLeaseNotFound):
				about.answered = true
			case errors.Is(r.Err, raft.ErrNotLeader), errors.Is(r.Err, host.ErrNoLeader):
				again = true
			default:
				return false, r.Err
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return again, nil
}
