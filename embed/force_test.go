package embed

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kvorum/kvorum/internal/id"
)

// Two of three members are lost for good. The third goes on alone, with its data,
// its name and the cluster's, in a cluster that others join as any.
func TestForceNewCluster(t *testing.T) {
	tb := newTable(t, 3)
	tb.start("new", tb.seats...)
	for i := range 20 {
		tb.put(tb.seats[i%3], fmt.Sprint("before", i), fmt.Sprint(i))
	}
	left := tb.seats[1]
	tb.everywhere("before19", "19")
	member, cluster := left.home.Member, left.home.Cluster
	var lost []uint64
	for _, s := range tb.seats {
		if s != left {
			lost = append(lost, s.id())
		}
		s.stop()
	}

	tb.flags = []string{"--force-new-cluster"}
	tb.start("new", left)
	tb.flags = nil
	if left.home.Member != member || left.home.Cluster != cluster {
		t.Errorf("it is member %v of %v, and was %v of %v", left.home.Member, left.home.Cluster, member, cluster)
	}
	members := func() []*pb.Member {
		list, err := pb.NewClusterClient(left.conn).MemberList(t.Context(), &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			t.Fatal(err)
		}
		return list.Members
	}
	if list := members(); len(list) != 1 || list[0].ID != uint64(member) || list[0].Name != left.name || list[0].IsLearner {
		t.Fatalf("the members are %v", list)
	}
	tb.put(left, "after", "alone")
	r, err := pb.NewKVClient(left.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("before"), RangeEnd: []byte("beforf"), CountOnly: true})
	if err != nil || r.Count != 20 {
		t.Errorf("of 20 keys it has %v, %v", r, err)
	}
	for _, gone := range lost {
		if !left.state.View().Removed(id.Member(gone)) {
			t.Errorf("%x may come back", gone)
		}
	}

	// A restart without the flag changes nothing; then others join.
	left.stop()
	tb.seats = []*seat{left}
	tb.start("new", left)
	tb.put(left, "after", "restarted")
	for range 2 {
		joins := tb.add()
		joins.name = fmt.Sprint("new", len(tb.seats))
		var added *pb.MemberAddResponse
		tb.eventually("an addition", func(ctx context.Context) (done bool) {
			var err error
			added, err = pb.NewClusterClient(left.conn).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + joins.peer}, IsLearner: true})
			return err == nil
		})
		tb.start("existing", joins)
		tb.eventually("a promotion", func(ctx context.Context) bool {
			_, err := pb.NewClusterClient(left.conn).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: added.Member.ID})
			return err == nil
		})
		tb.everywhere("after", "restarted")
	}
	if list := members(); len(list) != 3 {
		t.Errorf("the members are %v", list)
	}
	left.stop()
	tb.put(tb.seats[1], "after", "without the survivor")
	tb.everywhere("after", "without the survivor")
}

// The flag does nothing to an empty directory, and harms no member that is alone.
func TestForceNewClusterOfOne(t *testing.T) {
	tb := newTable(t, 1)
	tb.flags = []string{"--force-new-cluster"}
	only := tb.seats[0]
	for i := range 3 {
		tb.start("new", only)
		tb.put(only, "a", fmt.Sprint(i))
		tb.everywhere("a", fmt.Sprint(i))
		only.stop()
	}
}
