package v3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/kvorum/kvorum/internal/server"
)

// auth answers what a client with a name and password asks of a cluster without
// authentication: that it is off. Users and roles are an issue of their own; their
// calls are not implemented.
type auth struct {
	pb.UnimplementedAuthServer
	member *server.Member
}

// firstAuthRevision is that of a cluster where no user was ever made (spec 7.2).
const firstAuthRevision = 1

// Authenticate refuses, as etcd does; clients then go on without a token.
func (a *auth) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}

// AuthStatus says that it is off.
func (a *auth) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	if _, err := await(ctx, a.member, a.member.Barrier); err != nil {
		return nil, toWire(err)
	}
	return &pb.AuthStatusResponse{Header: header(a.member, a.member.Status().Revision), AuthRevision: firstAuthRevision}, nil
}
