package v3

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// maintenance is the Maintenance service; Alarm, Snapshot and Downgrade have files of
// their own.
type maintenance struct {
	// Without Unimplemented the compiler asks for every method.
	pb.UnsafeMaintenanceServer
	member *server.Member
	hashes gate
	// backups are those that a client is being sent, making those whose file is made.
	backups, making gate
}

func (m *maintenance) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	s := m.member.Status()
	resp := &pb.StatusResponse{
		Header:           header(m.member, s.Revision),
		Version:          config.ServerVersion,
		StorageVersion:   m.member.StorageVersion().String(),
		DbSize:           s.Bytes,
		DbSizeInUse:      s.Bytes,
		DbSizeQuota:      s.Quota,
		Leader:           uint64(s.Leader),
		RaftTerm:         uint64(s.Term),
		RaftIndex:        uint64(s.Commit),
		RaftAppliedIndex: uint64(s.Applied),
		IsLearner:        m.member.IsLearner(),
		DowngradeInfo:    downgradeInfo(m.member.Downgrade()),
	}
	if s.Leader == 0 {
		resp.Errors = append(resp.Errors, rpctypes.ErrNoLeader.Error())
	}
	for _, a := range s.Alarms {
		resp.Errors = append(resp.Errors, alarmText(a))
	}
	return resp, nil
}

// Hash sums everything that can still be read: for tests, equal stores give
// equal sums.
func (m *maintenance) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	h, err := m.hash(ctx, 0)
	if err != nil {
		return nil, toWire(err)
	}
	return &pb.HashResponse{Header: header(m.member, h.Now), Hash: h.Sum}, nil
}

// HashKV sums the versions up to a revision (spec 6.2).
func (m *maintenance) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	h, err := m.hash(ctx, id.Revision(r.GetRevision()))
	if err != nil {
		return nil, toWire(err)
	}
	return &pb.HashKVResponse{
		Header: header(m.member, h.Now), Hash: h.Sum, HashRevision: int64(h.At), CompactRevision: int64(h.Compacted),
	}, nil
}

// hashesAtOnce is how many hashes walk the store at once: each reads all of it.
const hashesAtOnce = 2

func (m *maintenance) hash(ctx context.Context, rev id.Revision) (mvcc.KVHash, error) {
	if err := m.hashes.enter(ctx); err != nil {
		return mvcc.KVHash{}, err
	}
	defer m.hashes.leave()
	return m.member.HashKV(rev, ctx.Err)
}

// Defragment waits until what has been compacted is removed here, so that the count of
// what is stored has fallen by then as after etcd's, and gives back what that has left on
// the disk. Nobody waits for it meanwhile.
func (m *maintenance) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	enough := m.member.HurryRemoval()
	err := removed(ctx, m.member)
	enough()
	if err != nil {
		return nil, toWire(err)
	}
	if err := m.member.Reclaim(ctx); err != nil {
		return nil, toWire(err)
	}
	return &pb.DefragmentResponse{}, nil
}

// moveLook is how often a caller who waits for a new leader looks.
const moveLook = 10 * time.Millisecond

// MoveLeader hands leadership over and answers once the other member leads (spec 6.5).
func (m *maintenance) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, m.member.Timeout())
	defer cancel()
	target := id.Member(r.GetTargetID())
	if err := m.member.MoveLeader(target); err != nil {
		return nil, toWire(err)
	}
	look := time.NewTicker(moveLook)
	defer look.Stop()
	for m.member.Status().Leader != target {
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, status.Error(codes.Unknown, "etcdserver: request timed out, leader transfer took too long")
		}
	}
	return &pb.MoveLeaderResponse{}, nil
}
