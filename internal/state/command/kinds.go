package command

import (
	"strconv"

	"github.com/kvorum/kvorum/internal/defect"
)

// versionOverhead is what rule 17 charges for a stored version besides its key
// and value, in bytes.
const versionOverhead = 256

// VersionCost is what one stored version counts in the replicated byte count of
// rule 17.
func VersionCost(keyBytes, valueBytes int) int64 {
	return versionOverhead + int64(keyBytes) + int64(valueBytes)
}

// info is what is known of a kind. Class is the usual one: compact may also be a
// duty.
type info struct {
	kind  Kind
	name  string
	class Class
	body  func() Body
}

var kinds = [...]info{
	{KindPut, "put", Client, func() Body { return new(PutRequest) }},
	{KindDeleteRange, "delete-range", Client, func() Body { return new(DeleteRangeRequest) }},
	{KindTxn, "txn", Client, func() Body { return new(TxnRequest) }},
	{KindCompact, "compact", Client, func() Body { return new(CompactRequest) }},
	{KindLeaseGrant, "lease-grant", Client, func() Body { return new(LeaseGrant) }},
	{KindLeaseRevoke, "lease-revoke", Client, func() Body { return new(LeaseRevoke) }},
	{KindLeaseExpire, "lease-expire", Duty, func() Body { return new(LeaseExpire) }},
	{KindLeaseCheckpoint, "lease-checkpoint", Duty, func() Body { return new(LeaseCheckpoint) }},
	{KindMemberPublish, "member-publish", Client, func() Body { return new(MemberPublish) }},
	{KindMemberGenesis, "member-genesis", Client, func() Body { return new(MemberGenesis) }},
	{KindMemberUpdate, "member-update", Client, func() Body { return new(MemberUpdate) }},
	{KindClusterVersion, "cluster-version", Duty, func() Body { return new(ClusterVersion) }},
	{KindDowngradeEnable, "downgrade-enable", Client, func() Body { return new(DowngradeEnable) }},
	{KindDowngradeCancel, "downgrade-cancel", Client, func() Body { return new(DowngradeCancel) }},
	{KindDowngradeEnd, "downgrade-end", Duty, func() Body { return new(DowngradeEnd) }},
	{KindAlarmRaise, "alarm-raise", Client, func() Body { return new(AlarmRaise) }},
	{KindAlarmDisarm, "alarm-disarm", Client, func() Body { return new(AlarmDisarm) }},
	{KindAlarmReport, "alarm-report", Client, func() Body { return new(AlarmReport) }},
	{KindAlarmWithdraw, "alarm-withdraw", Client, func() Body { return new(AlarmWithdraw) }},
	{KindAuthEnable, "auth-enable", Client, func() Body { return new(AuthEnable) }},
	{KindAuthDisable, "auth-disable", Client, func() Body { return new(AuthDisable) }},
	{KindAuthenticate, "authenticate", Client, func() Body { return new(Authenticate) }},
	{KindUserAdd, "user-add", Client, func() Body { return new(UserAdd) }},
	{KindUserDelete, "user-delete", Client, func() Body { return new(UserDelete) }},
	{KindUserPassword, "user-password", Client, func() Body { return new(UserPassword) }},
	{KindUserGrantRole, "user-grant-role", Client, func() Body { return new(UserGrantRole) }},
	{KindUserRevokeRole, "user-revoke-role", Client, func() Body { return new(UserRevokeRole) }},
	{KindRoleAdd, "role-add", Client, func() Body { return new(RoleAdd) }},
	{KindRoleDelete, "role-delete", Client, func() Body { return new(RoleDelete) }},
	{KindRoleGrant, "role-grant", Client, func() Body { return new(RoleGrant) }},
	{KindRoleRevoke, "role-revoke", Client, func() Body { return new(RoleRevoke) }},
}

func (k Kind) info() (info, bool) {
	for i := range kinds {
		if kinds[i].kind == k {
			return kinds[i], true
		}
	}
	return info{}, false
}

// Kinds lists every kind of command, ascending.
func Kinds() []Kind {
	all := make([]Kind, len(kinds))
	for i := range kinds {
		all[i] = kinds[i].kind
	}
	return all
}

// String names the kind in messages and metrics.
func (k Kind) String() string {
	if i, known := k.info(); known {
		return i.name
	}
	return "kind " + strconv.Itoa(int(k))
}

// Class is the usual class of commands of this kind, 0 for an unknown kind.
func (k Kind) Class() Class {
	i, _ := k.info()
	return i.class
}

// Kind of each body.
func (*PutRequest) Kind() Kind         { return KindPut }
func (*DeleteRangeRequest) Kind() Kind { return KindDeleteRange }
func (*TxnRequest) Kind() Kind         { return KindTxn }
func (*CompactRequest) Kind() Kind     { return KindCompact }
func (*MemberPublish) Kind() Kind      { return KindMemberPublish }
func (*MemberGenesis) Kind() Kind      { return KindMemberGenesis }
func (*MemberUpdate) Kind() Kind       { return KindMemberUpdate }

// Cost is what one more version of the key costs (rule 17).
func (p *PutRequest) Cost() int64 { return VersionCost(len(p.Key), len(p.Value)) }

// Cost is 0: deletions are always admitted, they are how space is freed.
func (*DeleteRangeRequest) Cost() int64 { return 0 }

// Cost is that of the larger branch, nested txns included.
func (t *TxnRequest) Cost() int64 { return max(opsCost(t.Success), opsCost(t.Failure)) }

// Cost is 0.
func (*CompactRequest) Cost() int64 { return 0 }

// Cost is 0.
func (*MemberPublish) Cost() int64 { return 0 }

// Cost is 0.
func (*MemberGenesis) Cost() int64 { return 0 }

// Cost is 0.
func (*MemberUpdate) Cost() int64 { return 0 }

func opsCost(ops []Op) int64 {
	var sum int64
	for i := range ops {
		switch op := &ops[i]; {
		case op.Put != nil:
			sum += op.Put.Cost()
		case op.Txn != nil && !defect.On(defect.NestedPutFree):
			sum += op.Txn.Cost()
		}
	}
	return sum
}

// ReadOnly says whether the txn is not replicated but answered from a view: both
// its branches hold ranges only, and no txn (spec 2.5).
func (t *TxnRequest) ReadOnly() bool {
	for _, ops := range [...][]Op{t.Success, t.Failure} {
		for i := range ops {
			if ops[i].Range == nil {
				return false
			}
		}
	}
	return true
}

// Serializable says whether a read-only txn may be answered without asking the
// leader: every range in it says so. A txn without ranges counts as one, though
// its compares read (a quirk of the reference, spec 2.5).
func (t *TxnRequest) Serializable() bool {
	for _, ops := range [...][]Op{t.Success, t.Failure} {
		for i := range ops {
			if ops[i].Range != nil && !ops[i].Range.Serializable {
				return false
			}
		}
	}
	return true
}
