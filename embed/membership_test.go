package embed

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// versions is what a port tells of versions; empty if nobody answers there.
func versions(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get("http://" + address + "/version")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// told waits until both ports of a seat tell these versions.
func (tb *table) told(s *seat, want string) {
	tb.t.Helper()
	for _, address := range []string{s.client, s.peer} {
		tb.eventually("versions "+want+" of "+s.name, func(context.Context) bool { return versions(tb.t, address) == want })
	}
}

// refusedWith checks the code and the whole text of a refusal.
func refusedWith(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || status.Convert(err).Message() != text {
		t.Errorf("%s: %v, want %v %s", what, err, code, text)
	}
}

// The version of a cluster is that of its oldest member. It rises when that one is
// replaced, and from then on an older program neither comes back nor joins.
func TestTheClusterAgreesOnAVersion(t *testing.T) {
	tb := newTable(t, 3)
	tb.flags = []string{"--strict-reconfig-check=false"}
	tb.seats[1].version = "3.6.2"
	tb.start("new", tb.seats...)
	tb.told(tb.seats[0], `{"etcdserver":"3.7.1","etcdcluster":"3.6.0","storage":"3.6.0"}`)
	tb.told(tb.seats[1], `{"etcdserver":"3.6.2","etcdcluster":"3.6.0","storage":"3.6.0"}`)
	tb.put(tb.seats[0], "a", "1")
	_, err := stream(t, tb.seats[0].member, &pb.RangeRequest{Key: []byte("a")})
	refusedWith(t, "what not all members know", err, codes.FailedPrecondition, "etcdserver: not capable")

	tb.seats[1].stop()
	tb.seats[1].version = "3.7.0"
	tb.start("new", tb.seats[1])
	for _, s := range tb.seats {
		tb.eventually("the higher version of "+s.name, func(context.Context) bool {
			return strings.Contains(versions(t, s.client), `"etcdcluster":"3.7.0","storage":"3.7.0"`)
		})
		if all, err := stream(t, s.member, &pb.RangeRequest{Key: []byte("a")}); err != nil || len(all) != 1 {
			t.Errorf("what all members know by now: %v, %v", all, err)
		}
	}

	tb.seats[2].stop()
	tb.seats[2].version = "3.6.2"
	if err := tb.startOne("new", tb.seats[2]); err == nil || err.Error() != "invalid downgrade; server version is lower than determined cluster version" {
		t.Errorf("an older program comes back: %v", err)
	}
	tb.seats[2].version = ""
	tb.start("new", tb.seats[2])

	fourth := tb.add()
	tb.eventually("an addition", func(ctx context.Context) bool {
		_, err := pb.NewClusterClient(tb.seats[0].conn).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + fourth.peer}})
		return err == nil
	})
	fourth.version = "3.6.2"
	if err := tb.startOne("existing", fourth); err == nil || !strings.HasPrefix(err.Error(), "incompatible with current running cluster") {
		t.Errorf("an older program joins: %v", err)
	}
	fourth.version, fourth.dir = "3.8.0", t.TempDir()
	tb.start("existing", fourth)
	tb.told(fourth, `{"etcdserver":"3.8.0","etcdcluster":"3.7.0","storage":"3.7.0"}`)
	tb.everywhere("a", "1")
}

// Before a quorum is there nothing is decided; the first members decide for 3.0 as
// long as another has not come, and for what all have once it did.
func TestAVersionIsNotDecidedAtFirst(t *testing.T) {
	tb := newTable(t, 3)
	var wg sync.WaitGroup
	errs := make([]error, 3)
	begin := func(i int) { wg.Go(func() { errs[i] = tb.startOne("new", tb.seats[i]) }) }
	begin(0)
	tb.eventually("a first answer", func(context.Context) bool {
		return versions(t, tb.seats[0].peer) == `{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}`
	})
	begin(1)
	wg.Wait()
	tb.told(tb.seats[1], `{"etcdserver":"3.7.1","etcdcluster":"3.0.0","storage":"unknown"}`)
	begin(2)
	wg.Wait()
	for i, s := range tb.seats {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		tb.told(s, `{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}`)
	}
}

// What MemberAdd, MemberPromote, MemberRemove and MoveLeader refuse, in clusters that
// do without the strict check.
func TestWhatIsRefusedOfAMembership(t *testing.T) {
	tb := newTable(t, 3)
	tb.flags = []string{"--strict-reconfig-check=false", "--max-learners=2"}
	tb.start("new", tb.seats...)
	ctx := t.Context()
	leader := tb.leader()
	follower := tb.seats[0]
	if follower == leader {
		follower = tb.seats[1]
	}
	cluster := pb.NewClusterClient(follower.conn)
	add := func(learner bool, urls ...string) (*pb.MemberAddResponse, error) {
		return cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: urls, IsLearner: learner})
	}
	for _, urls := range [][]string{nil, {""}, {"http://127.0.0.1"}, {"http://127.0.0.1:1/"}, {"127.0.0.1:1"}, {"ftp://127.0.0.1:1"}} {
		_, err := add(false, urls...)
		refusedWith(t, strings.Join(urls, ","), err, codes.InvalidArgument, "etcdserver: given member URLs are invalid")
		_, err = cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: leader.id(), PeerURLs: urls})
		refusedWith(t, "an update to "+strings.Join(urls, ","), err, codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	}
	_, err := add(false, "http://"+leader.peer)
	refusedWith(t, "another's URL", err, codes.FailedPrecondition, "etcdserver: Peer URLs already exists")
	first, err := add(true, "http://127.0.0.1:1", "http://127.0.0.1:2")
	if err != nil || !first.Member.IsLearner || len(first.Members) != 4 {
		t.Fatalf("a learner: %v, %v", first, err)
	}
	learner := tb.add()
	second, err := add(true, "http://"+learner.peer)
	if err != nil {
		t.Fatal(err)
	}
	_, err = add(true, "http://127.0.0.1:3")
	refusedWith(t, "a third learner", err, codes.FailedPrecondition, "etcdserver: too many learner members in cluster")
	for _, linearizable := range []bool{false, true} {
		list, err := cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: linearizable})
		if err != nil || !slices.IsSortedFunc(list.Members, func(a, b *pb.Member) int { return int(a.ID>>1) - int(b.ID>>1) }) {
			t.Fatalf("%v, %v", list, err)
		}
		at := slices.IndexFunc(list.Members, func(m *pb.Member) bool { return m.ID == first.Member.ID })
		if m := list.Members[at]; m.Name != "" || len(m.ClientURLs) != 0 || len(m.PeerURLs) != 2 || !m.IsLearner {
			t.Errorf("one that has not started: %v", m)
		}
	}
	_, err = cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: first.Member.ID})
	refusedWith(t, "a promotion of one that has not started", err, codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
	_, err = cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 77})
	refusedWith(t, "a promotion of nobody", err, codes.NotFound, "etcdserver: member not found")
	_, err = cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 77, PeerURLs: []string{"http://127.0.0.1:4"}})
	refusedWith(t, "an update of nobody", err, codes.NotFound, "etcdserver: member not found")
	if _, err := cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: first.Member.ID}); err != nil {
		t.Fatal(err)
	}
	_, err = cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: first.Member.ID})
	refusedWith(t, "a second removal", err, codes.NotFound, "etcdserver: member not found")

	move := func(s *seat, to uint64) error {
		_, err := pb.NewMaintenanceClient(s.conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to})
		return err
	}
	refusedWith(t, "a follower moves", move(follower, follower.id()), codes.FailedPrecondition, "etcdserver: not leader")
	refusedWith(t, "to a learner", move(leader, second.Member.ID), codes.FailedPrecondition, "etcdserver: bad leader transferee")
	refusedWith(t, "to nobody", move(leader, 77), codes.FailedPrecondition, "etcdserver: bad leader transferee")
	if err := move(leader, leader.id()); err != nil {
		t.Errorf("to itself: %v", err)
	}
	tb.learnerIsShy(learner)
}

// learnerIsShy starts a learner and asks it what it answers and what not.
func (tb *table) learnerIsShy(s *seat) {
	t, ctx := tb.t, tb.t.Context()
	// Its first start must name those who are members now.
	tb.start("existing", s)
	kv := pb.NewKVClient(s.conn)
	_, put := kv.Put(ctx, &pb.PutRequest{Key: []byte("a")})
	_, txn := kv.Txn(ctx, &pb.TxnRequest{})
	_, get := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")})
	_, list := pb.NewClusterClient(s.conn).MemberList(ctx, &pb.MemberListRequest{})
	_, streamed := stream(t, s.member, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	for what, err := range map[string]error{"a put": put, "a txn": txn, "a get": get, "the members": list, "a stream": streamed} {
		refusedWith(t, what+" of a learner", err, codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
	}
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true}); err != nil {
		t.Errorf("a serializable get of a learner: %v", err)
	}
	if st, err := pb.NewMaintenanceClient(s.conn).Status(ctx, &pb.StatusRequest{}); err != nil || !st.IsLearner {
		t.Errorf("the status of a learner: %v, %v", st, err)
	}
}

// The last member cannot be removed, nor one be added to those who are not there.
func TestTheStrictCheckKeepsTheQuorum(t *testing.T) {
	tb := newTable(t, 1)
	tb.start("new", tb.seats...)
	one := pb.NewClusterClient(tb.seats[0].conn)
	unstarted := "etcdserver: re-configuration failed due to not enough started members"
	_, err := one.MemberRemove(t.Context(), &pb.MemberRemoveRequest{ID: tb.seats[0].id()})
	refusedWith(t, "the removal of the last one", err, codes.Unknown, unstarted)
	learner, err := one.MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = one.MemberRemove(t.Context(), &pb.MemberRemoveRequest{ID: tb.seats[0].id()})
	refusedWith(t, "the removal of the last voter", err, codes.Unknown, unstarted)
	if _, err := one.MemberRemove(t.Context(), &pb.MemberRemoveRequest{ID: learner.Member.ID}); err != nil {
		t.Errorf("the removal of a learner that never came: %v", err)
	}
}

// A member that is left alone refuses at once whoever insists on a leader, answers
// what it can by itself, and ends the rest in the words that clients know.
func TestAMemberThatIsLeftAlone(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	tb.put(tb.seats[0], "a", "1")
	tb.everywhere("a", "1")
	gone := tb.seats[1].id()
	tb.seats[1].stop()
	tb.seats[2].stop()
	alone := tb.seats[0]
	kv, cluster := pb.NewKVClient(alone.conn), pb.NewClusterClient(alone.conn)
	tb.eventually("it notices", func(ctx context.Context) bool {
		st, err := pb.NewMaintenanceClient(alone.conn).Status(ctx, &pb.StatusRequest{})
		return err == nil && st.Leader == 0 && slices.Equal(st.Errors, []string{"etcdserver: no leader"})
	})
	insisting := metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true")
	begun := time.Now()
	_, err := kv.Put(insisting, &pb.PutRequest{Key: []byte("a")})
	refusedWith(t, "a put that insists on a leader", err, codes.Unavailable, "etcdserver: no leader")
	_, err = kv.Range(insisting, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	refusedWith(t, "a read that insists on a leader", err, codes.Unavailable, "etcdserver: no leader")
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the refusals took %v", took)
	}
	if r, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a"), Serializable: true}); err != nil || string(r.Kvs[0].Value) != "1" {
		t.Errorf("a serializable read: %v, %v", r, err)
	}
	if l, err := cluster.MemberList(t.Context(), &pb.MemberListRequest{}); err != nil || len(l.Members) != 3 {
		t.Errorf("the members as known here: %v, %v", l, err)
	}
	var wg sync.WaitGroup
	for _, c := range []struct {
		what string
		call func() error
		code codes.Code
		text string
	}{
		{"a put", func() error { _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); return err }, codes.DeadlineExceeded, "context deadline exceeded"},
		{"a get", func() error { _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}); return err }, codes.Unavailable, "etcdserver: request timed out"},
		{"the members", func() error {
			_, err := cluster.MemberList(t.Context(), &pb.MemberListRequest{Linearizable: true})
			return err
		}, codes.Unavailable, "etcdserver: request timed out"},
		{"a promotion", func() error {
			_, err := cluster.MemberPromote(t.Context(), &pb.MemberPromoteRequest{ID: gone})
			return err
		}, codes.Unavailable, "etcdserver: no leader"},
	} {
		wg.Go(func() { refusedWith(t, c.what, c.call(), c.code, c.text) })
	}
	// An addition has no deadline but its caller's, which ends in the caller's words.
	patient, cancel := context.WithTimeout(t.Context(), alone.cfg.ElectionTimeout*2+6*time.Second)
	defer cancel()
	asked := time.Now()
	_, err = cluster.MemberAdd(patient, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}})
	if waited := time.Since(asked); status.Code(err) != codes.DeadlineExceeded || waited < 6*time.Second {
		t.Errorf("an addition, after %v: %v", waited, err)
	}
	wg.Wait()
}
