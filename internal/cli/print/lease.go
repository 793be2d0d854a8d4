package print

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Protobuf has nothing of the answers about leases but their headers: so it is in
// etcd, whose client keeps no more of the messages.

// LeaseGrant writes the answer to a grant.
func (p *Printer) LeaseGrant(r *clientv3.LeaseGrantResponse) error {
	return p.write(answer{
		simple:   func(l *lines) { l.printf("lease %016x granted with TTL(%ds)\n", r.ID, r.TTL) },
		fields:   func(l *lines) { l.leaseFields(r.ResponseHeader, r.ID, r.TTL) },
		json:     r,
		protobuf: r.ResponseHeader,
	})
}

// headerText is a header on one line, as protobuf's text has it; the spaces of that
// differ from build to build.
func headerText(h *pb.ResponseHeader) string {
	return fmt.Sprintf("cluster_id:%d member_id:%d revision:%d raft_term:%d", h.GetClusterId(), h.GetMemberId(), h.GetRevision(), h.GetRaftTerm())
}

// LeaseRevoke writes the answer to a revocation, of which even the header is not
// for protobuf.
func (p *Printer) LeaseRevoke(lease clientv3.LeaseID, r *clientv3.LeaseRevokeResponse) error {
	if p.format == Protobuf {
		return formatError(fmt.Sprintf("marshal unsupported for type clientv3.LeaseRevokeResponse (%s)", headerText(r.Header)))
	}
	return p.write(answer{
		simple: func(l *lines) { l.printf("lease %016x revoked\n", lease) },
		fields: func(l *lines) { l.header(r.Header) },
		json:   r,
	})
}

// LeaseKeepAlive writes the answer to one renewal.
func (p *Printer) LeaseKeepAlive(r *clientv3.LeaseKeepAliveResponse) error {
	return p.write(answer{
		simple:   func(l *lines) { l.printf("lease %016x keepalived with TTL(%d)\n", r.ID, r.TTL) },
		fields:   func(l *lines) { l.leaseFields(r.ResponseHeader, r.ID, r.TTL) },
		json:     r,
		protobuf: r.ResponseHeader,
	})
}

// LeaseEnded says in simple that a lease cannot be renewed any more; other formats
// have no word for it.
func (p *Printer) LeaseEnded(lease clientv3.LeaseID) error {
	if p.format != Simple {
		return nil
	}
	_, err := fmt.Fprintf(p.out, "lease %016x expired or revoked.\n", lease)
	return err
}

// LeaseTimeToLive writes what a lease has left, in simple with its keys if they were
// asked for.
func (p *Printer) LeaseTimeToLive(r *clientv3.LeaseTimeToLiveResponse, keys bool) error {
	return p.write(answer{
		simple: func(l *lines) {
			if r.TTL == -1 && r.GrantedTTL == 0 {
				l.printf("lease %016x already expired\n", r.ID)
				return
			}
			l.printf("lease %016x granted with TTL(%ds), remaining(%ds)", r.ID, r.GrantedTTL, r.TTL)
			if keys {
				l.printf(", attached keys(%s)", r.Keys)
			}
			l.printf("\n")
		},
		fields: func(l *lines) {
			l.leaseFields(r.ResponseHeader, r.ID, r.TTL)
			l.field("GrantedTTL", "%d", r.GrantedTTL)
			for _, key := range r.Keys {
				l.field("Key", "%q", key)
			}
		},
		json:     r,
		protobuf: r.ResponseHeader,
	})
}

// LeaseList writes the leases in the order given.
func (p *Printer) LeaseList(r *clientv3.LeaseLeasesResponse) error {
	return p.write(answer{
		simple: func(l *lines) {
			l.printf("found %d leases\n", len(r.Leases))
			for _, lease := range r.Leases {
				l.printf("%016x\n", lease.ID)
			}
		},
		fields: func(l *lines) {
			l.header(r.ResponseHeader)
			for _, lease := range r.Leases {
				l.lease("ID", int64(lease.ID))
			}
		},
		json:     r,
		protobuf: r.ResponseHeader,
	})
}

func (l *lines) leaseFields(h *pb.ResponseHeader, lease clientv3.LeaseID, ttl int64) {
	l.header(h)
	l.lease("ID", int64(lease))
	l.field("TTL", "%d", ttl)
}
