package member_test

import (
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

func minor(n int) command.Version { return command.Version{Major: 3, Minor: uint8(n)} }

// due asks for the version that the cluster is to have, tell has a member tell its own,
// set sets the cluster's.
func (l *life) due(want command.Version, so bool) {
	l.t.Helper()
	if v, ok := l.table.VersionDue(); ok != so || ok && v != want {
		l.t.Fatalf("due: %v, %v; want %v, %v", v, ok, want, so)
	}
}

func (l *life) tell(m id.Member, v command.Version, want error) {
	l.t.Helper()
	l.do(&command.MemberPublish{Member: m, Name: "n", Version: v}, want)
}

func (l *life) set(v command.Version, want error) {
	l.t.Helper()
	l.do(&command.ClusterVersion{Version: v}, want)
}

// The version of a cluster: that of its oldest member, once all have told theirs; it
// rises as they do, and whoever is older than it is refused.
func TestTheVersionOfAClusterIsThatOfItsOldestMember(t *testing.T) {
	l := newLife(t)
	l.due(command.Version{}, false)
	l.set(minor(7), command.ErrVersionNotDue) // of nobody
	l.do(&command.MemberGenesis{Members: []command.GenesisMember{{Member: 1, PeerURLs: []string{"http://a"}}, {Member: 2, PeerURLs: []string{"http://b"}}}}, nil)
	l.due(command.FirstVersion, true)
	l.tell(1, minor(7), nil)
	l.due(command.FirstVersion, true)
	l.set(command.FirstVersion, nil)
	l.due(command.Version{}, false)
	l.set(command.FirstVersion, command.ErrVersionNotDue)
	l.tell(2, minor(6), nil)
	l.due(minor(6), true)
	l.set(minor(7), command.ErrVersionNotDue)
	l.set(minor(6), nil)
	l.tell(1, minor(5), command.ErrLowerVersion)
	l.tell(2, minor(7), nil)
	l.due(minor(7), true)
	l.do(change(command.AddLearner, 3, "http://c"), nil) // not started: nobody knows what it will be
	l.due(command.Version{}, false)
	l.set(minor(7), command.ErrVersionNotDue)
	l.tell(3, minor(8), nil)
	l.set(minor(7), nil)
	if got := l.table.Version(); got != minor(7) || got.String() != "3.7.0" {
		t.Fatalf("agreed on %v", got)
	}
	for _, m := range []id.Member{1, 2, 3} {
		l.tell(m, command.Version{Major: 4}, nil)
	}
	l.due(command.Version{}, false) // a major version is never left
}
