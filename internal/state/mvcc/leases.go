package mvcc

import (
	"errors"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Leases is what the store asks about leases, and whom it tells which keys hang on
// which; the body is lease.Table.
type Leases interface {
	Has(lease id.Lease) bool
	Attach(key []byte, lease id.Lease)
	Detach(key []byte, lease id.Lease)
}

// Heed makes puts with a lease possible. A store without leases knows none.
func (s *Store) Heed(leases Leases) { s.leases = leases }

// checkLease looks for the lease of a put.
func (s *Store) checkLease(r *command.PutRequest) error {
	if r.Lease != 0 && (s.leases == nil || !s.leases.Has(r.Lease)) {
		return command.ErrLeaseNotFound
	}
	return nil
}

// moveLease notes on which lease a key hung and on which it hangs from now on.
func (s *Store) moveLease(key []byte, from, to id.Lease) {
	if from == to || s.leases == nil {
		return
	}
	if from != 0 {
		s.leases.Detach(key, from)
	}
	if to != 0 {
		s.leases.Attach(key, to)
	}
}

var errAttached = errors.New("attached to a lease that it does not name")

// DeleteAttached deletes the keys of a lease that ends, in the order given, all in
// one revision. No keys are no change. Nothing is detached: the lease is told of its
// end by the caller. Errors: *DamageError.
func (s *Store) DeleteAttached(lease id.Lease, list [][]byte) error {
	for _, key := range list {
		prev, found, err := s.newest(key)
		if err != nil {
			return err
		}
		if defect.On(defect.DetachedKeyDeleted) {
			if !found {
				continue
			}
		} else if !found || prev.lease != lease {
			return &DamageError{keys.Text(keys.AppendUserKey(nil, s.group, key)).String(), errAttached}
		}
		c := prev.superseding()
		s.write(key, &version{dead: true}, &c)
		s.done.Deletes.Add(1)
	}
	s.settle()
	return nil
}
