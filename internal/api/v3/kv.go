package v3

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// kv is the KV service.
type kv struct {
	// Without Unimplemented the compiler asks for every method.
	pb.UnsafeKVServer
	member *server.Member
	reads  gate
}

// gate bounds how many reads walk the store at once, below what the store allows
// (rule 23): the others queue here instead of being refused there.
type gate chan struct{}

const readsAtOnce = 256

func (g gate) enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tryEnter enters if nobody has to wait.
func (g gate) tryEnter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }

// session is the services for the caller of a request that passed its checks.
func (s *kv) session(ctx context.Context, invalid error) (server.Session, error) {
	if invalid != nil {
		return server.Session{}, invalid
	}
	return session(ctx, s.member)
}

func (s *kv) Put(ctx context.Context, req *pb.PutRequest) (*pb.PutResponse, error) {
	in := putFromWire(req)
	as, err := s.session(ctx, in.Validate())
	if err != nil {
		return nil, toWire(err)
	}
	result, err := await(ctx, s.member, func(call host.Call) { as.Put(call, &in) })
	if err != nil {
		return nil, toWire(err)
	}
	out := result.Response.(*command.PutResponse)
	resp := putToWire(out)
	resp.Header = header(s.member, out.Revision)
	return resp, nil
}

func (s *kv) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	in := rangeFromWire(req)
	as, err := s.session(ctx, in.Validate())
	if err != nil {
		return nil, toWire(err)
	}
	if !in.Serializable {
		if _, err := await(ctx, s.member, s.member.Barrier); err != nil {
			return nil, toWire(err)
		}
	}
	if err := s.reads.enter(ctx); err != nil {
		return nil, toWire(err)
	}
	out, err := as.Range(&in)
	s.reads.leave()
	if err != nil {
		return nil, toWire(err)
	}
	resp := rangeToWire(out)
	resp.Header = header(s.member, out.Revision)
	return resp, nil
}

func (s *kv) DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	in := deleteFromWire(req)
	as, err := s.session(ctx, in.Validate())
	if err != nil {
		return nil, toWire(err)
	}
	result, err := await(ctx, s.member, func(call host.Call) { as.DeleteRange(call, &in) })
	if err != nil {
		return nil, toWire(err)
	}
	out := result.Response.(*command.DeleteRangeResponse)
	resp := deleteToWire(out)
	resp.Header = header(s.member, out.Revision)
	return resp, nil
}

func (s *kv) Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	in := txnFromWire(req)
	out, err := s.txn(ctx, &in)
	if err != nil {
		return nil, toWire(err)
	}
	resp := txnToWire(out)
	resp.Header = header(s.member, out.Revision)
	return resp, nil
}

// txn sends a txn that may write through the log and reads any other here.
func (s *kv) txn(ctx context.Context, in *command.TxnRequest) (*command.TxnResponse, error) {
	as, err := s.session(ctx, s.member.ValidateTxn(in))
	if err != nil {
		return nil, err
	}
	if !in.ReadOnly() {
		result, err := await(ctx, s.member, func(call host.Call) { as.Txn(call, in) })
		if err != nil {
			return nil, err
		}
		return result.Response.(*command.TxnResponse), nil
	}
	if !in.Serializable() {
		if _, err := await(ctx, s.member, s.member.Barrier); err != nil {
			return nil, err
		}
	}
	if err := s.reads.enter(ctx); err != nil {
		return nil, err
	}
	defer s.reads.leave()
	return as.ReadTxn(in)
}

// Compact answers once the compaction is recorded; one that is asked for as
// physical, also a refused one, once its removal has ended here (spec 2.6).
func (s *kv) Compact(ctx context.Context, req *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	in := compactFromWire(req)
	as, err := s.session(ctx, nil)
	if err != nil {
		return nil, toWire(err)
	}
	result, err := await(ctx, s.member, func(call host.Call) { as.Compact(call, &in) })
	if in.Physical && (err == nil || errors.Is(err, command.ErrCompacted)) {
		if ended := removed(ctx, s.member); ended != nil {
			return nil, toWire(ended)
		}
	}
	if err != nil {
		return nil, toWire(err)
	}
	out := result.Response.(*command.CompactResponse)
	return &pb.CompactionResponse{Header: header(s.member, out.Revision)}, nil
}

// removalLook is how often a caller who waits for a removal looks: it takes a few
// milliseconds at least, minutes at most.
const removalLook = 5 * time.Millisecond

// removed waits until what has been compacted so far is removed here.
func removed(ctx context.Context, member *server.Member) error {
	compacted, _ := member.Removal()
	look := time.NewTicker(removalLook)
	defer look.Stop()
	for {
		if _, removed := member.Removal(); removed >= compacted {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
