package embed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// seat is a member's place in a test's cluster: it may be empty.
type seat struct {
	*member
	name, dir, client, peer string
	// version, if it is set, is what its program passes for.
	version string
	// flags are more that this member alone is given.
	flags []string
}

// table is a cluster of real members in this process.
type table struct {
	t     *testing.T
	seats []*seat
	// scheme is that of all URLs; flags are more that every member is given, and
	// credentials are what a client has.
	scheme      string
	flags       []string
	credentials credentials.TransportCredentials
	log         slog.Handler
}

func newTable(t *testing.T, seats int) *table {
	tb := &table{t: t, scheme: "http://", credentials: insecure.NewCredentials(), log: slog.DiscardHandler}
	for range seats {
		tb.add()
	}
	return tb
}

func (tb *table) add() *seat {
	s := &seat{name: fmt.Sprintf("n%d", len(tb.seats)+1), dir: tb.t.TempDir(), client: ports.Reserve(tb.t), peer: ports.Reserve(tb.t)}
	tb.seats = append(tb.seats, s)
	return s
}

// start starts the members of some seats at once; state is new or existing.
func (tb *table) start(state string, seats ...*seat) {
	tb.t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, len(seats))
	for i, s := range seats {
		wg.Go(func() { errs[i] = tb.startOne(state, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		tb.t.Fatal(err)
	}
}

func (tb *table) startOne(state string, s *seat) error {
	var all []string
	for _, other := range tb.seats {
		all = append(all, other.name+"="+tb.scheme+other.peer)
	}
	cfg, _, err := config.Parse(append([]string{
		"--name", s.name, "--data-dir", s.dir, "--listen-client-urls", tb.scheme + s.client, "--advertise-client-urls", tb.scheme + s.client,
		"--listen-peer-urls", tb.scheme + s.peer, "--initial-advertise-peer-urls", tb.scheme + s.peer,
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", state, "--heartbeat-interval", "20", "--election-timeout", "200",
	}, slices.Concat(tb.flags, s.flags)...), nil, os.ReadFile)
	if err != nil {
		return err
	}
	server, err := start(cfg, slog.New(tb.log), cmp.Or(s.version, config.ServerVersion))
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(s.client, grpc.WithTransportCredentials(tb.credentials))
	if err != nil {
		return err
	}
	s.member = &member{Server: server, client: s.client, conn: conn}
	tb.t.Cleanup(s.member.stop)
	return nil
}

func (s *seat) id() uint64 { return uint64(s.Server.home.Member) }

// eventually asks until it is told so.
func (tb *table) eventually(what string, so func(context.Context) bool) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.t.Context(), 20*time.Second)
	defer cancel()
	for !so(ctx) {
		select {
		case <-ctx.Done():
			tb.t.Fatalf("waited in vain: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (tb *table) put(s *seat, key, value string) {
	tb.t.Helper()
	tb.eventually("a put by "+s.name, func(ctx context.Context) bool {
		_, err := pb.NewKVClient(s.conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
		return err == nil
	})
}

// everywhere reads a key on all seats that are taken, linearizably.
func (tb *table) everywhere(key, want string) {
	tb.t.Helper()
	for _, s := range tb.seats {
		if s.member == nil || s.member.Server == nil {
			continue
		}
		tb.eventually("a get by "+s.name, func(ctx context.Context) bool {
			r, err := pb.NewKVClient(s.conn).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
			if err != nil {
				return false
			}
			if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != want {
				tb.t.Fatalf("%s has %v, want %s", s.name, r.Kvs, want)
			}
			return true
		})
	}
}

func (tb *table) leader() *seat {
	tb.t.Helper()
	var leader *seat
	tb.eventually("a leader", func(context.Context) bool {
		for _, s := range tb.seats {
			if s.member != nil && s.member.Server != nil && s.group.Leader() == s.home.Member {
				leader = s
			}
		}
		return leader != nil
	})
	return leader
}

// Three members form a cluster, serve on each, outlive the loss of their leader,
// and take it back.
func TestThreeMembersLoseTheirLeader(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	for i, s := range tb.seats {
		tb.put(s, "a", fmt.Sprint(i))
		tb.everywhere("a", fmt.Sprint(i))
	}
	gone := tb.leader()
	gone.stop()
	for i, s := range tb.seats {
		if s != gone {
			tb.put(s, "b", fmt.Sprint(i))
			tb.everywhere("b", fmt.Sprint(i))
		}
	}
	tb.start("new", gone)
	tb.put(gone, "c", "back")
	tb.everywhere("c", "back")
}

// endsRemoved waits until a member ends because it is none any more.
func (tb *table) endsRemoved(s *seat) {
	tb.t.Helper()
	select {
	case err := <-s.Failed():
		if !errors.Is(err, errRemoved) {
			tb.t.Errorf("the removed member ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		tb.t.Error("the removed member does not end")
	}
	s.stop()
}

// The life of a fourth member: added, started, removed; and of a learner in its
// place: added, following, promoted, leading.
func TestMembersComeAndGo(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	tb.put(tb.seats[0], "a", "1")
	ctx := t.Context()
	cluster := func(i int) pb.ClusterClient { return pb.NewClusterClient(tb.seats[i].conn) }
	refused := func(what string, err error, code codes.Code, text string) {
		t.Helper()
		if status.Code(err) != code || status.Convert(err).Message() != text {
			t.Errorf("%s: %v, want %v %s", what, err, code, text)
		}
	}
	fourth := tb.add()
	url := []string{"http://" + fourth.peer}
	// All three must have been connected for five seconds.
	_, err := cluster(0).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: url})
	refused("an addition too soon", err, codes.Unavailable, "etcdserver: unhealthy cluster")
	_, err = cluster(1).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"127.0.0.1:1"}})
	refused("an addition without a scheme", err, codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	var added *pb.MemberAddResponse
	tb.eventually("an addition", func(ctx context.Context) bool {
		added, err = cluster(1).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: url})
		return err == nil
	})
	if len(added.Members) != 4 || added.Member.Name != "" || added.Member.ID == 0 || added.Header.Revision != 0 {
		t.Fatalf("added: %v", added)
	}
	tb.start("existing", fourth)
	tb.everywhere("a", "1")
	if fourth.id() != added.Member.ID {
		t.Errorf("it is %x, and was added as %x", fourth.id(), added.Member.ID)
	}

	_, err = cluster(2).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: fourth.id()})
	refused("a promotion of a voter", err, codes.FailedPrecondition, "etcdserver: can only promote a learner member")
	_, err = cluster(2).MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: fourth.id(), PeerURLs: []string{"http://" + tb.seats[0].peer}})
	refused("an update to another's URL", err, codes.FailedPrecondition, "etcdserver: Peer URLs already exists")
	if _, err := cluster(2).MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: fourth.id(), PeerURLs: url}); err != nil {
		t.Errorf("an update: %v", err)
	}
	removed, err := cluster(2).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: fourth.id()})
	if err != nil || len(removed.Members) != 3 {
		t.Fatalf("removed: %v, %v", removed, err)
	}
	tb.endsRemoved(fourth)
	// It has read that itself, so nobody has to tell it once more.
	if err := tb.startOne("existing", fourth); err == nil {
		tb.endsRemoved(fourth)
	} else if !errors.Is(err, errRemoved) {
		t.Errorf("the removed member starts again and ends with %v", err)
	}
	_, err = cluster(0).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: added.Member.ID})
	refused("a second removal", err, codes.NotFound, "etcdserver: member not found")

	fourth.dir = t.TempDir()
	var learner *pb.MemberAddResponse
	tb.eventually("a learner", func(ctx context.Context) bool {
		learner, err = cluster(0).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: url, IsLearner: true})
		return err == nil
	})
	tb.start("existing", fourth)
	_, err = pb.NewKVClient(fourth.conn).Range(ctx, &pb.RangeRequest{Key: []byte("a")})
	refused("a linearizable read of a learner", err, codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
	tb.eventually("a promotion", func(ctx context.Context) bool {
		_, err := cluster(0).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: learner.Member.ID})
		return err == nil
	})
	tb.everywhere("a", "1")
	if _, err := pb.NewMaintenanceClient(tb.leader().conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: fourth.id()}); err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewMaintenanceClient(fourth.conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 7}); status.Convert(err).Message() != "etcdserver: bad leader transferee" {
		t.Errorf("a move to nobody: %v", err)
	}
	tb.put(fourth, "b", "2")
	tb.everywhere("b", "2")
}
