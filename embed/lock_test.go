package embed

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lockpb "github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
)

// called calls a method that has no generated client.
func called[R any](ctx context.Context, conn *grpc.ClientConn, method string, in any) (*R, error) {
	out := new(R)
	if err := conn.Invoke(ctx, method, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

func lock(ctx context.Context, conn *grpc.ClientConn, name string, lease int64) (*lockpb.LockResponse, error) {
	return called[lockpb.LockResponse](ctx, conn, lockpb.LockMethod, &lockpb.LockRequest{Name: []byte(name), Lease: lease})
}

func unlock(ctx context.Context, conn *grpc.ClientConn, key string) (*lockpb.UnlockResponse, error) {
	return called[lockpb.UnlockResponse](ctx, conn, lockpb.UnlockMethod, &lockpb.UnlockRequest{Key: []byte(key)})
}

// endedWith says how a call ended, code and text.
func endedWith(_ any, err error) string {
	return fmt.Sprintf("%v: %s", status.Code(err), status.Convert(err).Message())
}

// grant makes a lease of a minute.
func grant(t *testing.T, conn *grpc.ClientConn, lease int64) {
	t.Helper()
	must(pb.NewLeaseClient(conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: lease, TTL: 60}))
}

// keys are those with a prefix, in the order of their creation.
func keys(ctx context.Context, conn *grpc.ClientConn, prefix string) (list []string) {
	r := must(pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{
		Key: []byte(prefix), RangeEnd: append([]byte(prefix)[:len(prefix)-1:len(prefix)-1], prefix[len(prefix)-1]+1),
		SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND,
	}))
	for _, kv := range r.Kvs {
		list = append(list, string(kv.Key))
	}
	return list
}

// begin starts a call, and returns once a key stands in line on its account.
func begin[R any](tb *table, conn *grpc.ClientConn, key string, call func() (*R, error)) <-chan result[R] {
	tb.t.Helper()
	done := make(chan result[R], 1)
	go func() {
		r, err := call()
		done <- result[R]{r, err}
	}()
	line := key[:strings.LastIndexByte(key, '/')+1]
	tb.eventually(key, func(ctx context.Context) bool { return slices.Contains(keys(ctx, conn, line), key) })
	return done
}

type result[R any] struct {
	answer *R
	err    error
}

// await takes the result of a call.
func await[R any](t *testing.T, what string, done <-chan result[R]) result[R] {
	t.Helper()
	select {
	case r := <-done:
		return r
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// What spec 8 says of Lock and Unlock, at either door of a member.
func TestLocksAtBothDoors(t *testing.T) {
	m := startMember(t, t.TempDir())
	hot, plain := doors(t, m)
	for i, conn := range []*grpc.ClientConn{hot, plain} {
		ctx, name := t.Context(), fmt.Sprintf("door%d", i)
		grant(t, conn, 0xabc)
		grant(t, conn, -0xabc)
		got := must(lock(ctx, conn, name, 0xabc))
		if string(got.Key) != name+"/abc" || got.Header.MemberId != uint64(m.home.Member) || got.Header.ClusterId == 0 || got.Header.RaftTerm == 0 {
			t.Errorf("locked: %v", got)
		}
		kv := must(pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: got.Key})).Kvs[0]
		if kv.CreateRevision != got.Header.Revision || kv.Lease != 0xabc || len(kv.Value) != 0 {
			t.Errorf("its key: %v, and it is fenced by %d", kv, got.Header.Revision)
		}
		if again := must(lock(ctx, conn, name, 0xabc)); string(again.Key) != string(got.Key) || again.Header.Revision != got.Header.Revision {
			t.Errorf("locked again: %v, before %v", again, got)
		}
		if free := must(unlock(ctx, conn, name+"/abc")); free.Header.Revision != got.Header.Revision+1 {
			t.Errorf("unlocked: %v", free)
		}
		if free := must(unlock(ctx, conn, name+"/abc")); free.Header.Revision != got.Header.Revision+1 {
			t.Errorf("unlocked again: %v", free)
		}
		if odd := must(lock(ctx, conn, name, -0xabc)); string(odd.Key) != name+"/-abc" {
			t.Errorf("with a negative lease: %v", odd)
		}
		if odd := must(lock(ctx, conn, "", 0xabc)); string(odd.Key) != "/abc" {
			t.Errorf("without a name: %v", odd)
		}
		for _, refused := range []struct{ got, want string }{
			{endedWith(lock(ctx, conn, name+"x", 404)), "Unknown: etcdserver: requested lease not found"},
			{endedWith(unlock(ctx, conn, "")), "Unknown: etcdserver: key is not provided"},
		} {
			if refused.got != refused.want {
				t.Errorf("refused with %q, want %q", refused.got, refused.want)
			}
		}
		leases := pb.NewLeaseClient(conn)
		for _, lease := range []int64{0xabc, -0xabc} {
			must(leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease}))
		}
		own := must(lock(ctx, conn, name, 0))
		drawn := must(leases.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})).Leases[0].ID
		left := must(leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: drawn, Keys: true}))
		if left.GrantedTTL != 60 || len(left.Keys) != 1 || string(left.Keys[0]) != string(own.Key) || string(own.Key) != fmt.Sprintf("%s/%x", name, drawn) {
			t.Errorf("without a lease: %v, whose lease has %v", own, left)
		}
		must(leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: drawn}))
	}
}

// Those who wait come to their turn in the order in which they came, through whichever
// member, and each is fenced off from those before. Some give up meanwhile, and
// one loses its lease.
func TestALockGoesDownTheLine(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	tb.leader()
	conn := func(i int) *grpc.ClientConn { return tb.seats[i%3].conn }
	const callers = 8
	var calls [callers]<-chan result[lockpb.LockResponse]
	var ends [callers]context.CancelFunc
	for i := range callers {
		lease := int64(i + 1)
		tb.eventually("a lease", func(ctx context.Context) bool {
			_, err := pb.NewLeaseClient(conn(i)).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: lease, TTL: 60})
			return err == nil
		})
		ctx, end := context.WithCancel(t.Context())
		defer end()
		ends[i] = end
		calls[i] = begin(tb, conn(i+1), fmt.Sprintf("l/%x", lease), func() (*lockpb.LockResponse, error) { return lock(ctx, conn(i), "l", lease) })
	}
	// The key of one that leaves goes at once; its lease stays.
	ends[3]()
	tb.eventually("the key of one who left to go", func(ctx context.Context) bool { return !slices.Contains(keys(ctx, conn(0), "l/"), "l/4") })
	if err := await(t, "one who left", calls[3]).err; status.Code(err) != codes.Canceled {
		t.Errorf("one who left: %v", err)
	}
	must(pb.NewLeaseClient(conn(0)).LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 6}))
	// History goes while they wait: what they wait for is still to come.
	now := must(pb.NewKVClient(conn(0)).Put(t.Context(), &pb.PutRequest{Key: []byte("other")})).Header.Revision
	must(pb.NewKVClient(conn(0)).Compact(t.Context(), &pb.CompactionRequest{Revision: now, Physical: true}))
	var fence int64
	for _, i := range []int{0, 1, 2, 4, 6, 7} {
		got := await(t, fmt.Sprintf("the turn of %d", i), calls[i])
		if got.err != nil {
			t.Fatalf("%d: %v", i, got.err)
		}
		if string(got.answer.Key) != fmt.Sprintf("l/%x", i+1) || got.answer.Header.Revision <= fence {
			t.Errorf("%d: %v, the one before had %d", i, got.answer, fence)
		}
		// Who has it may ask again: that is a fence too.
		fence = must(lock(t.Context(), conn(i+2), "l", int64(i+1))).Header.Revision
		for later := i + 1; later < callers; later++ {
			if later != 3 && len(calls[later]) > 0 {
				t.Errorf("%d has it, and %d was answered", i, later)
			}
		}
		switch i {
		case 0: // the lease instead of the key
			must(pb.NewLeaseClient(conn(i)).LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 1}))
		default:
			must(unlock(t.Context(), conn(i+1), string(got.answer.Key)))
		}
	}
	if got := endedWith(nil, await(t, "the one without a lease", calls[5]).err); got != "Unknown: mutex: session is expired" {
		t.Errorf("the one without a lease: %s", got)
	}
	if left := keys(t.Context(), conn(0), "l/"); len(left) != 0 {
		t.Errorf("there are left %q", left)
	}
}

// Waits outlive a leader, and end with a member that stops: its callers go to another
// one, with no key left behind.
func TestWaitsAndMembersThatStop(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	leader := tb.leader()
	var stays *seat
	for _, s := range tb.seats {
		if s != leader {
			stays = s
		}
	}
	for lease := range int64(3) {
		grant(t, stays.conn, lease+1)
	}
	must(lock(t.Context(), stays.conn, "l", 1))
	there := begin(tb, stays.conn, "l/2", func() (*lockpb.LockResponse, error) { return lock(t.Context(), leader.conn, "l", 2) })
	here := begin(tb, stays.conn, "l/3", func() (*lockpb.LockResponse, error) { return lock(t.Context(), stays.conn, "l", 3) })
	if err := leader.Close(); err != nil {
		t.Fatal(err)
	}
	leader.Server = nil
	if got := await(t, "the wait at a member that stops", there); status.Code(got.err) != codes.Unavailable {
		t.Errorf("the wait at a member that stops: %v, %v", got.answer, got.err)
	}
	tb.eventually("its key to go", func(ctx context.Context) bool {
		r, err := pb.NewKVClient(stays.conn).Range(ctx, &pb.RangeRequest{Key: []byte("l/2")})
		return err == nil && r.Count == 0
	})
	tb.eventually("the lock to be free", func(ctx context.Context) bool {
		_, err := unlock(ctx, stays.conn, "l/1")
		return err == nil
	})
	if got := await(t, "the other wait", here); got.err != nil || string(got.answer.Key) != "l/3" {
		t.Errorf("the other wait: %v, %v", got.answer, got.err)
	}
}

// A caller whose time ends while nobody can say whether its key was made leaves none
// behind, once there is a majority again.
func TestACallThatEndsBeforeItsKeyIsMade(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	tb.leader()
	last := tb.seats[0]
	grant(t, last.conn, 1)
	grant(t, last.conn, 2)
	for _, s := range tb.seats[1:] {
		s.stop()
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := lock(short, last.conn, "l", 1); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("without a majority: %v", err)
	}
	tb.start("new", tb.seats[1])
	ctx, end := context.WithTimeout(t.Context(), 20*time.Second)
	defer end()
	tb.put(last, "other", "x")
	if _, err := lock(ctx, tb.seats[1].conn, "l", 2); err != nil {
		t.Errorf("the lock is not free: %v", err)
	}
}
