package embed

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

// What a member says whose flags or data do not fit the cluster: each mistake that
// operators make ends with the text that they will look for (server-ops 3.3).

// startWith starts a seat's member with flags that replace those of the table, and
// returns why it ended.
func (tb *table) startWith(s *seat, flags ...string) error {
	tb.t.Helper()
	done := make(chan error, 1)
	before := tb.flags
	tb.flags = append(append([]string(nil), before...), flags...)
	go func() { done <- tb.startOne("new", s) }()
	defer func() { tb.flags = before }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		tb.t.Fatal("it neither starts nor ends")
		return nil
	}
}

func (tb *table) initial(seats ...*seat) string {
	var all []string
	for _, s := range seats {
		all = append(all, s.name+"="+tb.scheme+s.peer)
	}
	return "--initial-cluster=" + strings.Join(all, ",")
}

func TestMembersThatDoNotFit(t *testing.T) {
	tb := newTable(t, 3)
	tb.flags = []string{"--strict-reconfig-check=false"}
	tb.start("new", tb.seats...)
	tb.put(tb.seats[0], "a", "1")
	first, third := tb.seats[0], tb.seats[2]
	stranger := tb.add()
	four := tb.initial(tb.seats...)
	tb.seats = tb.seats[:3]
	ends := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	existing := "--initial-cluster-state=existing"
	ends("a name that is not in the list", tb.startWith(stranger), `couldn't find local name "n4" in the initial cluster configuration`)
	ends("an address that is not in the list", tb.startWith(stranger, strings.Replace(four, stranger.peer, "127.0.0.1:1", 1)),
		"--initial-cluster has n4=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://"+stranger.peer)
	ends("existing, but nobody added it", tb.startWith(stranger, existing, four), "member count is unequal")
	ends("existing, but nobody is there", tb.startWith(stranger, existing, "--initial-cluster=n1=http://127.0.0.1:1,n4=http://"+stranger.peer),
		"cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs")
	ends("existing, but with other members", tb.startWith(stranger, existing, strings.Replace(four, first.peer+",", "127.0.0.1:1,", 1)), "member count is unequal")

	// A member whose data was wiped, and which would form the cluster once more.
	wiped := &seat{name: third.name, dir: t.TempDir(), client: third.client, peer: third.peer}
	was := third.id()
	third.stop()
	ends("new, but it has been a member", tb.startWith(wiped), fmt.Sprintf("member %016x has already been bootstrapped", was))

	// It is replaced: its data and its id are no member's any more.
	cluster := pb.NewClusterClient(first.conn)
	var added *pb.MemberAddResponse
	tb.eventually("a replacement", func(ctx context.Context) bool {
		_, removal := cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: was})
		var err error
		added, err = cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + third.peer}})
		return (removal == nil || strings.Contains(removal.Error(), "not found")) && err == nil
	})
	ends("the data of a removed member", tb.startWith(third), errRemoved.Error())
	ends("new, where existing was meant", tb.startWith(wiped), errRemoved.Error())
	wiped.dir = t.TempDir()
	if err := tb.startWith(wiped, existing); err != nil || wiped.id() != added.Member.ID {
		t.Errorf("existing: %v", err)
	}
}

// A cluster of one grows to three. It goes on while the second member is added and
// not there yet, also over a restart, and a removal takes it back.
func TestAClusterOfOneGrows(t *testing.T) {
	tb := newTable(t, 1)
	tb.start("new", tb.seats...)
	one := tb.seats[0]
	ctx := t.Context()
	add := func(s *seat) *pb.MemberAddResponse {
		t.Helper()
		added, err := pb.NewClusterClient(one.conn).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + s.peer}})
		if err != nil || len(added.Members) != len(tb.seats) || added.Member.IsLearner {
			t.Fatalf("an addition: %v, %v", added, err)
		}
		return added
	}
	second := tb.add()
	gone := add(second).Member.ID
	tb.put(one, "a", "while it is not there")
	_, err := pb.NewClusterClient(one.conn).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}})
	refusedWith(t, "a third before the second", err, codes.Unknown, "etcdserver: re-configuration failed due to not enough started members")
	if _, err := pb.NewClusterClient(one.conn).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: gone}); err != nil {
		t.Fatal(err)
	}
	removed := time.Now().Unix() // the second is in the id, and the old id never comes back
	tb.eventually("another second", func(context.Context) bool { return time.Now().Unix() != removed })
	add(second)
	one.stop()
	tb.start("new", one)
	tb.put(one, "b", "after a restart")
	tb.start("existing", second)
	votes := func(voters int) {
		t.Helper()
		tb.eventually("votes", func(context.Context) bool {
			s := one.group.Status()
			return len(s.Conf.Voters) == voters && len(s.Conf.Learners) == 0
		})
	}
	votes(2)
	tb.everywhere("a", "while it is not there")
	third := tb.add()
	tb.eventually("a third, once two have been connected for a while", func(ctx context.Context) bool {
		_, err := pb.NewClusterClient(one.conn).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + third.peer}})
		return err == nil
	})
	tb.start("existing", third)
	votes(3)
	one.stop()
	tb.put(second, "c", "without the first")
	tb.everywhere("c", "without the first")
}
