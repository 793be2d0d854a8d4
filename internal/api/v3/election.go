package v3

import (
	"bytes"
	"context"
	"errors"

	"github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// election is the Election service (spec 8); Observe is in observe.go.
type election struct{ line *line }

// What the service refuses of its own. The texts are etcd's, but for the last: etcd
// tells a candidate whose lease is gone that it was elected.
var (
	errNotLeader       = errors.New("election: not leader")
	errNoLeaderYet     = errors.New("election: no leader")
	errNoLeaderKey     = errors.New(`"leader" field must be provided`)
	errCandidateIsGone = errors.New("election: session is expired")
)

// Campaign answers once the caller leads. The revision of the leader's key fences: it
// is greater than that of every leader before.
func (s *election) Campaign(ctx context.Context, r *concurrencypb.CampaignRequest) (*concurrencypb.CampaignResponse, error) {
	own, err := s.line.by(ctx)
	if err != nil {
		return nil, err
	}
	s = &election{own}
	p, err := s.line.enter(ctx, r.Name, id.Lease(r.Lease), r.Value)
	if err != nil {
		return nil, lineError(err)
	}
	leader := &concurrencypb.LeaderKey{Name: r.Name, Key: p.key, Rev: int64(p.created), Lease: int64(p.lease)}
	if !bytes.Equal(p.value, r.Value) {
		if _, err := s.proclaim(ctx, leader, r.Value); err != nil {
			s.line.leave(p)
			return nil, lineError(err)
		}
	}
	_, err = s.line.turn(ctx, p)
	if errors.Is(err, errEnded) {
		err = errCandidateIsGone
	}
	if err != nil {
		return nil, lineError(err)
	}
	return &concurrencypb.CampaignResponse{Header: header(s.line.member, p.entered), Leader: leader}, nil
}

// Proclaim gives the leader's key another value, and the lease that the request names.
func (s *election) Proclaim(ctx context.Context, r *concurrencypb.ProclaimRequest) (*concurrencypb.ProclaimResponse, error) {
	own, err := s.line.by(ctx)
	if err != nil {
		return nil, err
	}
	s = &election{own}
	if r.Leader == nil {
		return nil, lineError(errNoLeaderKey)
	}
	lease, err := s.line.leaseOf(ctx, id.Lease(r.Leader.Lease))
	if err != nil {
		return nil, lineError(err)
	}
	leader := &concurrencypb.LeaderKey{Key: r.Leader.Key, Rev: r.Leader.Rev, Lease: int64(lease)}
	revision, err := s.proclaim(ctx, leader, r.Value)
	if err != nil {
		return nil, lineError(err)
	}
	return &concurrencypb.ProclaimResponse{Header: header(s.line.member, revision)}, nil
}

// proclaim returns the revision of the new value.
func (s *election) proclaim(ctx context.Context, leader *concurrencypb.LeaderKey, value []byte) (id.Revision, error) {
	done, err := s.asLeader(ctx, leader, command.Op{
		Put: &command.PutRequest{Key: leader.Key, Value: value, Lease: id.Lease(leader.Lease)},
	})
	switch {
	case err != nil:
		return 0, err
	case !done.Succeeded:
		return 0, errNotLeader
	}
	return done.Revision, nil
}

// asLeader does something if a leader's key is still the one it was elected with.
func (s *election) asLeader(ctx context.Context, leader *concurrencypb.LeaderKey, op command.Op) (*command.TxnResponse, error) {
	in := command.TxnRequest{Compares: madeAt(leader.Key, id.Revision(leader.Rev)), Success: []command.Op{op}}
	result, err := await(ctx, s.line.member, func(call host.Call) { s.line.as.Txn(call, &in) })
	if err != nil {
		return nil, err
	}
	return result.Response.(*command.TxnResponse), nil
}

// Resign gives the leadership up. Who does not lead is told nothing else.
func (s *election) Resign(ctx context.Context, r *concurrencypb.ResignRequest) (*concurrencypb.ResignResponse, error) {
	own, err := s.line.by(ctx)
	if err != nil {
		return nil, err
	}
	s = &election{own}
	if r.Leader == nil {
		return nil, lineError(errNoLeaderKey)
	}
	done, err := s.asLeader(ctx, r.Leader, command.Op{Delete: &command.DeleteRangeRequest{Key: r.Leader.Key}})
	if err != nil {
		return nil, lineError(err)
	}
	return &concurrencypb.ResignResponse{Header: header(s.line.member, done.Revision)}, nil
}

// Leader says who leads now.
func (s *election) Leader(ctx context.Context, r *concurrencypb.LeaderRequest) (*concurrencypb.LeaderResponse, error) {
	own, err := s.line.by(ctx)
	if err != nil {
		return nil, err
	}
	s = &election{own}
	if _, err := await(ctx, s.line.member, s.line.member.Barrier); err != nil {
		return nil, lineError(err)
	}
	got, err := s.line.first(ctx, r.Name, 0)
	switch {
	case err != nil:
		return nil, lineError(err)
	case len(got.KVs) == 0:
		return nil, lineError(errNoLeaderYet)
	}
	return &concurrencypb.LeaderResponse{Header: header(s.line.member, got.Revision), Kv: pairToWire(&got.KVs[0])}, nil
}
