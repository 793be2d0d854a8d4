package member_test

import (
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// The version of a cluster: that of its oldest member, once all have told theirs; it
// rises as they do, and whoever is older than it is refused.
func TestTheVersionOfAClusterIsThatOfItsOldestMember(t *testing.T) {
	l := newLife(t)
	minor := func(minor uint8) command.Version { return command.Version{Major: 3, Minor: minor} }
	due := func(want command.Version, so bool) {
		t.Helper()
		if v, ok := l.table.VersionDue(); ok != so || ok && v != want {
			t.Fatalf("due: %v, %v; want %v, %v", v, ok, want, so)
		}
	}
	tell := func(m id.Member, v command.Version, want error) {
		t.Helper()
		l.do(&command.MemberPublish{Member: m, Name: "n", Version: v}, want)
	}
	raise := func(v command.Version, want error) {
		t.Helper()
		l.do(&command.ClusterVersion{Version: v}, want)
	}
	due(command.Version{}, false)
	raise(minor(7), command.ErrVersionNotDue) // of nobody
	l.do(&command.MemberGenesis{Members: []command.GenesisMember{{Member: 1, PeerURLs: []string{"http://a"}}, {Member: 2, PeerURLs: []string{"http://b"}}}}, nil)
	due(command.FirstVersion, true)
	tell(1, minor(7), nil)
	due(command.FirstVersion, true)
	raise(command.FirstVersion, nil)
	due(command.Version{}, false)
	raise(command.FirstVersion, command.ErrVersionNotDue)
	tell(2, minor(6), nil)
	due(minor(6), true)
	raise(minor(7), command.ErrVersionNotDue)
	raise(minor(6), nil)
	tell(1, minor(5), command.ErrLowerVersion)
	tell(2, minor(7), nil)
	due(minor(7), true)
	l.do(change(command.AddLearner, 3, "http://c"), nil) // not started: nobody knows what it will be
	due(command.Version{}, false)
	raise(minor(7), command.ErrVersionNotDue)
	tell(3, minor(8), nil)
	raise(minor(7), nil)
	if got := l.table.Version(); got != minor(7) || got.String() != "3.7.0" {
		t.Fatalf("agreed on %v", got)
	}
	for _, m := range []id.Member{1, 2, 3} {
		tell(m, command.Version{Major: 4}, nil)
	}
	due(command.Version{}, false) // a major version is never left
}
