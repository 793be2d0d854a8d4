package v3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/server"
)

// maintenance answers Status; the rest of the service comes with the operators'
// surface.
type maintenance struct {
	pb.UnimplementedMaintenanceServer
	member *server.Member
}

func (m *maintenance) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	s := m.member.Status()
	resp := &pb.StatusResponse{
		Header:           header(m.member, s.Revision),
		Version:          config.ServerVersion,
		StorageVersion:   config.StorageVersion,
		DbSize:           s.Bytes,
		DbSizeInUse:      s.Bytes,
		DbSizeQuota:      s.Quota,
		Leader:           uint64(s.Leader),
		RaftTerm:         uint64(s.Term),
		RaftIndex:        uint64(s.Commit),
		RaftAppliedIndex: uint64(s.Applied),
		DowngradeInfo:    &pb.DowngradeInfo{},
	}
	if s.Leader == 0 {
		resp.Errors = append(resp.Errors, rpctypes.ErrNoLeader.Error())
	}
	return resp, nil
}
