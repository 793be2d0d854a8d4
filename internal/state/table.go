package state

import (
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
)

// permission says what a caller needs for a kind of command (auth.Check). nil is for
// what a client cannot ask for: members propose it by themselves.
type permission func(c *auth.Check, body command.Body) error

// action is what applying a kind of command does. It returns the response, or
// the refusal of the state; or *mvcc.DamageError, which ends the replica.
type action func(m *Machine, body command.Body) (any, error)

// table has a row for every kind of command; a test asserts it.
var table = [...]struct {
	permit permission
	// changes says that it is refused while members do not agree about the keys.
	changes bool
	do      action
}{
	command.KindPut: {permitPut, true, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.Put(body.(*command.PutRequest)))
	}},
	command.KindDeleteRange: {permitDelete, true, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.DeleteRange(body.(*command.DeleteRangeRequest)))
	}},
	command.KindTxn: {permitTxn, true, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.Txn(body.(*command.TxnRequest)))
	}},
	command.KindCompact: {permitAdmin, true, func(m *Machine, body command.Body) (any, error) {
		resp, err := m.store.Compact(body.(*command.CompactRequest))
		if err == nil {
			m.counts.LastCompaction.Store(m.cmd.Wall)
		}
		return untyped(resp, err)
	}},
	command.KindLeaseGrant: {permitAnyUser, true, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.grant(body.(*command.LeaseGrant)))
	}},
	command.KindLeaseRevoke: {permitRevoke, true, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.revoke(body.(*command.LeaseRevoke)))
	}},
	command.KindLeaseExpire: {nil, true, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.expire(body.(*command.LeaseExpire)))
	}},
	command.KindLeaseCheckpoint: {nil, false, func(m *Machine, body command.Body) (any, error) {
		m.leases.Checkpoint(body.(*command.LeaseCheckpoint))
		return nil, nil
	}},
	command.KindMemberPublish: {nil, false, func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.Publish(m.group, m.batch, body.(*command.MemberPublish))
		return nil, err
	}},
	command.KindMemberGenesis: {nil, false, func(m *Machine, body command.Body) (any, error) {
		m.members = m.members.Genesis(m.group, m.batch, body.(*command.MemberGenesis))
		return nil, nil
	}},
	command.KindMemberUpdate: {permitAdmin, false, func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.Update(m.group, m.batch, body.(*command.MemberUpdate))
		return nil, err
	}},
	command.KindClusterVersion: {nil, false, func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.SetVersion(m.group, m.batch, body.(*command.ClusterVersion))
		return nil, err
	}},
	command.KindDowngradeEnable: {permitAdmin, false, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.enableDowngrade(body.(*command.DowngradeEnable)))
	}},
	command.KindDowngradeCancel: {permitAdmin, false, func(m *Machine, _ command.Body) (any, error) {
		return m.cancelDowngrade(), nil
	}},
	command.KindDowngradeEnd: {nil, false, func(m *Machine, _ command.Body) (_ any, err error) {
		m.members, err = m.members.EndDowngrade(m.group, m.batch)
		return nil, err
	}},
	command.KindAlarmRaise: {permitAdmin, false, func(m *Machine, body command.Body) (any, error) {
		return m.raise(body.(*command.AlarmRaise).Alarm), nil
	}},
	command.KindAlarmDisarm: {permitAdmin, false, func(m *Machine, body command.Body) (any, error) {
		return m.disarm(body.(*command.AlarmDisarm).Alarm), nil
	}},
	command.KindAlarmReport: {nil, false, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.report(body.(*command.AlarmReport).Alarm))
	}},
	command.KindAlarmWithdraw: {nil, false, func(m *Machine, body command.Body) (any, error) {
		return m.disarm(body.(*command.AlarmWithdraw).Alarm), nil
	}},
	command.KindAuthEnable:     {permitAdmin, false, authAction(enableAuth)},
	command.KindAuthDisable:    {permitAdmin, false, authAction(disableAuth)},
	command.KindAuthenticate:   {permitAnybody, false, authenticate},
	command.KindUserAdd:        {permitAdmin, false, authAction((*auth.Table).AddUser)},
	command.KindUserDelete:     {permitAdmin, false, authAction((*auth.Table).DeleteUser)},
	command.KindUserPassword:   {permitAdmin, false, authAction((*auth.Table).SetPassword)},
	command.KindUserGrantRole:  {permitAdmin, false, authAction((*auth.Table).GrantRole)},
	command.KindUserRevokeRole: {permitAdmin, false, authAction((*auth.Table).RevokeRole)},
	command.KindRoleAdd:        {permitAdmin, false, authAction((*auth.Table).AddRole)},
	command.KindRoleDelete:     {permitAdmin, false, authAction((*auth.Table).DeleteRole)},
	command.KindRoleGrant:      {permitAdmin, false, authAction((*auth.Table).GrantPermission)},
	command.KindRoleRevoke:     {permitAdmin, false, authAction((*auth.Table).RevokePermission)},
}

// untyped makes a nil response that comes with an error a plain nil.
func untyped[R any](response *R, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return response, nil
}
