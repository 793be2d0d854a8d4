package v3

import (
	"context"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/state/command"
)

// Standing is what the checks before a handler ask of a member; *server.Member
// is one. Each answer is a few loads: every call asks.
type Standing interface {
	// Capable says whether the cluster has agreed on a version, and on one that has
	// what came with that one.
	Capable(needs command.Version) bool
	// IsLearner says whether the member follows the log without a vote in it.
	IsLearner() bool
	// HasLeader says whether a leader is known here.
	HasLeader() bool
	// CountClient counts a call by the version of the API that its client names, if any.
	CountClient(version string, stream bool)
}

// Values are what a caller sent beside its message. Bodies: the context of
// grpc-go's door, a call of the hot one.
type Values interface {
	// Metadata is the first value under a key.
	Metadata(key string) (value string, ok bool)
}

// incoming are the values of a context. They are looked up one by one: asking for
// all of them would copy them.
type incoming struct{ context.Context }

// Metadata is Values'.
func (c incoming) Metadata(key string) (value string, ok bool) {
	v := metadata.ValueFromIncomingContext(c.Context, key)
	if len(v) == 0 {
		return "", false
	}
	return v[0], true
}

// Check makes the checks before a handler, in order, for every door and every
// method (spec 1.4, rule 30): the cluster knows the call, a learner may answer
// it, the client's version is text, and a caller that insists on a leader gets
// one. needs is the version of the cluster with which this call came, learnerMay says
// whether a learner answers it, stream whether it is one.
func Check(caller Values, member Standing, needs command.Version, learnerMay, stream bool) error {
	if !member.Capable(needs) {
		return rpctypes.ErrGRPCNotCapable
	}
	if !learnerMay && member.IsLearner() {
		return rpctypes.ErrGRPCNotSupportedForLearner
	}
	version, _ := caller.Metadata(rpctypes.MetadataClientAPIVersionKey)
	if !utf8.ValidString(version) {
		return rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	member.CountClient(version, stream)
	if !member.HasLeader() && insists(caller) {
		return rpctypes.ErrGRPCNoLeader
	}
	return nil
}

// insists says whether the caller wants no answer from a member without a leader.
func insists(caller Values) bool {
	v, _ := caller.Metadata(rpctypes.MetadataRequireLeaderKey)
	return v == rpctypes.MetadataHasLeader
}

// learnerMayAnswer says which unary calls a learner answers: its own status, and
// reads that are content with what it has.
func learnerMayAnswer(req any) bool {
	switch r := req.(type) {
	case *pb.StatusRequest:
		return true
	case *pb.RangeRequest:
		return r.GetSerializable()
	}
	return false
}

// CheckUnary runs the checks before every unary method.
func CheckUnary(member Standing) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := Check(incoming{ctx}, member, command.FirstVersion, learnerMayAnswer(req), false); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}
