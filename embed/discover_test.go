package embed

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Three members that know nothing but a word and a running member find each other
// there; a fourth comes too late, and one with a word that nobody has prepared is told
// so.
func TestMembersMeetAtADiscoveryCluster(t *testing.T) {
	t.Parallel()
	at := startMember(t, t.TempDir())
	size := func(token, n string) {
		if _, err := pb.NewKVClient(at.conn).Put(t.Context(), &pb.PutRequest{Key: []byte("/_etcd/registry/" + token + "/_config/size"), Value: []byte(n)}); err != nil {
			t.Fatal(err)
		}
	}
	register := func(token, member, value string) {
		if _, err := pb.NewKVClient(at.conn).Put(t.Context(), &pb.PutRequest{Key: []byte("/_etcd/registry/" + token + "/members/" + member), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	size("word", "3")
	size("twice", "3")
	register("twice", "1", "nonsense") // nobody's, and left out
	register("twice", "2", "n9=http://127.0.0.1:1")
	register("twice", "3", "n9=http://127.0.0.1:2")
	size("odd", "three")
	discover := func(token string) []string {
		return []string{"--initial-cluster=", "--discovery-endpoints", at.client, "--discovery-token", token, "--discovery-dial-timeout=20s"}
	}
	log := &lines{}
	tb := newTable(t, 3)
	tb.log = slog.NewTextHandler(log, nil)
	tb.flags = discover("word")
	tb.start("new", tb.seats...)
	tb.put(tb.seats[0], "a", "1")
	tb.everywhere("a", "1")
	list, err := pb.NewClusterClient(tb.seats[1].conn).MemberList(t.Context(), &pb.MemberListRequest{})
	if err != nil || len(list.Members) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	registered, err := pb.NewKVClient(at.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("/_etcd/registry/word/members/"), RangeEnd: []byte("/_etcd/registry/word/members0")})
	if err != nil || len(registered.Kvs) != 3 {
		t.Fatalf("%v, %v", registered, err)
	}
	for _, m := range list.Members {
		want := fmt.Sprintf("%s=%s", m.Name, m.PeerURLs[0])
		found := false
		for _, kv := range registered.Kvs {
			found = found || string(kv.Key) == fmt.Sprintf("/_etcd/registry/word/members/%x", m.ID) && string(kv.Value) == want
		}
		if !found {
			t.Errorf("%s is not registered as %x", want, m.ID)
		}
	}
	for token, want := range map[string]string{
		"word":  "failed to join discovery cluster (discovery: cluster is full)",
		"none":  "failed to join discovery cluster (discovery: size key not found)",
		"twice": "failed to join discovery cluster (discovery: found duplicate name: n9)",
		"odd":   "failed to join discovery cluster (discovery: size key is bad)",
	} {
		tb.flags = discover(token)
		if err := tb.startOne("new", tb.add()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", token, err, want)
		}
	}
	if err := tb.startOne("existing", tb.add()); err == nil || !strings.Contains(err.Error(), "discovery URL should not be set when joining existing initial cluster") {
		t.Errorf("existing: %v", err)
	}
	// Once there is data, nobody asks again.
	back := tb.seats[2]
	back.stop()
	at.stop()
	tb.flags = discover("word")
	tb.start("new", back)
	tb.everywhere("a", "1")
	tb.eventually("all lines", func(context.Context) bool { return log.count("discovery joined cluster successfully") == 3 })
}
