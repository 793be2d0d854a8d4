package v3

import (
	"context"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/server"
)

// check makes the checks before a handler, in order, for every door and every
// method (spec 1.4, rule 30): the client's version is text, and a caller that
// insists on a leader gets one.
//
// It looks values up one by one: asking for all of the metadata would copy them.
func check(ctx context.Context, member *server.Member) error {
	if v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey); len(v) > 0 && !utf8.ValidString(v[0]) {
		return rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	if member.HasLeader() {
		return nil
	}
	if v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey); len(v) > 0 && v[0] == rpctypes.MetadataHasLeader {
		return rpctypes.ErrGRPCNoLeader
	}
	return nil
}

// CheckUnary runs the checks before every unary method.
func CheckUnary(member *server.Member) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := check(ctx, member); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// CheckStream runs the checks before every streaming method.
func CheckStream(member *server.Member) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if err := check(stream.Context(), member); err != nil {
			return err
		}
		return next(srv, stream)
	}
}
