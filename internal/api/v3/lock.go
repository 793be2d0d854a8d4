package v3

import (
	"context"
	"errors"

	"github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// lock is the Lock service (spec 8).
type lock struct{ line *line }

// errSessionExpired ends the wait for a lock whose lease is gone; the text is etcd's.
var errSessionExpired = errors.New("mutex: session is expired")

// Lock answers once the caller has the lock. The header's revision is one in which it
// had it: greater than that of everybody who had it before.
func (s *lock) Lock(ctx context.Context, r *concurrencypb.LockRequest) (*concurrencypb.LockResponse, error) {
	own, err := s.line.by(ctx)
	if err != nil {
		return nil, err
	}
	s = &lock{own}
	p, err := s.line.enter(ctx, r.Name, id.Lease(r.Lease), nil)
	if err != nil {
		return nil, lineError(err)
	}
	revision, err := s.line.turn(ctx, p)
	if errors.Is(err, errEnded) {
		err = errSessionExpired
	}
	if err != nil {
		return nil, lineError(err)
	}
	return &concurrencypb.LockResponse{Header: header(s.line.member, revision), Key: p.key}, nil
}

// Unlock deletes the key. One that is not there is no error.
func (s *lock) Unlock(ctx context.Context, r *concurrencypb.UnlockRequest) (*concurrencypb.UnlockResponse, error) {
	own, err := s.line.by(ctx)
	if err != nil {
		return nil, err
	}
	s = &lock{own}
	in := command.DeleteRangeRequest{Key: r.Key}
	result, err := await(ctx, s.line.member, func(call host.Call) { s.line.as.DeleteRange(call, &in) })
	if err != nil {
		return nil, lineError(err)
	}
	out := result.Response.(*command.DeleteRangeResponse)
	return &concurrencypb.UnlockResponse{Header: header(s.line.member, out.Revision)}, nil
}
