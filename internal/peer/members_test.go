package peer

import (
	"net"
	"sync/atomic"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
)

// TestAMemberThatHasFallenBehind does not know the one that brings it on, nor
// where it listens: it is told by the greeting.
func TestAMemberThatHasFallenBehind(t *testing.T) {
	leader, behind := newNode(t, 1, nil), newNode(t, 2, nil)
	leader.SetMembers([]Address{leader.address(), behind.address()})
	leader.awaitConnected(behind)
	behind.awaitConnected(leader)
	if !behind.Send(1, Control, blob{number: 5}) || numberOf(receive(t, "the answer", leader.inbox).data) != 5 {
		t.Error("the answer did not go back")
	}
	behind.awaitLine("not known here yet")
	// It learns of the member and keeps its connections.
	behind.SetMembers([]Address{leader.address(), behind.address()})
	if !behind.connectedTo(1) || len(behind.lost) > 0 {
		t.Error("the connection was lost on the way")
	}
}

func TestAGuestGoesWithItsConnections(t *testing.T) {
	leader, behind := newNode(t, 1, nil), newNode(t, 2, nil)
	leader.SetMembers([]Address{leader.address(), behind.address()})
	behind.awaitConnected(leader)
	leader.Close()
	await(t, "the guest to be forgotten", func() bool { return len(behind.Peers()) == 0 })
}

func TestARemovedMemberIsCutOffAndToldSo(t *testing.T) {
	var removed atomic.Bool
	a := newNode(t, 1, func(o *Options) { o.IsRemoved = func(m id.Member) bool { return m == 2 && removed.Load() } })
	b, c := newNode(t, 2, nil), newNode(t, 3, nil)
	meet(a, b, c)
	a.awaitConnected(b, c)
	b.awaitConnected(a, c)
	removed.Store(true)
	a.SetMembers([]Address{a.address(), c.address()})
	if by := receive(t, "the removal", b.removed); by != 1 {
		t.Errorf("told by %v", by)
	}
	if len(a.Peers()) != 1 || a.Send(2, Control, blob{}) {
		t.Errorf("still there: %+v", a.Peers())
	}
	await(t, "the other connections to stand as before", func() bool { return a.connectedTo(3) && b.connectedTo(3) })
	for len(a.lost) > 0 {
		if m := <-a.lost; m != 2 {
			t.Errorf("%v was lost", m)
		}
	}
}

// TestAListThatIsBehindEndsNothingForGood: who is missing in it comes back as a
// guest, and as a member with the next list.
func TestAListThatIsBehindEndsNothingForGood(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	meet(a, b)
	a.awaitConnected(b)
	b.awaitConnected(a)
	a.SetMembers([]Address{a.address()})
	a.awaitLine("not known here yet")
	a.awaitConnected(b)
	meet(a, b)
	a.awaitConnected(b)
	b.awaitConnected(a)
	if len(b.removed) > 0 {
		t.Error("it was told that it is removed")
	}
}

func TestAMemberMoves(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	old, now := newProxy(t, b.url), newProxy(t, b.url)
	a.SetMembers([]Address{{2, []string{old.url}}})
	a.awaitConnected(b)
	a.SetMembers([]Address{{2, []string{now.url, old.url}}})
	if s := a.Peers()[0]; s.URL != old.url || !a.connectedTo(2) {
		t.Errorf("a connection that is still right was ended: %+v", s)
	}
	a.SetMembers([]Address{{2, []string{now.url}}})
	await(t, "the new place", func() bool { return a.Peers()[0].URL == now.url && a.connectedTo(2) })

	// One that we know only at an old place, where nobody is, tells us of the new one.
	c := newNode(t, 3, nil)
	nobody := fake(t, func(net.Conn) {})
	c.SetMembers([]Address{{1, []string{nobody}}})
	a.SetMembers([]Address{a.address(), {2, []string{now.url}}, c.address()})
	await(t, "the way back", func() bool { return c.connectedTo(1) })
}

func TestAllURLsAreTried(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	nobody := fake(t, func(net.Conn) {})
	a.SetMembers([]Address{{2, []string{nobody, "http://127.0.0.1:1", b.url}}})
	a.awaitConnected(b)
	if s := a.Peers()[0]; s.URL != b.url {
		t.Errorf("%+v", s)
	}
}
