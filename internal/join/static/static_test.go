package static

import (
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
)

// A default etcd on localhost has these ids: they are printed by every member
// that was ever started without flags.
func TestIDsAreThoseOfEtcd(t *testing.T) {
	member := MemberID([]string{"http://localhost:2380"}, "etcd-cluster")
	if got, want := member.String(), "8e9e05c52164694d"; got != want {
		t.Errorf("member id %s, want %s", got, want)
	}
	if got, want := ClusterID([]id.Member{member}).String(), "cdf818194e3a8c32"; got != want {
		t.Errorf("cluster id %s, want %s", got, want)
	}
}

func TestParse(t *testing.T) {
	peers, err := Parse("b=http://h:2,a=http://h:1, b=http://g:2")
	want := []Peer{{"a", []string{"http://h:1"}}, {"b", []string{"http://g:2", "http://h:2"}}}
	if err != nil || !reflect.DeepEqual(peers, want) {
		t.Errorf("got %v, %v; want %v", peers, err, want)
	}
	for _, bad := range []string{"a", "=http://h:1", "a="} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was taken for an initial cluster", bad)
		}
	}
}
