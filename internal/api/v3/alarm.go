package v3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Alarm lists the alarms, as every health check of etcdctl does. Nothing raises
// one yet, so the list is empty; to raise or disarm one is not implemented.
func (m *maintenance) Alarm(_ context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action != pb.AlarmRequest_GET {
		return nil, status.Error(codes.Unimplemented, "alarms cannot be raised or disarmed yet")
	}
	return &pb.AlarmResponse{Header: header(m.member, m.member.Status().Revision)}, nil
}
