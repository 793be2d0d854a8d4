package host

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

func (m *member) change(deadline time.Duration, voters ...id.Member) uint64 {
	tag := uint64(len(m.w.calls) + 1)
	m.w.calls[tag] = &issued{read: true, from: m}
	m.group.ProposeConf(m.call(tag, deadline), m.group.Status().ConfIndex, raft.Conf{Voters: voters}, nil)
	m.poke()
	return tag
}

func TestAVoterIsRemovedAndComesBack(t *testing.T) {
	w := newWorld(t, 70, 3).start()
	leader := w.untilLed()
	w.result(leader.put(0))
	var others []id.Member
	gone := w.members[leader.id%3]
	for _, m := range w.members {
		if m != gone {
			others = append(others, m.id)
		}
	}
	if r := w.result(leader.change(0, others...)); r.Err != nil || r.Index == 0 {
		t.Fatalf("%+v", r)
	}
	if voters := leader.group.Status().Conf.Voters; len(voters) != 2 {
		t.Fatalf("voters %v", voters)
	}
	if r := w.result(leader.change(0, 1, 2, 3)); r.Err != nil {
		t.Fatalf("%+v", r)
	}
	if r := w.result(leader.change(0)); !errors.Is(r.Err, raft.ErrBadChange) {
		t.Fatalf("%+v", r)
	}
	if r := w.result(gone.change(0, others...)); !errors.Is(r.Err, raft.ErrNotLeader) {
		t.Fatalf("%+v", r)
	}
	w.converge()
	w.check()
}

// A change that cannot be committed ends at its deadline, or when it is known to
// be lost.
func TestAChangeThatIsLost(t *testing.T) {
	for _, deadline := range []time.Duration{100 * time.Millisecond, 0} {
		w := newWorld(t, 71, 3).start()
		old := w.untilLed()
		w.result(old.put(0))
		w.cut[old.id] = true
		voters := []id.Member{old.id, old.id%3 + 1}
		slices.Sort(voters)
		tag := old.change(deadline, voters...)
		w.until(20*time.Second, "another leader", func() bool { l := w.leader(); return l != nil && l != old })
		w.cut[old.id] = false
		want := ErrTimeout
		if deadline == 0 {
			want = ErrLeaderChanged
		}
		if r := w.result(tag); !errors.Is(r.Err, want) {
			t.Errorf("a change with deadline %v: %v, want %v", deadline, r.Err, want)
		}
		w.converge()
	}
}

// Leadership goes where it is asked to, and no proposal is lost on the way.
func TestTransfer(t *testing.T) {
	w := newWorld(t, 72, 3).start()
	leader := w.untilLed()
	next := w.members[leader.id%3]
	if err := next.group.Transfer(0); !errors.Is(err, raft.ErrNotLeader) {
		t.Fatalf("a follower's transfer: %v", err)
	}
	if err := leader.group.Transfer(99); !errors.Is(err, raft.ErrBadTransferee) {
		t.Fatalf("a transfer to nobody: %v", err)
	}
	for range 20 {
		for _, m := range w.members {
			m.put(0)
		}
		w.step()
	}
	if err := leader.group.Transfer(next.id); err != nil {
		t.Fatal(err)
	}
	leader.poke()
	for range 20 {
		for _, m := range w.members {
			m.put(0)
		}
		w.step()
	}
	w.until(5*time.Second, "the next leader", func() bool { return w.leader() == next })
	w.until(20*time.Second, "all answers", w.isDone)
	for tag := range w.calls {
		if r, _ := w.sink.get(tag); r.Err != nil {
			t.Errorf("put %d: %v", tag, r.Err)
		}
	}
	w.converge()
	w.check()
}

// An entry that left memory is read back for a follower that lags.
func TestOldEntriesAreReadBack(t *testing.T) {
	w := newWorld(t, 73, 3)
	w.limits.CacheBytes = 1
	w.start()
	leader := w.untilLed()
	away := w.members[leader.id%3]
	away.crash(simenv.PowerCrash)
	for range 200 {
		w.result(leader.put(0))
	}
	if !away.start() {
		t.Fatal(away.openErr)
	}
	w.until(10*time.Second, "the same state", func() bool { return away.state.mark == leader.state.mark })
	if away.state.loads != 0 {
		t.Fatal("a snapshot was sent although the log has it all")
	}
	w.check()
}
