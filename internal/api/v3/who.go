package v3

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/server"
	users "github.com/kvorum/kvorum/internal/state/auth"
)

// gatewayKey is metadata that the HTTP gateway sends: the certificate of such a
// connection is the gateway's own, and says nothing about the caller.
const gatewayKey = "grpcgateway-accept"

// shown are the credentials that came with a call.
func shown(values Values, from *peer.Peer) (c server.Credentials) {
	if c.Token, c.Shown = values.Metadata(rpctypes.TokenFieldNameGRPC); !c.Shown {
		c.Token, c.Shown = values.Metadata(rpctypes.TokenFieldNameSwagger)
	}
	if c.Shown || from == nil {
		return c
	}
	info, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return c
	}
	for _, chain := range info.State.VerifiedChains {
		if len(chain) == 0 {
			continue
		}
		if _, proxied := values.Metadata(gatewayKey); !proxied {
			c.Certificate = chain[0].Subject.CommonName
		}
		break
	}
	return c
}

// identify finds out who makes a call. A token that was given out after what this
// member has applied waits until it has caught up.
func identify(ctx context.Context, member *server.Member) (users.Caller, error) {
	from, _ := peer.FromContext(ctx)
	c := shown(incoming{ctx}, from)
	who, later, err := member.Identify(&c, false)
	if !later {
		return who, err
	}
	if _, err := await(ctx, member, member.Barrier); err != nil {
		return users.Caller{}, err
	}
	who, _, err = member.Identify(&c, true)
	return who, err
}

// session is the services for whoever makes a call.
func session(ctx context.Context, member *server.Member) (server.Session, error) {
	who, err := identify(ctx, member)
	return member.As(who), err
}

// hotSession is session on a connection's reader, where nothing may wait: later says
// that the call is to be begun again by catchUp. unread is what is wrong with the
// request, if anything, and then the error. Without permissions to check it costs
// two loads and a look for a token.
func (s *kv) hotSession(call *rpc.Call, unread error, caughtUp bool) (as server.Session, later bool, err error) {
	if unread != nil {
		return as, false, unread
	}
	var from *peer.Peer // whose certificate counts only where permissions are checked
	enabled := s.member.AuthEnabled()
	if enabled {
		from = call.Peer()
	}
	c := shown(call, from)
	if !enabled && !c.Shown {
		return s.member.Session, false, nil
	}
	c.Last = call.Last()
	who, later, err := s.member.Identify(&c, caughtUp)
	return s.member.As(who), later, toWire(err)
}

// catchUp begins a call again once this member has caught up.
func (s *kv) catchUp(call *rpc.Call, again func()) {
	s.member.Barrier(host.Call{Deadline: s.member.Deadline(), To: barred(func(r host.Result) {
		if r.Err != nil {
			call.Refuse(toWire(r.Err))
			return
		}
		again()
	})})
}

// barred is a host.Completions that is a function; it must not wait.
type barred func(host.Result)

// Push implements host.Completions.
func (b barred) Push(r host.Result) { b(r) }

// A need is what a call that is not about keys asks of its caller before its handler
// runs. Calls about keys, leases, members and users are judged by their handlers, with
// what they are about in hand.
type need int

const (
	byHandler need = iota + 1
	ofNobody
	ofToken // a good token if there is one
	ofAnyUser
	ofAdmin
)

// needs has every method of every service; one that it does not know is root's alone.
var needs = map[string]need{
	pb.KV_Range_FullMethodName: byHandler, pb.KV_RangeStream_FullMethodName: byHandler, pb.KV_Put_FullMethodName: byHandler,
	pb.KV_DeleteRange_FullMethodName: byHandler, pb.KV_Txn_FullMethodName: byHandler, pb.KV_Compact_FullMethodName: byHandler,
	pb.Watch_Watch_FullMethodName:      byHandler,
	pb.Lease_LeaseGrant_FullMethodName: byHandler, pb.Lease_LeaseRevoke_FullMethodName: byHandler, pb.Lease_LeaseKeepAlive_FullMethodName: byHandler,
	pb.Lease_LeaseTimeToLive_FullMethodName: byHandler, pb.Lease_LeaseLeases_FullMethodName: byHandler,
	pb.Cluster_MemberAdd_FullMethodName: byHandler, pb.Cluster_MemberRemove_FullMethodName: byHandler, pb.Cluster_MemberUpdate_FullMethodName: byHandler,
	pb.Cluster_MemberPromote_FullMethodName: byHandler, pb.Cluster_MemberList_FullMethodName: byHandler,
	pb.Maintenance_Alarm_FullMethodName: ofAdmin, pb.Maintenance_Status_FullMethodName: ofAnyUser,
	pb.Maintenance_Defragment_FullMethodName: ofAdmin, pb.Maintenance_Hash_FullMethodName: ofAdmin, pb.Maintenance_HashKV_FullMethodName: ofAdmin,
	pb.Maintenance_Snapshot_FullMethodName: ofAdmin, pb.Maintenance_MoveLeader_FullMethodName: ofAdmin, pb.Maintenance_Downgrade_FullMethodName: ofAdmin,
	pb.Auth_Authenticate_FullMethodName: ofNobody, pb.Auth_AuthStatus_FullMethodName: ofToken,
	pb.Auth_AuthEnable_FullMethodName: byHandler, pb.Auth_AuthDisable_FullMethodName: byHandler,
	pb.Auth_UserAdd_FullMethodName: byHandler, pb.Auth_UserGet_FullMethodName: byHandler, pb.Auth_UserList_FullMethodName: byHandler,
	pb.Auth_UserDelete_FullMethodName: byHandler, pb.Auth_UserChangePassword_FullMethodName: byHandler,
	pb.Auth_UserGrantRole_FullMethodName: byHandler, pb.Auth_UserRevokeRole_FullMethodName: byHandler,
	pb.Auth_RoleAdd_FullMethodName: byHandler, pb.Auth_RoleGet_FullMethodName: byHandler, pb.Auth_RoleList_FullMethodName: byHandler,
	pb.Auth_RoleDelete_FullMethodName: byHandler, pb.Auth_RoleGrantPermission_FullMethodName: byHandler, pb.Auth_RoleRevokePermission_FullMethodName: byHandler,
	"/v3lockpb.Lock/Lock": byHandler, "/v3lockpb.Lock/Unlock": byHandler,
	"/v3electionpb.Election/Campaign": byHandler, "/v3electionpb.Election/Proclaim": byHandler, "/v3electionpb.Election/Leader": byHandler,
	"/v3electionpb.Election/Observe": byHandler, "/v3electionpb.Election/Resign": byHandler,
	"/grpc.health.v1.Health/Check": ofNobody, "/grpc.health.v1.Health/List": ofNobody, "/grpc.health.v1.Health/Watch": ofNobody,
}

// needOf is what a call asks for; that of alarms depends on what is to be done.
func needOf(method string, req any) need {
	if alarm, ok := req.(*pb.AlarmRequest); ok {
		if alarm.GetAction() == pb.AlarmRequest_GET {
			return ofAnyUser
		}
		return ofAdmin
	}
	return needs[method]
}

// permit judges a call by its method, by what this member has applied. req is nil for a
// stream.
func permit(ctx context.Context, member *server.Member, method string, req any) error {
	need := needOf(method, req)
	if !member.AuthEnabled() || need == byHandler || need == ofNobody {
		return nil
	}
	as, err := session(ctx, member)
	if err == nil {
		switch need {
		case ofToken:
		case ofAnyUser:
			err = as.AnyUser()
		default:
			err = as.Admin()
		}
	}
	return toWire(err)
}

// PermitUnary runs the checks before every unary method (CheckUnary), and then asks
// whether the caller may make the call at all.
func PermitUnary(member *server.Member) grpc.UnaryServerInterceptor {
	check := CheckUnary(member)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return check(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			if err := permit(ctx, member, info.FullMethod, req); err != nil {
				return nil, err
			}
			return next(ctx, req)
		})
	}
}

// PermitStream does the same before every streaming method (CheckStream).
func PermitStream(member *server.Member, election time.Duration) grpc.StreamServerInterceptor {
	check := CheckStream(member, election)
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return check(srv, stream, info, func(srv any, stream grpc.ServerStream) error {
			if err := permit(stream.Context(), member, info.FullMethod, nil); err != nil {
				return err
			}
			return next(srv, stream)
		})
	}
}
