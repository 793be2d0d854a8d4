package v3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Alarm lists the alarms, as every health check of etcdctl does. Nothing raises
// one yet, so the list is empty; to raise or disarm one is not implemented. An
// action that is neither is refused; the reference crashes (spec 6.4).
func (m *maintenance) Alarm(_ context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	switch r.GetAction() {
	case pb.AlarmRequest_GET:
	case pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE:
		return nil, status.Error(codes.Unimplemented, "alarms cannot be raised or disarmed yet")
	default:
		return nil, status.Error(codes.InvalidArgument, "etcdserver: unknown alarm action")
	}
	return &pb.AlarmResponse{Header: header(m.member, m.member.Status().Revision)}, nil
}
