package v3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kvorum/kvorum/internal/server"
)

// cluster answers MemberList; the calls that change membership come with
// clusters.
type cluster struct {
	pb.UnimplementedClusterServer
	member *server.Member
}

func (c *cluster) MemberList(ctx context.Context, req *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if req.GetLinearizable() {
		if _, err := await(ctx, c.member, c.member.Barrier); err != nil {
			return nil, toWire(err)
		}
	}
	resp := &pb.MemberListResponse{Header: header(c.member, 0)}
	for _, m := range c.member.Members() {
		resp.Members = append(resp.Members, &pb.Member{
			ID: uint64(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs,
		})
	}
	return resp, nil
}
