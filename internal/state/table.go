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
	do     action
}{
	command.KindPut: {permitPut, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.Put(body.(*command.PutRequest)))
	}},
	command.KindDeleteRange: {permitDelete, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.DeleteRange(body.(*command.DeleteRangeRequest)))
	}},
	command.KindTxn: {permitTxn, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.Txn(body.(*command.TxnRequest)))
	}},
	command.KindCompact: {permitAdmin, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.Compact(body.(*command.CompactRequest)))
	}},
	command.KindLeaseGrant: {permitAnyUser, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.grant(body.(*command.LeaseGrant)))
	}},
	command.KindLeaseRevoke: {permitRevoke, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.revoke(body.(*command.LeaseRevoke)))
	}},
	command.KindLeaseExpire: {nil, func(m *Machine, body command.Body) (any, error) {
		return untyped(m.expire(body.(*command.LeaseExpire)))
	}},
	command.KindLeaseCheckpoint: {nil, func(m *Machine, body command.Body) (any, error) {
		m.leases.Checkpoint(body.(*command.LeaseCheckpoint))
		return nil, nil
	}},
	command.KindMemberPublish: {nil, func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.Publish(m.group, m.batch, body.(*command.MemberPublish))
		return nil, err
	}},
	command.KindMemberGenesis: {nil, func(m *Machine, body command.Body) (any, error) {
		m.members = m.members.Genesis(m.group, m.batch, body.(*command.MemberGenesis))
		return nil, nil
	}},
	command.KindMemberUpdate: {permitAdmin, func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.Update(m.group, m.batch, body.(*command.MemberUpdate))
		return nil, err
	}},
	command.KindClusterVersion: {nil, func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.Raise(m.group, m.batch, body.(*command.ClusterVersion))
		return nil, err
	}},
	command.KindAuthEnable:     {permitAdmin, authAction(enableAuth)},
	command.KindAuthDisable:    {permitAdmin, authAction(disableAuth)},
	command.KindAuthenticate:   {permitAnybody, authenticate},
	command.KindUserAdd:        {permitAdmin, authAction((*auth.Table).AddUser)},
	command.KindUserDelete:     {permitAdmin, authAction((*auth.Table).DeleteUser)},
	command.KindUserPassword:   {permitAdmin, authAction((*auth.Table).SetPassword)},
	command.KindUserGrantRole:  {permitAdmin, authAction((*auth.Table).GrantRole)},
	command.KindUserRevokeRole: {permitAdmin, authAction((*auth.Table).RevokeRole)},
	command.KindRoleAdd:        {permitAdmin, authAction((*auth.Table).AddRole)},
	command.KindRoleDelete:     {permitAdmin, authAction((*auth.Table).DeleteRole)},
	command.KindRoleGrant:      {permitAdmin, authAction((*auth.Table).GrantPermission)},
	command.KindRoleRevoke:     {permitAdmin, authAction((*auth.Table).RevokePermission)},
}

// untyped makes a nil response that comes with an error a plain nil.
func untyped[R any](response *R, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return response, nil
}
