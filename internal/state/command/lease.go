package command

import (
	"encoding/binary"
	"errors"

	"github.com/kvorum/kvorum/internal/id"
)

// What the leases refuse, besides ErrLeaseNotFound; the texts are etcd's (spec 4).
var (
	ErrLeaseExists      = errors.New("etcdserver: lease already exists")
	ErrLeaseTTLTooLarge = errors.New("etcdserver: too large lease TTL")
)

// MaxLeaseTTL is the longest time to live of a lease, in seconds.
const MaxLeaseTTL = 9_000_000_000

// LeaseBirth tells the lives of a lease ID apart: the how-manieth lease of the group
// it is, from 1. A duty names it, so that what was decided about one lease is never
// done to the next one of the same ID.
type LeaseBirth uint64

// LeaseGrant makes a lease. Whoever proposes it has drawn the ID, if the client did
// not, and raised the TTL to its least (rule 17: apply knows neither).
type LeaseGrant struct {
	ID id.Lease
	// TTL is in seconds, 1 to MaxLeaseTTL.
	TTL int64
}

// Validate checks the request as a client made it. Errors: ErrLeaseTTLTooLarge.
func (g *LeaseGrant) Validate() error {
	if g.TTL > MaxLeaseTTL {
		return ErrLeaseTTLTooLarge
	}
	return nil
}

// LeaseGrantResponse answers a grant. Revision is the store's, for the header.
type LeaseGrantResponse struct {
	Revision id.Revision
	ID       id.Lease
	TTL      int64
}

// LeaseRevoke ends a lease and deletes its keys, for a client.
type LeaseRevoke struct{ ID id.Lease }

// LeaseRevokeResponse answers a revocation.
type LeaseRevokeResponse struct{ Revision id.Revision }

// LeaseExpire ends leases whose time is over, in this order, a duty of the leader
// (rule 14). One that is gone, or is another one by now, is passed over.
type LeaseExpire struct{ Leases []LeaseName }

// LeaseName names one life of a lease.
type LeaseName struct {
	ID    id.Lease
	Birth LeaseBirth
}

// LeaseExpireResponse says how many leases ended, and with how many keys.
type LeaseExpireResponse struct{ Leases, Keys int }

// LeaseCheckpoint tells how much of their time leases have left, a duty of the
// leader: the next leader gives them no more than that. Of a lease that was renewed
// since it takes that back, with 0.
type LeaseCheckpoint struct{ Leases []LeaseRemaining }

// LeaseRemaining is what one lease has left, in seconds; 0 is its whole TTL.
type LeaseRemaining struct {
	LeaseName
	Remaining int64
}

// leaseCost is what rule 17 charges for a lease (spec 6.4).
const leaseCost = 64

// Kind of each body.
func (*LeaseGrant) Kind() Kind      { return KindLeaseGrant }
func (*LeaseRevoke) Kind() Kind     { return KindLeaseRevoke }
func (*LeaseExpire) Kind() Kind     { return KindLeaseExpire }
func (*LeaseCheckpoint) Kind() Kind { return KindLeaseCheckpoint }

// Cost is that of a lease.
func (*LeaseGrant) Cost() int64 { return leaseCost }

// Cost is 0.
func (*LeaseRevoke) Cost() int64 { return 0 }

// Cost is 0.
func (*LeaseExpire) Cost() int64 { return 0 }

// Cost is 0.
func (*LeaseCheckpoint) Cost() int64 { return 0 }

func (g *LeaseGrant) appendTo(dst []byte) []byte {
	dst = binary.AppendVarint(dst, int64(g.ID))
	return binary.AppendUvarint(dst, uint64(g.TTL))
}

func (g *LeaseGrant) decode(r *reader) {
	g.ID = r.lease()
	g.TTL = r.seconds()
	if g.TTL == 0 {
		r.fail("no time to live")
	}
}

func (v *LeaseRevoke) appendTo(dst []byte) []byte { return binary.AppendVarint(dst, int64(v.ID)) }

func (v *LeaseRevoke) decode(r *reader) { v.ID = id.Lease(r.varint()) }

func (n *LeaseName) appendTo(dst []byte) []byte {
	dst = binary.AppendVarint(dst, int64(n.ID))
	return binary.AppendUvarint(dst, uint64(n.Birth))
}

func (n *LeaseName) decode(r *reader) {
	n.ID = r.lease()
	n.Birth = LeaseBirth(r.uvarint())
}

// leastLeaseName is the least that a name is encoded in.
const leastLeaseName = 2

func (e *LeaseExpire) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(e.Leases)))
	for i := range e.Leases {
		dst = e.Leases[i].appendTo(dst)
	}
	return dst
}

func (e *LeaseExpire) decode(r *reader) {
	if n := r.count(leastLeaseName); n > 0 {
		e.Leases = make([]LeaseName, n)
	}
	for i := range e.Leases {
		e.Leases[i].decode(r)
	}
}

func (c *LeaseCheckpoint) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c.Leases)))
	for i := range c.Leases {
		dst = c.Leases[i].appendTo(dst)
		dst = binary.AppendUvarint(dst, uint64(c.Leases[i].Remaining))
	}
	return dst
}

func (c *LeaseCheckpoint) decode(r *reader) {
	if n := r.count(leastLeaseName + 1); n > 0 {
		c.Leases = make([]LeaseRemaining, n)
	}
	for i := range c.Leases {
		c.Leases[i].decode(r)
		c.Leases[i].Remaining = r.seconds()
	}
}

// lease reads the ID of a lease, which is never 0.
func (r *reader) lease() id.Lease {
	lease := id.Lease(r.varint())
	if lease == 0 {
		r.fail("lease 0")
	}
	return lease
}

// seconds reads a time to live or a part of it.
func (r *reader) seconds() int64 {
	n := r.uvarint()
	if n > MaxLeaseTTL {
		r.fail("time to live too long")
		return 0
	}
	return int64(n)
}
