package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// leasing is what a client of leases has.
type leasing struct {
	stub pb.LeaseClient
	// stream of renewals, and the leases that are renewed over it in turn.
	stream pb.Lease_LeaseKeepAliveClient
	names  []int64
	next   int
}

const (
	// longLease outlives every measurement; in seconds.
	longLease = 3600
	// firstLease is the ID of the first lease that is renewed; others follow it.
	firstLease = 0x6b76_0000_0000
)

func leaseClients(_ context.Context, p *probe, _ Options) error {
	for i, c := range p.load.clients {
		c.leases.stub = pb.NewLeaseClient(p.conns.all[i%len(p.conns.all)])
	}
	return nil
}

func leaseGrant(ctx context.Context, c *client) error {
	r, err := c.leases.stub.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: longLease})
	if err == nil && (r.ID == 0 || r.TTL != longLease) {
		return fmt.Errorf("wrong answer: %v", r)
	}
	return err
}

// openRenewals grants the leases that are to be renewed, unless they are there, and
// opens a stream for each client.
func openRenewals(ctx context.Context, p *probe, o Options) error {
	if err := leaseClients(ctx, p, o); err != nil {
		return err
	}
	clients := p.load.clients
	if err := grantAll(ctx, p.conns, o.Leases); err != nil {
		return fmt.Errorf("%s: grant: %w", p.server.label(), err)
	}
	for i := range o.Leases {
		l := &clients[i%len(clients)].leases
		l.names = append(l.names, firstLease+int64(i))
	}
	for _, c := range clients {
		var err error
		if c.leases.stream, err = c.leases.stub.LeaseKeepAlive(ctx); err != nil {
			return fmt.Errorf("%s: keep-alive: %w", p.server.label(), err)
		}
	}
	return nil
}

// grantAll grants n leases of known IDs.
func grantAll(ctx context.Context, conns *connections, n int) error {
	return together(ctx, min(fillClients, n), func(ctx context.Context, worker int, next func() int) error {
		stub := pb.NewLeaseClient(conns.all[worker%len(conns.all)])
		for i := next(); i < n; i = next() {
			_, err := stub.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: firstLease + int64(i), TTL: longLease})
			if err != nil && !isThere(err) {
				return err
			}
		}
		return nil
	})
}

// isThere says that a lease was granted before.
func isThere(err error) bool {
	return status.Code(err) == codes.FailedPrecondition && strings.Contains(err.Error(), "already exists")
}

// together runs so many workers, who take numbers from 0 on from one counter. The
// first error ends all.
func together(ctx context.Context, workers int, work func(ctx context.Context, worker int, next func() int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg    sync.WaitGroup
		count atomic.Int64
	)
	for i := range workers {
		wg.Go(func() {
			if err := work(ctx, i, func() int { return int(count.Add(1) - 1) }); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// keepAlive renews the client's next lease and waits for the answer.
func keepAlive(_ context.Context, c *client) error {
	l := &c.leases
	name := l.names[l.next]
	l.next = (l.next + 1) % len(l.names)
	if err := l.stream.Send(&pb.LeaseKeepAliveRequest{ID: name}); err != nil {
		return err
	}
	r, err := l.stream.Recv()
	if err == nil && (r.ID != name || r.TTL != longLease) {
		return fmt.Errorf("wrong answer: %v", r)
	}
	return err
}
