package state

import (
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/lease"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
)

// FollowLeases returns the changes of leases, from all that there were when the
// machine was opened; a view that has a change is published before it. It may be
// called once.
func (m *Machine) FollowLeases() *lease.Feed { return m.leases.Follow() }

// LeaseKeys lists up to most keys of a lease in byte order, as they are now: at the
// view or later. Any goroutine may call it. Errors: engine.ErrIterators,
// *mvcc.DamageError.
func (v *View) LeaseKeys(name id.Lease, most int) ([][]byte, error) {
	list, err := lease.ReadKeys(v.machine.group, v.machine.db, name, most)
	if errors.Is(err, engine.ErrIterators) {
		return nil, err
	}
	return list, damagedLeases(err)
}

// damagedLeases makes the error of a row of leases one of the state.
func damagedLeases(err error) error {
	if err == nil {
		return nil
	}
	return &mvcc.DamageError{Row: "of the leases", Err: err}
}

func (m *Machine) grant(g *command.LeaseGrant) (*command.LeaseGrantResponse, error) {
	if err := m.leases.Grant(g); err != nil {
		return nil, err
	}
	m.counts.Granted.Add(1)
	m.counts.TTLs.Observe(g.TTL)
	return &command.LeaseGrantResponse{Revision: m.store.State().Revision, ID: g.ID, TTL: g.TTL}, nil
}

func (m *Machine) revoke(r *command.LeaseRevoke) (*command.LeaseRevokeResponse, error) {
	if !m.leases.Has(r.ID) {
		return nil, command.ErrLeaseNotFound
	}
	if _, err := m.end(r.ID); err != nil {
		return nil, err
	}
	m.leases.Flush()
	return &command.LeaseRevokeResponse{Revision: m.store.State().Revision}, nil
}

// expire ends leases whose time is over, each in a revision of its own as if it had
// been revoked alone.
func (m *Machine) expire(e *command.LeaseExpire) (*command.LeaseExpireResponse, error) {
	done := &command.LeaseExpireResponse{}
	for _, name := range e.Leases {
		if !m.leases.Is(name) {
			continue
		}
		deleted, err := m.end(name.ID)
		if err != nil {
			return nil, err
		}
		done.Leases++
		m.counts.Expired.Add(1)
		done.Keys += deleted
	}
	m.leases.Flush()
	return done, nil
}

// end deletes the keys of a lease in one revision, in byte order, and the lease; its
// rows are left to Table.Flush.
func (m *Machine) end(name id.Lease) (deleted int, err error) {
	list, err := m.leases.Keys(name)
	if err != nil {
		return 0, damagedLeases(fmt.Errorf("keys of %x: %w", uint64(name), err))
	}
	if defect.On(defect.LeaseEndsTwice) && len(list) > 1 {
		if err := m.store.DeleteAttached(name, list[:1]); err != nil {
			return 0, err
		}
		list = list[1:]
	}
	if err := m.store.DeleteAttached(name, list); err != nil {
		return 0, err
	}
	m.leases.End(name, list)
	m.counts.Revoked.Add(1)
	return len(list), nil
}
