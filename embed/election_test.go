package embed

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lockpb "github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
)

func campaign(ctx context.Context, conn *grpc.ClientConn, name string, lease int64, value string) (*lockpb.CampaignResponse, error) {
	return called[lockpb.CampaignResponse](ctx, conn, lockpb.CampaignMethod, &lockpb.CampaignRequest{Name: []byte(name), Lease: lease, Value: []byte(value)})
}

func proclaim(ctx context.Context, conn *grpc.ClientConn, leader *lockpb.LeaderKey, value string) (*lockpb.ProclaimResponse, error) {
	return called[lockpb.ProclaimResponse](ctx, conn, lockpb.ProclaimMethod, &lockpb.ProclaimRequest{Leader: leader, Value: []byte(value)})
}

func resign(ctx context.Context, conn *grpc.ClientConn, leader *lockpb.LeaderKey) (*lockpb.ResignResponse, error) {
	return called[lockpb.ResignResponse](ctx, conn, lockpb.ResignMethod, &lockpb.ResignRequest{Leader: leader})
}

func leads(ctx context.Context, conn *grpc.ClientConn, name string) (*lockpb.LeaderResponse, error) {
	return called[lockpb.LeaderResponse](ctx, conn, lockpb.LeaderMethod, &lockpb.LeaderRequest{Name: []byte(name)})
}

// observed follows an election: next is who leads, as key=value.
type observed struct{ stream grpc.ClientStream }

func observe(t *testing.T, conn *grpc.ClientConn, name string) *observed {
	t.Helper()
	stream := must(conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, lockpb.ObserveMethod))
	if err := stream.SendMsg(&lockpb.LeaderRequest{Name: []byte(name)}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return &observed{stream}
}

func (o *observed) next(t *testing.T) string {
	t.Helper()
	r := new(lockpb.LeaderResponse)
	if err := o.stream.RecvMsg(r); err != nil {
		t.Fatal(err)
	}
	if r.Header.Revision < r.Kv.ModRevision {
		t.Errorf("told of revision %d: %v", r.Header.Revision, r.Kv)
	}
	return fmt.Sprintf("%s=%s", r.Kv.Key, r.Kv.Value)
}

// What spec 8 says of elections with one candidate, at either door of a member.
func TestElectionsAtBothDoors(t *testing.T) {
	m := startMember(t, t.TempDir())
	hot, plain := doors(t, m)
	for i, conn := range []*grpc.ClientConn{hot, plain} {
		ctx, name := t.Context(), fmt.Sprintf("door%d", i)
		lease := int64(i + 1)
		grant(t, conn, lease)
		key := fmt.Sprintf("%s/%d", name, lease)
		if got := endedWith(leads(ctx, conn, name)); got != "Unknown: election: no leader" {
			t.Errorf("before it: %s", got)
		}
		won := must(campaign(ctx, conn, name, lease, "a"))
		if l := won.Leader; string(l.Name) != name || string(l.Key) != key || l.Lease != lease || l.Rev != won.Header.Revision || won.Header.MemberId == 0 {
			t.Errorf("elected: %v", won)
		}
		is := must(leads(ctx, conn, name))
		if string(is.Kv.Key) != key || string(is.Kv.Value) != "a" || is.Kv.CreateRevision != won.Leader.Rev || is.Kv.Lease != lease || is.Header.Revision != won.Header.Revision {
			t.Errorf("who leads: %v", is)
		}
		told := observe(t, conn, name)
		if got := told.next(t); got != key+"=a" {
			t.Errorf("told: %s", got)
		}
		if again := must(campaign(ctx, conn, name, lease, "a")); again.Header.Revision != won.Header.Revision || again.Leader.Rev != won.Leader.Rev {
			t.Errorf("elected again: %v", again)
		}
		if again := must(campaign(ctx, conn, name, lease, "b")); again.Leader.Rev != won.Leader.Rev {
			t.Errorf("elected again with another value: %v", again)
		}
		if got := told.next(t); got != key+"=b" {
			t.Errorf("told: %s", got)
		}
		if kv := must(leads(ctx, conn, name)).Kv; string(kv.Value) != "b" || kv.Version != 2 {
			t.Errorf("its value: %v", kv)
		}
		if said := must(proclaim(ctx, conn, won.Leader, "c")); said.Header.Revision != won.Header.Revision+2 {
			t.Errorf("proclaimed: %v", said)
		}
		stale := &lockpb.LeaderKey{Name: []byte(name), Key: []byte(key), Rev: won.Leader.Rev - 1, Lease: lease}
		gone := &lockpb.LeaderKey{Key: []byte(key), Rev: won.Leader.Rev, Lease: 404}
		for _, refused := range []struct{ got, want string }{
			{endedWith(proclaim(ctx, conn, nil, "x")), `Unknown: "leader" field must be provided`},
			{endedWith(resign(ctx, conn, nil)), `Unknown: "leader" field must be provided`},
			{endedWith(proclaim(ctx, conn, stale, "x")), "Unknown: election: not leader"},
			{endedWith(proclaim(ctx, conn, gone, "x")), "Unknown: etcdserver: requested lease not found"},
			{endedWith(proclaim(ctx, conn, &lockpb.LeaderKey{Lease: lease}, "x")), "Unknown: etcdserver: key is not provided"},
			{endedWith(campaign(ctx, conn, name, 404, "x")), "Unknown: etcdserver: requested lease not found"},
			{endedWith(resign(ctx, conn, stale)), "OK: "},
		} {
			if refused.got != refused.want {
				t.Errorf("refused with %q, want %q", refused.got, refused.want)
			}
		}
		// Without a lease of its own a proclamation moves the key to a new one.
		free := &lockpb.LeaderKey{Key: []byte(key), Rev: won.Leader.Rev}
		must(proclaim(ctx, conn, free, "d"))
		if kv := must(leads(ctx, conn, name)).Kv; kv.Lease == lease || kv.Lease == 0 || string(kv.Value) != "d" {
			t.Errorf("proclaimed without a lease: %v", kv)
		}
		if out := must(resign(ctx, conn, won.Leader)); out.Header.Revision != won.Header.Revision+4 {
			t.Errorf("resigned: %v", out)
		}
		if own := must(campaign(ctx, conn, name, 0, "e")).Leader; own.Lease == 0 || string(own.Key) != fmt.Sprintf("%s/%x", name, own.Lease) {
			t.Errorf("elected without a lease: %v", own)
		}
	}
}

// One candidate after the other leads; who observes learns of each, and of all they
// proclaim, in order, wherever it asks. One loses its lease before its time comes.
func TestAnElectionGoesDownTheLine(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	tb.leader()
	ctx := t.Context()
	conn := func(i int) *grpc.ClientConn { return tb.seats[i%3].conn }
	tb.put(tb.seats[0], "e", "not a candidate")
	early := []*observed{observe(t, conn(0), "e"), observe(t, conn(1), "e")}
	const candidates = 5
	var calls [candidates]<-chan result[lockpb.CampaignResponse]
	for i := range candidates {
		lease := int64(i + 1)
		grant(t, conn(i), lease)
		end, cancel := context.WithCancel(ctx)
		defer cancel()
		calls[i] = begin(tb, conn(i+1), fmt.Sprintf("e/%d", lease), func() (*lockpb.CampaignResponse, error) {
			return campaign(end, conn(i), "e", lease, fmt.Sprint("candidate ", i))
		})
		if i == 2 {
			cancel()
			if err := await(t, "one who left", calls[i]).err; status.Code(err) != codes.Canceled {
				t.Errorf("one who left: %v", err)
			}
		}
	}
	tb.eventually("the key of one who left to go", func(ctx context.Context) bool { return len(keys(ctx, conn(0), "e/")) == candidates-1 })
	must(pb.NewLeaseClient(conn(0)).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 4}))
	var rev int64
	var told []string
	for _, i := range []int{0, 1, 4} {
		got := await(t, fmt.Sprintf("the election of %d", i), calls[i])
		if got.err != nil {
			t.Fatalf("%d: %v", i, got.err)
		}
		leader := got.answer.Leader
		if leader.Rev <= rev {
			t.Errorf("%d: %v, the one before had %d", i, leader, rev)
		}
		rev = leader.Rev
		told = append(told, fmt.Sprintf("e/%d=candidate %d", i+1, i))
		for n := range 3 {
			must(proclaim(ctx, conn(i+n), leader, fmt.Sprint(n)))
			told = append(told, fmt.Sprintf("e/%d=%d", i+1, n))
		}
		must(resign(ctx, conn(i+2), leader))
	}
	if got := endedWith(nil, await(t, "the one without a lease", calls[3]).err); got != "Unknown: election: session is expired" {
		t.Errorf("the one without a lease: %s", got)
	}
	late := must(campaign(ctx, conn(0), "e", 1, "late"))
	told = append(told, "e/1=late")
	for i, o := range early {
		for n, want := range told {
			if got := o.next(t); got != want {
				t.Fatalf("observer %d, %d: %s, want %s", i, n, got, want)
			}
		}
	}
	if got := observe(t, conn(2), "e").next(t); got != "e/1=late" {
		t.Errorf("who observes late is told %s", got)
	}
	must(resign(ctx, conn(0), late.Leader))
}

// Who observes and does not read for a while is told of every leader and every value
// all the same; if compaction passes it meanwhile, of the one that leads then.
func TestWhoObservesSlowlyMissesNothing(t *testing.T) {
	m := startMember(t, t.TempDir())
	ctx := t.Context()
	grant(t, m.conn, 1)
	grant(t, m.conn, 2)
	// Longer than what the connection holds that nobody reads.
	long := strings.Repeat("x", 100<<10)
	var told []string
	rounds := func(n int) (last int64) {
		for i := range n {
			lease, value := int64(i%2+1), fmt.Sprint(i, long)
			won := must(campaign(ctx, m.conn, "e", lease, value))
			said := must(proclaim(ctx, m.conn, won.Leader, value+"!"))
			told = append(told, fmt.Sprintf("e/%d=%s", lease, value), fmt.Sprintf("e/%d=%s!", lease, value))
			last = said.Header.Revision
			if i < n-1 {
				must(resign(ctx, m.conn, won.Leader))
			}
		}
		return last
	}
	slow := observe(t, m.conn, "e")
	rounds(10)
	for i, want := range told {
		if got := slow.next(t); got != want {
			t.Fatalf("%d: %.20s and %d bytes, want %.20s and %d", i, got, len(got), want, len(want))
		}
	}
	must(resign(ctx, m.conn, &lockpb.LeaderKey{Key: []byte("e/2"), Rev: must(leads(ctx, m.conn, "e")).Kv.CreateRevision}))
	told = nil
	last := rounds(10)
	must(pb.NewKVClient(m.conn).Compact(ctx, &pb.CompactionRequest{Revision: last, Physical: true}))
	seen := 0
	for got := ""; got != told[len(told)-1]; seen++ {
		got = slow.next(t)
		if at := slices.Index(told, got); at < 0 || at < seen {
			t.Fatalf("told of %.20s after %d", got, seen)
		}
	}
	if seen == len(told) {
		t.Error("compaction did not pass it")
	}
}
