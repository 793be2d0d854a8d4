package v3

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/backup"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/watch"
)

// wire is the one table from the domain's errors to what a client sees. Clients
// compare the whole text, some the code too (spec 1.3).
var wire = []struct {
	domain error
	grpc   error
}{
	{command.ErrEmptyKey, rpctypes.ErrGRPCEmptyKey},
	{command.ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound},
	{command.ErrValueProvided, rpctypes.ErrGRPCValueProvided},
	{command.ErrLeaseProvided, rpctypes.ErrGRPCLeaseProvided},
	{command.ErrTooManyOps, rpctypes.ErrGRPCTooManyOps},
	{command.ErrDuplicateKey, rpctypes.ErrGRPCDuplicateKey},
	{command.ErrBadSort, rpctypes.ErrGRPCInvalidSortOption},
	{command.ErrStreamSort, status.Error(codes.Unimplemented, command.ErrStreamSort.Error())},
	{command.ErrStreamFilter, status.Error(codes.Unimplemented, command.ErrStreamFilter.Error())},
	{command.ErrCompacted, rpctypes.ErrGRPCCompacted},
	{command.ErrFutureRevision, rpctypes.ErrGRPCFutureRev},
	{command.ErrNoSpace, rpctypes.ErrGRPCNoSpace},
	{command.ErrCorrupt, rpctypes.ErrGRPCCorrupt},
	{command.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
	{command.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
	{command.ErrLeaseTTLTooLarge, rpctypes.ErrGRPCLeaseTTLTooLarge},
	{command.ErrMemberNotFound, rpctypes.ErrGRPCMemberNotFound},
	{command.ErrMemberExists, rpctypes.ErrGRPCMemberExist},
	{command.ErrPeerURLExists, rpctypes.ErrGRPCPeerURLExist},
	{command.ErrBadMemberURLs, rpctypes.ErrGRPCMemberBadURLs},
	{command.ErrTooManyLearners, rpctypes.ErrGRPCTooManyLearners},
	{command.ErrNotLearner, rpctypes.ErrGRPCMemberNotLearner},
	{command.ErrLearnerNotReady, rpctypes.ErrGRPCLearnerNotReady},
	{command.ErrDowngradeFormat, rpctypes.ErrGRPCWrongDowngradeVersionFormat},
	{command.ErrDowngradeTarget, rpctypes.ErrGRPCInvalidDowngradeTargetVersion},
	{command.ErrDowngrading, rpctypes.ErrGRPCDowngradeInProcess},
	{command.ErrNoClusterVersion, rpctypes.ErrGRPCClusterVersionUnavailable},
	{command.ErrUserEmpty, rpctypes.ErrGRPCUserEmpty},
	{command.ErrUserExists, rpctypes.ErrGRPCUserAlreadyExist},
	{command.ErrUserNotFound, rpctypes.ErrGRPCUserNotFound},
	{command.ErrRoleEmpty, rpctypes.ErrGRPCRoleEmpty},
	{command.ErrRoleExists, rpctypes.ErrGRPCRoleAlreadyExist},
	{command.ErrRoleNotFound, rpctypes.ErrGRPCRoleNotFound},
	{command.ErrRoleNotGranted, rpctypes.ErrGRPCRoleNotGranted},
	{command.ErrPermissionNotGranted, rpctypes.ErrGRPCPermissionNotGranted},
	{command.ErrPermissionNotGiven, rpctypes.ErrGRPCPermissionNotGiven},
	{command.ErrInvalidAuthMgmt, rpctypes.ErrGRPCInvalidAuthMgmt},
	{command.ErrRootMissing, rpctypes.ErrGRPCRootUserNotExist},
	{command.ErrRootRoleMissing, rpctypes.ErrGRPCRootRoleNotExist},
	{command.ErrAuthNotEnabled, rpctypes.ErrGRPCAuthNotEnabled},
	{command.ErrAuthFailed, rpctypes.ErrGRPCAuthFailed},
	{command.ErrPermissionDenied, rpctypes.ErrGRPCPermissionDenied},
	{command.ErrInvalidAuthToken, rpctypes.ErrGRPCInvalidAuthToken},
	{command.ErrAuthOldRevision, rpctypes.ErrGRPCAuthOldRevision},
	{raft.ErrNotLeader, rpctypes.ErrGRPCNotLeader},
	{raft.ErrBadTransferee, rpctypes.ErrGRPCBadLeaderTransferee},
	{server.ErrUnhealthy, rpctypes.ErrGRPCUnhealthy},
	// Quirk (a) of spec 1.3: not FailedPrecondition, as the table of clients says.
	{server.ErrUnstarted, status.Error(codes.Unknown, server.ErrUnstarted.Error())},
	{host.ErrTooLarge, rpctypes.ErrGRPCRequestTooLarge},
	{host.ErrStopped, rpctypes.ErrGRPCStopped},
	{watch.ErrClosed, rpctypes.ErrGRPCStopped},
	{host.ErrTimeout, rpctypes.ErrGRPCTimeout},
	{host.ErrTimeoutLeader, rpctypes.ErrGRPCTimeoutDueToLeaderFail},
	{host.ErrLeaderChanged, rpctypes.ErrGRPCLeaderChanged},
	// Nothing was proposed: another member, or this one later, may be asked.
	{host.ErrStalled, rpctypes.ErrGRPCNoLeader},
	// Quirk (a) of spec 1.3: the reference sends this one as Unknown.
	{host.ErrTooManyRequests, status.Error(codes.Unknown, "etcdserver: too many requests")},
	{engine.ErrIterators, status.Error(codes.Unknown, "etcdserver: too many requests")},
	// A snapshot was installed under the read: it may be asked again.
	{mvcc.ErrReplaced, rpctypes.ErrGRPCTimeoutWaitAppliedIndex},
	{backup.ErrNoSpace, status.Error(codes.ResourceExhausted, "kvorum: "+backup.ErrNoSpace.Error())},
	{errNoLeaderCame, rpctypes.ErrGRPCNoLeader},
	// Quirk of spec 1.5: a request for which no leader came ends plainly.
	{host.ErrNoLeader, status.Error(codes.DeadlineExceeded, context.DeadlineExceeded.Error())},
	{context.DeadlineExceeded, status.Error(codes.DeadlineExceeded, context.DeadlineExceeded.Error())},
	{context.Canceled, status.Error(codes.Canceled, context.Canceled.Error())},
}

// toWire gives an error its text and code; nil stays nil.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	for i := range wire {
		if errors.Is(err, wire[i].domain) {
			return wire[i].grpc
		}
	}
	var store *engine.CorruptionError
	var row *mvcc.DamageError
	if errors.As(err, &store) || errors.As(err, &row) {
		return status.Error(codes.DataLoss, err.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}
