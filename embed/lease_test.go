package embed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// official is etcd's own client of some members.
func (tb *table) official(seats ...*seat) *clientv3.Client {
	tb.t.Helper()
	var endpoints []string
	for _, s := range seats {
		endpoints = append(endpoints, s.client)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		tb.t.Fatal(err)
	}
	tb.t.Cleanup(func() { c.Close() })
	return c
}

// must ends the test unless a call was answered.
func must[R any](r R, err error) R {
	if err != nil {
		panic(err)
	}
	return r
}

// has says whether there is such a key.
func has(t *testing.T, c *clientv3.Client, key string) bool {
	t.Helper()
	return must(get(t.Context(), c, key))
}

func get(ctx context.Context, c *clientv3.Client, key string) (bool, error) {
	r, err := c.Get(ctx, key)
	return err == nil && r.Count == 1, err
}

// Every member grants, renews, lists and revokes, and knows what a lease has left,
// whoever leads; with one member and with three.
func TestLeasesOnEveryMember(t *testing.T) {
	for _, size := range []int{1, 3} {
		tb := newTable(t, size)
		tb.start("new", tb.seats...)
		tb.put(tb.leader(), "plain", "p")
		for _, s := range tb.seats {
			c := tb.official(s)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			granted := must(c.Grant(ctx, 60))
			if granted.TTL != 60 || granted.ID <= 0 || granted.Revision == 0 {
				t.Fatalf("granted %+v", granted)
			}
			for _, key := range []string{"b", "a"} {
				must(c.Put(ctx, key, "x", clientv3.WithLease(granted.ID)))
			}
			left := must(c.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys()))
			if left.TTL < 50 || left.TTL > 60 || left.GrantedTTL != 60 || !slices.EqualFunc(left.Keys, []string{"a", "b"}, func(k []byte, s string) bool { return string(k) == s }) {
				t.Errorf("%s: left %+v", s.name, left)
			}
			if renewed := must(c.KeepAliveOnce(ctx, granted.ID)); renewed.TTL != 60 || renewed.ID != granted.ID || renewed.Revision == 0 {
				t.Errorf("%s: renewed %+v", s.name, renewed)
			}
			if list := must(c.Leases(ctx)); len(list.Leases) != 1 || list.Leases[0].ID != granted.ID {
				t.Errorf("%s: leases %+v", s.name, list)
			}
			before := must(c.Get(ctx, "plain")).Header.Revision
			if revoked := must(c.Revoke(ctx, granted.ID)); revoked.Header.Revision != before+1 {
				t.Errorf("%s: revoked at %d, want %d", s.name, revoked.Header.Revision, before+1)
			}
			if has(t, c, "a") || has(t, c, "b") || !has(t, c, "plain") {
				t.Errorf("%s: the keys of the lease are not gone, or others are", s.name)
			}
			if left := must(c.TimeToLive(ctx, granted.ID)); left.TTL != -1 || left.GrantedTTL != 0 {
				t.Errorf("%s: of a lease that is gone are left %+v", s.name, left)
			}
			_, err := c.KeepAliveOnce(ctx, granted.ID)
			if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				t.Errorf("%s: renewed a lease that is gone: %v", s.name, err)
			}
			tb.refusedLeases(ctx, s)
		}
	}
}

// refusedLeases asks for what cannot be had, and for odd things that can.
func (tb *table) refusedLeases(ctx context.Context, s *seat) {
	tb.t.Helper()
	door := pb.NewLeaseClient(s.conn)
	grant := func(ttl, name int64) (*pb.LeaseGrantResponse, error) {
		return door.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl, ID: name})
	}
	if odd := must(grant(-7, -7)); odd.ID != -7 || odd.TTL != 1 { // 1.5 times 200 ms, in whole seconds
		tb.t.Errorf("granted %+v", odd)
	}
	for want, call := range map[error]func() error{
		rpctypes.ErrGRPCLeaseExist:       func() error { _, err := grant(5, -7); return err },
		rpctypes.ErrGRPCLeaseTTLTooLarge: func() error { _, err := grant(9_000_000_001, -7); return err },
		rpctypes.ErrGRPCLeaseNotFound:    func() error { _, err := door.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 404}); return err },
	} {
		if err := call(); !errors.Is(err, want) {
			tb.t.Errorf("%s: %v, want %v", s.name, err, want)
		}
	}
	must(door.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: -7}))
	longest := must(grant(9_000_000_000, 0))
	left := must(door.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: longest.ID}))
	if left.TTL < 8_999_999_900 || left.GrantedTTL != 9_000_000_000 {
		tb.t.Errorf("the longest lease has left %+v", left)
	}
	must(door.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: longest.ID}))
}

// A lease lasts as long as somebody renews it, through any member, and its keys are
// gone soon after, not before: TTL and a bound that is stated in docs/guide.
func TestALeaseLastsWhileItIsRenewed(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	leader := tb.leader()
	for _, s := range tb.seats {
		if s == leader {
			continue
		}
		c := tb.official(s)
		granted := must(c.Grant(t.Context(), 1))
		must(c.Put(t.Context(), "k", "x", clientv3.WithLease(granted.ID)))
		ctx, stop := context.WithCancel(t.Context())
		renewals := must(c.KeepAlive(ctx, granted.ID))
		begun, asked := time.Now(), time.Time{}
		for time.Since(begun) < 2*time.Second {
			if r := <-renewals; r == nil || r.TTL != 1 {
				t.Fatalf("renewed %+v", r)
			}
			asked = time.Now()
		}
		stop()
		// The last question was asked after the one before was answered.
		tb.eventually("the end of the lease", func(context.Context) bool { return !has(t, c, "k") })
		if lasted := time.Since(asked); lasted < 500*time.Millisecond || lasted > 2*time.Second {
			t.Errorf("%s: it lasted %v after the last renewal", s.name, lasted)
		}
		if list := must(c.Leases(t.Context())); len(list.Leases) != 0 {
			t.Errorf("%s: leases %+v", s.name, list)
		}
		return
	}
}

// etcd #13508, #15247: a lease whose leader is lost has all of its time again with
// the next one, and one that is renewed all the while never ends.
func TestALeaseOutlivesItsLeader(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	c := tb.official(tb.seats...)
	kept := must(c.Grant(t.Context(), 2))
	left := must(c.Grant(t.Context(), 2))
	must(c.Put(t.Context(), "kept", "x", clientv3.WithLease(kept.ID)))
	renewals := must(c.KeepAlive(t.Context(), kept.ID))
	must(c.Put(t.Context(), "left", "x", clientv3.WithLease(left.ID)))
	<-renewals
	gone := tb.leader()
	stopped := time.Now() // the next leader begins later than this: leadership is handed over while the member stops
	gone.stop()
	ask := func(key string) (there bool) {
		tb.eventually("a get of "+key, func(ctx context.Context) bool {
			var err error
			there, err = get(ctx, c, key)
			return err == nil
		})
		return there
	}
	tb.eventually("the end of what nobody renews", func(context.Context) bool { return !ask("left") })
	if lasted := time.Since(stopped); lasted < 2*time.Second || lasted > 8*time.Second {
		t.Errorf("it lasted %v with the next leader", lasted)
	}
	if !ask("kept") {
		t.Error("what was renewed all the while is gone")
	}
	for range 2 {
		if r := <-renewals; r == nil || r.TTL != 2 {
			t.Errorf("renewed %+v", r)
		}
	}
}

// So many leases (KVORUM_LEASES) with a key each end together: how late they are, and
// what becomes of puts meanwhile.
func TestManyLeasesEndTogether(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("KVORUM_LEASES"))
	if err != nil {
		t.Skip("KVORUM_LEASES is not set: a measurement")
	}
	const ttl = 45
	m := startMember(t, t.TempDir())
	leases, kvs := pb.NewLeaseClient(m.conn), pb.NewKVClient(m.conn)
	put := func(key string, lease int64) time.Duration {
		begun := time.Now()
		must(kvs.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Lease: lease}))
		return time.Since(begun)
	}
	const streams = 100
	var all sync.WaitGroup
	for s := range streams {
		all.Go(func() {
			for i := s; i < count; i += streams {
				must(leases.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: int64(i + 1), TTL: ttl}))
				put(fmt.Sprintf("k/%07d", i), int64(i+1))
				if i%1000 == 0 {
					must(leases.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: int64(i + 1)}))
				}
			}
		})
	}
	all.Wait()
	quiet := quantile(t, func() time.Duration { return put("other", 0) }, 2000)
	begun := time.Now()
	for s := range streams {
		all.Go(func() {
			stream := must(leases.LeaseKeepAlive(t.Context()))
			go func() {
				for i := s; i < count; i += streams {
					if stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(i + 1)}) != nil {
						return
					}
				}
				stream.CloseSend()
			}()
			for i := s; i < count; i += streams {
				if r := must(stream.Recv()); r.TTL != ttl && r.TTL != 0 {
					t.Errorf("renewed %+v", r)
				}
			}
		})
	}
	all.Wait()
	renewed := time.Since(begun)
	end := time.Now().Add(ttl * time.Second)
	left := func() int64 {
		return must(kvs.Range(t.Context(), &pb.RangeRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), CountOnly: true})).Count
	}
	there := left()
	time.Sleep(time.Until(end.Add(-renewed - 100*time.Millisecond))) // not a synchronisation: nothing happens until then
	busy := quantile(t, func() time.Duration {
		if time.Since(end) > time.Second && left() == 0 {
			return -1
		}
		return put("other", 0)
	}, 1<<20)
	for left() > 0 {
	}
	t.Logf("%d leases, renewed in %v (%.0f/s); the last of %d keys gone %v after its time; put p99 %v, quiet %v",
		count, renewed, float64(count)/renewed.Seconds(), there, time.Since(end), busy, quiet)
}

// quantile is the 99th percentile of up to so many measurements; -1 ends them.
func quantile(t *testing.T, measure func() time.Duration, most int) time.Duration {
	t.Helper()
	var list []time.Duration
	for len(list) < most {
		took := measure()
		if took < 0 {
			break
		}
		list = append(list, took)
	}
	slices.Sort(list)
	return list[len(list)*99/100]
}
