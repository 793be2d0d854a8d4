package host

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Two of three members are lost in the moment in which a put was acknowledged, of
// which the third does not know that it is committed. It goes on alone with it, and
// again alone when it is started like any other, by a log that says who was removed.
func TestTheLastOfThreeGoesOnAlone(t *testing.T) {
	for _, crash := range []simenv.Crash{simenv.ProcessCrash, simenv.PowerCrash} {
		w := newWorld(t, 90, 3).start()
		leader := w.untilLed()
		w.result(leader.put(0))
		w.converge()
		last := leader.put(0)
		if r := w.result(last); r.Err != nil {
			t.Fatal(r.Err)
		}
		var left *member
		for _, m := range w.members {
			if m != leader && m.group.Status().Last == leader.group.Status().Last {
				left = m
			}
		}
		if left == nil || left.group.Status().Hard.Commit == leader.group.Status().Hard.Commit {
			t.Fatal("no follower has the last put without knowing that it is committed")
		}
		for _, m := range w.members {
			m.crash(crash)
		}
		left.lone = true
		if !left.start() {
			t.Fatal(left.openErr)
		}
		if want := without(w.conf().Voters, left.id); !slices.Equal(left.dropped, want) {
			t.Errorf("dropped %v, want %v", left.dropped, want)
		}
		if r := w.result(left.put(0)); r.Err != nil {
			t.Fatal(r.Err)
		}
		if left.state.data[keyOf(last)] == "" {
			t.Error("a put that was acknowledged is lost")
		}
		var removed []id.Member
		for i := id.Index(1); i <= left.state.mark.Index; i++ {
			if e := w.log[i]; e.Kind == raft.Change {
				_, context, err := raft.DecodeChange(e.Data)
				if err != nil {
					t.Fatal(err)
				}
				c, err := command.DecodeChange(context)
				if err != nil || c.Change != command.RemoveMember {
					t.Fatalf("change %+v, %v", c, err)
				}
				removed = append(removed, c.Member)
			}
		}
		if !slices.Equal(removed, left.dropped) {
			t.Errorf("the log removes %v", removed)
		}

		left.crash(crash)
		left.lone = false
		if !left.start() {
			t.Fatal(left.openErr)
		}
		if r := w.result(left.put(0)); r.Err != nil || !left.group.Status().Conf.Alone(left.id) {
			t.Errorf("started again: %v, %+v", r.Err, left.group.Status().Conf)
		}
		left.crash(crash)
		left.lone = true
		if !left.start() || len(left.dropped) != 2 {
			t.Errorf("alone once more: %v, dropped %v", left.openErr, left.dropped)
		}
		w.check()
	}
}

func without(list []id.Member, m id.Member) []id.Member {
	return slices.DeleteFunc(slices.Clone(list), func(x id.Member) bool { return x == m })
}

// Nobody goes on alone without data, without having been a member at the end, or
// with a log that lost something.
func TestWhoMayNotGoOnAlone(t *testing.T) {
	w := newWorld(t, 91, 3)
	w.members[0].lone = true
	if w.members[0].start() || !errors.Is(w.members[0].openErr, ErrNoData) {
		t.Errorf("without data: %v", w.members[0].openErr)
	}

	w = newWorld(t, 92, 3).start()
	leader := w.untilLed()
	w.result(leader.put(0))
	gone := w.members[leader.id%3]
	if r := w.result(leader.change(0, without(w.conf().Voters, gone.id)...)); r.Err != nil {
		t.Fatal(r.Err)
	}
	w.until(10*time.Second, "news of the removal", func() bool { return !gone.group.Status().Conf.Has(gone.id) })
	gone.crash(simenv.ProcessCrash)
	gone.lone = true
	if gone.start() || !errors.Is(gone.openErr, ErrNoMember) {
		t.Errorf("removed: %v", gone.openErr)
	}
}
