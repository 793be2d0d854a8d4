package embed

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

// downgrade asks a member for something about downgrades.
func downgrade(t *testing.T, m *member, action pb.DowngradeRequest_DowngradeAction, version string) (*pb.DowngradeResponse, error) {
	t.Helper()
	return pb.NewMaintenanceClient(m.conn).Downgrade(t.Context(), &pb.DowngradeRequest{Action: action, Version: version})
}

// downgrades makes a call that must succeed, and checks the version in the answer.
func downgrades(t *testing.T, m *member, action pb.DowngradeRequest_DowngradeAction, version, want string) {
	t.Helper()
	r, err := downgrade(t, m, action, version)
	if err != nil || r.GetVersion() != want || r.GetHeader().GetRevision() == 0 || r.GetHeader().GetMemberId() == 0 {
		t.Fatalf("%v %s: %+v, %v; want version %s", action, version, r, err, want)
	}
}

// enabled is what a member's peer port says of a downgrade.
func enabled(t *testing.T, s *seat) string {
	t.Helper()
	resp, err := http.Get("http://" + s.peer + "/downgrade/enabled")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const (
	validate = pb.DowngradeRequest_VALIDATE
	enable   = pb.DowngradeRequest_ENABLE
	cancel   = pb.DowngradeRequest_CANCEL
)

// stands waits until all members say the same about the version of the cluster and
// about a downgrade; none is no target.
func (tb *table) stands(cluster, target string) {
	tb.t.Helper()
	for _, s := range tb.seats {
		tb.eventually(s.name+" of "+cluster+" going down to "+target, func(ctx context.Context) bool {
			r, err := pb.NewMaintenanceClient(s.conn).Status(ctx, &pb.StatusRequest{})
			return err == nil && r.StorageVersion == cluster && r.DowngradeInfo.GetTargetVersion() == target && r.DowngradeInfo.GetEnabled() == (target != "") &&
				strings.Contains(versions(tb.t, s.client), `"etcdcluster":"`+cluster+`","storage":"`+cluster+`"`)
		})
	}
}

// One member: what is refused, down, and up again. (Nothing ends a downgrade here but
// a cancellation: the program is of the version that it comes from.)
func TestDowngradeOfOneMember(t *testing.T) {
	tb := newTable(t, 1)
	tb.flags = []string{"--downgrade-check-time=10ms"}
	tb.start("new", tb.seats...)
	m := tb.seats[0].member
	refused := func(action pb.DowngradeRequest_DowngradeAction, version string, code codes.Code, text string) {
		t.Helper()
		_, err := downgrade(t, m, action, version)
		refusedWith(t, action.String()+" "+version, err, code, text)
	}
	for _, action := range []pb.DowngradeRequest_DowngradeAction{validate, enable} {
		for _, version := range []string{"", "3", "v3.6", "3.6.x"} {
			refused(action, version, codes.InvalidArgument, "etcdserver: wrong downgrade target version format")
		}
		for _, version := range []string{"3.7", "3.5", "3.5.9", "3.8", "2.6", "4.6", "300.6"} {
			refused(action, version, codes.InvalidArgument, "etcdserver: invalid downgrade target version")
		}
	}
	refused(7, "3.6", codes.Unknown, "etcdserver: unknown method")
	downgrades(t, m, cancel, "", "3.7") // there is none
	downgrades(t, m, validate, "3.6", "3.7")
	downgrades(t, m, validate, "3.6.11", "3.7")
	if got := enabled(t, tb.seats[0]); got != "false" {
		t.Errorf("after a question: %s", got)
	}
	downgrades(t, m, enable, "3.6.2", "3.7")
	tb.stands("3.6.0", "3.6.0")
	if got := enabled(t, tb.seats[0]); got != "true" {
		t.Errorf("the peer port says %s", got)
	}
	refused(enable, "3.6", codes.InvalidArgument, "etcdserver: invalid downgrade target version")
	refused(enable, "3.5", codes.FailedPrecondition, "etcdserver: cluster has a downgrade job in progress")
	refused(validate, "3.5", codes.FailedPrecondition, "etcdserver: cluster has a downgrade job in progress")
	tb.put(tb.seats[0], "a", "1")
	_, err := stream(t, m, &pb.RangeRequest{Key: []byte("a")})
	refusedWith(t, "what came with 3.7", err, codes.FailedPrecondition, "etcdserver: not capable")

	m.stop()
	tb.start("new", tb.seats...) // a later program than the cluster has agreed on serves
	m = tb.seats[0].member
	tb.stands("3.6.0", "3.6.0")
	tb.everywhere("a", "1")
	downgrades(t, m, cancel, "", "3.6")
	tb.stands("3.7.0", "")
	if all, err := stream(t, m, &pb.RangeRequest{Key: []byte("a")}); err != nil || len(all) != 1 {
		t.Errorf("what came with 3.7, again: %v, %v", all, err)
	}
	code, got := post(t, m, "/v3/maintenance/downgrade", `{"action":"VALIDATE","version":"3.6"}`)
	if code != 200 || len(got) != 1 || got["version"] != "3.7" {
		t.Errorf("through the gateway: %d %v", code, got)
	}
}

// A whole downgrade: the members' programs are replaced one after the other, and with
// the last of them it is over. A new member is judged by what is agreed on.
func TestDowngradeOfThreeMembers(t *testing.T) {
	tb := newTable(t, 3)
	tb.flags = []string{"--strict-reconfig-check=false", "--downgrade-check-time=20ms"}
	tb.start("new", tb.seats...)
	tb.stands("3.7.0", "")
	tb.put(tb.seats[0], "a", "1")
	older := func(s *seat, version string) {
		t.Helper()
		s.stop()
		s.version = version
		tb.start("new", s)
	}
	tb.seats[2].stop()
	tb.seats[2].version = "3.6.2"
	if err := tb.startOne("new", tb.seats[2]); err == nil || err.Error() != "invalid downgrade; server version is lower than determined cluster version" {
		t.Errorf("an older program comes too early: %v", err)
	}
	downgrades(t, tb.seats[0].member, enable, "3.6", "3.7") // with two of three
	if err := tb.startOne("new", tb.seats[2]); err == nil {
		t.Error("one that was away when it was agreed on does not know of it, and comes")
	}
	tb.seats[2].version = ""
	tb.start("new", tb.seats[2])
	tb.stands("3.6.0", "3.6.0")
	older(tb.seats[2], "3.6.2")
	tb.put(tb.seats[2], "b", "2")
	older(tb.seats[0], "3.6.2")
	tb.stands("3.6.0", "3.6.0")
	older(tb.seats[1], "3.6.5")
	tb.stands("3.6.0", "")
	tb.everywhere("a", "1")
	tb.everywhere("b", "2")
	downgrades(t, tb.seats[0].member, validate, "3.5", "3.6")

	fourth := tb.add()
	tb.eventually("an addition", func(ctx context.Context) bool {
		_, err := pb.NewClusterClient(tb.seats[0].conn).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + fourth.peer}})
		return err == nil
	})
	fourth.version = "3.7.1"
	tb.start("existing", fourth)
	tb.stands("3.6.0", "")
	for _, s := range tb.seats[:3] {
		older(s, "")
	}
	tb.stands("3.7.0", "")
	tb.everywhere("b", "2")
}
