package static

import (
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
