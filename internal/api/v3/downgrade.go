package v3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Downgrade says whether the cluster can go back to the version before, has it do so, or
// has it come up again (spec 6.5). To cancel what there is not is no mistake, as in the
// reference; but that a cancellation may not have been done is told.
func (m *maintenance) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	switch r.GetAction() {
	case pb.DowngradeRequest_VALIDATE:
		return m.judgeDowngrade(ctx, r.GetVersion())
	case pb.DowngradeRequest_ENABLE:
		target, err := command.ParseTarget(r.GetVersion())
		if err != nil {
			return nil, toWire(err)
		}
		return m.changeDowngrade(ctx, &command.DowngradeEnable{Target: target})
	case pb.DowngradeRequest_CANCEL:
		return m.changeDowngrade(ctx, &command.DowngradeCancel{})
	}
	return nil, status.Error(codes.Unknown, "etcdserver: unknown method")
}

// judgeDowngrade answers by the state of the cluster, behind a barrier.
func (m *maintenance) judgeDowngrade(ctx context.Context, version string) (*pb.DowngradeResponse, error) {
	target, err := command.ParseTarget(version)
	if err != nil {
		return nil, toWire(err)
	}
	if _, err := await(ctx, m.member, m.member.Barrier); err != nil {
		return nil, toWire(err)
	}
	if err := m.member.JudgeDowngrade(target); err != nil {
		return nil, toWire(err)
	}
	return &pb.DowngradeResponse{Header: header(m.member, m.member.Status().Revision), Version: m.member.ClusterVersion().Short()}, nil
}

func (m *maintenance) changeDowngrade(ctx context.Context, change command.Body) (*pb.DowngradeResponse, error) {
	as, err := session(ctx, m.member)
	if err != nil {
		return nil, toWire(err)
	}
	result, err := await(ctx, m.member, func(call host.Call) { as.ChangeDowngrade(call, change) })
	if err != nil {
		return nil, toWire(err)
	}
	done := result.Response.(*command.DowngradeResponse)
	return &pb.DowngradeResponse{Header: header(m.member, done.Revision), Version: done.Version.Short()}, nil
}

// downgradeInfo is how Status tells of a downgrade to a version, or of none.
func downgradeInfo(target command.Version) *pb.DowngradeInfo {
	return &pb.DowngradeInfo{Enabled: target != (command.Version{}), TargetVersion: target.String()}
}
