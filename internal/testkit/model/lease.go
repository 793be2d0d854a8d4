package model

import (
	"maps"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Leases have no clock here: they end when they are told to. A key hangs on the
// lease that its newest version names; that is all there is to attachment (spec 4).

// Grant makes a lease known, so that puts may name it.
func (s *Store) Grant(lease id.Lease) {
	s.births++
	s.leases[lease] = s.births
}

// LeaseGrant makes a lease.
func (s *Store) LeaseGrant(r *command.LeaseGrant) (*command.LeaseGrantResponse, error) {
	if s.leases[r.ID] != 0 {
		return nil, command.ErrLeaseExists
	}
	s.Grant(r.ID)
	return &command.LeaseGrantResponse{Revision: s.revision, ID: r.ID, TTL: r.TTL}, nil
}

// LeaseRevoke ends a lease and deletes its keys in one revision.
func (s *Store) LeaseRevoke(r *command.LeaseRevoke) (*command.LeaseRevokeResponse, error) {
	if s.leases[r.ID] == 0 {
		return nil, command.ErrLeaseNotFound
	}
	s.end(r.ID)
	return &command.LeaseRevokeResponse{Revision: s.revision}, nil
}

// LeaseExpire ends leases, each as if it were revoked, but for those that are gone or
// in another life.
func (s *Store) LeaseExpire(r *command.LeaseExpire) *command.LeaseExpireResponse {
	done := &command.LeaseExpireResponse{}
	for _, name := range r.Leases {
		if birth := s.leases[name.ID]; birth != 0 && birth == name.Birth {
			done.Leases++
			done.Keys += s.end(name.ID)
		}
	}
	return done
}

func (s *Store) end(lease id.Lease) (deleted int) {
	at := s.revision + 1
	for _, key := range s.Attached(lease) {
		s.versions = append(s.versions, Version{KeyValue: command.KeyValue{Key: key, ModRevision: at}, Deleted: true})
		s.revision = at
		deleted++
	}
	delete(s.leases, lease)
	return deleted
}

// Attached lists the keys of a lease, in byte order.
func (s *Store) Attached(lease id.Lease) (list [][]byte) {
	for _, kv := range s.live([]byte{0}, []byte{0}, s.revision) {
		if kv.Lease == lease {
			list = append(list, kv.Key)
		}
	}
	return list
}

// Leases lists the leases, ascending.
func (s *Store) Leases() []id.Lease { return slices.Sorted(maps.Keys(s.leases)) }

// Birth is which lease of the store one is, 0 if there is none of that ID.
func (s *Store) Birth(lease id.Lease) command.LeaseBirth { return s.leases[lease] }

// LeaseChange draws a grant, a revocation or an expiry among the generator's leases.
// Now and then an expiry names a life that is over or never was.
func (g *Generator) LeaseChange(s *Store) any {
	lease := g.Leases[g.Rand.Int64N(int64(len(g.Leases)))]
	switch g.Rand.Int64N(5) {
	case 0:
		return &command.LeaseRevoke{ID: lease}
	case 1:
		r := &command.LeaseExpire{}
		for range g.Rand.Int64N(4) {
			lease = g.Leases[g.Rand.Int64N(int64(len(g.Leases)))]
			name := command.LeaseName{ID: lease, Birth: max(s.Birth(lease), 1)}
			if g.once(4) {
				name.Birth += command.LeaseBirth(g.Rand.Int64N(3)) - 1
			}
			r.Leases = append(r.Leases, name)
		}
		return r
	default:
		return &command.LeaseGrant{ID: lease, TTL: 1 + g.Rand.Int64N(100)}
	}
}
