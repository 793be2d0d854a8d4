package state

import (
	"github.com/kvorum/kvorum/internal/state/command"
)

// action is what applying a kind of command does. It returns the response, or
// the refusal of the state; or *mvcc.DamageError, which ends the replica.
type action func(m *Machine, body command.Body) (any, error)

// table has an action for every kind of command; a test asserts it.
var table = [...]action{
	command.KindPut: func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.Put(body.(*command.PutRequest)))
	},
	command.KindDeleteRange: func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.DeleteRange(body.(*command.DeleteRangeRequest)))
	},
	command.KindTxn: func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.Txn(body.(*command.TxnRequest)))
	},
	command.KindCompact: func(m *Machine, body command.Body) (any, error) {
		return untyped(m.store.Compact(body.(*command.CompactRequest)))
	},
	command.KindLeaseGrant: func(m *Machine, body command.Body) (any, error) {
		return untyped(m.grant(body.(*command.LeaseGrant)))
	},
	command.KindLeaseRevoke: func(m *Machine, body command.Body) (any, error) {
		return untyped(m.revoke(body.(*command.LeaseRevoke)))
	},
	command.KindLeaseExpire: func(m *Machine, body command.Body) (any, error) {
		return untyped(m.expire(body.(*command.LeaseExpire)))
	},
	command.KindLeaseCheckpoint: func(m *Machine, body command.Body) (any, error) {
		m.leases.Checkpoint(body.(*command.LeaseCheckpoint))
		return nil, nil
	},
	command.KindMemberPublish: func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.Publish(m.group, m.batch, body.(*command.MemberPublish))
		return nil, err
	},
	command.KindMemberGenesis: func(m *Machine, body command.Body) (any, error) {
		m.members = m.members.Genesis(m.group, m.batch, body.(*command.MemberGenesis))
		return nil, nil
	},
	command.KindMemberUpdate: func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.Update(m.group, m.batch, body.(*command.MemberUpdate))
		return nil, err
	},
	command.KindClusterVersion: func(m *Machine, body command.Body) (_ any, err error) {
		m.members, err = m.members.Raise(m.group, m.batch, body.(*command.ClusterVersion))
		return nil, err
	},
}

// untyped makes a nil response that comes with an error a plain nil.
func untyped[R any](response *R, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return response, nil
}
