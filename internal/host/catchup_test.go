package host

import (
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
)

// farBehind is a world whose second member lacks so many entries of 1 KB, which the
// leader has on disk only, and reads back by four.
func farBehind(t *testing.T, seed uint64, entries int) (w *world, leader, away, other *member) {
	w = newWorld(t, seed, 3)
	w.limits.CacheBytes, w.limits.ChunkBytes = 1, 4<<10
	w.start()
	leader = w.untilLed()
	away, other = w.members[leader.id%3], w.members[(leader.id+1)%3]
	away.crash(simenv.ProcessCrash)
	for range entries {
		w.result(leader.propose(1000, 0))
	}
	return w, leader, away, other
}

// catchUp is how long it takes a member to be where another is now.
func (w *world) catchUp(m, than *member) time.Duration {
	w.t.Helper()
	begun := w.sim.Now()
	want := than.state.mark.Index
	w.until(time.Minute, "the same state", func() bool { return m.state.mark.Index >= want })
	return w.sim.Now().Sub(begun)
}

// What a follower lacks goes to it at a pace.
func TestCatchingUpIsPaced(t *testing.T) {
	w, leader, away, _ := farBehind(t, 400, 200)
	w.run(busyFor)
	away.back()
	took := w.catchUp(away, leader)
	if least := 200 / 4 * chunkPause * 3 / 4; took < least || took > 4*least+time.Second {
		t.Errorf("200 KB in pieces of 4 took %v", took)
	}
	if away.state.loads > 0 {
		t.Error("a snapshot was sent")
	}
	w.converge()
	w.check()
}

// While clients write the pace is a slower one.
func TestCatchingUpIsSlowerWhileClientsWrite(t *testing.T) {
	w, leader, away, _ := farBehind(t, 403, 200)
	w.until(time.Second, "the end of what clients wait for", w.isDone)
	away.back()
	begun := w.sim.Now()
	for away.state.mark.Index < 200 {
		leader.propose(0, 0)
		leader.turn(stepStage)
		w.run(busyFor / 2)
		if w.sim.Now().Sub(begun) > time.Minute {
			t.Fatalf("it has %v", away.state.mark)
		}
	}
	if took, least := w.sim.Now().Sub(begun), 200/4*busyPause*3/4; took < least {
		t.Errorf("200 KB in pieces of 4 took %v", took)
	}
	w.converge()
	w.check()
}

// A member that has nothing is sent the state when the log is longer than what a
// restart replays; one that was away is read the same log back.
func TestOneThatHasNothingIsSentTheStateRatherThanALongLog(t *testing.T) {
	for _, c := range []struct {
		name  string
		fresh bool
		flush int64
		loads int
	}{
		{"a long log", true, 1000, 1},
		{"a short log", true, 1 << 20, 0},
		{"one that was away", false, 1000, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 404, 3)
			w.limits.FlushBytes, w.limits.CacheBytes = c.flush, 1
			late := w.members[2]
			w.members[0].start()
			w.members[1].start()
			if !c.fresh {
				late.start()
			}
			leader := w.untilLed()
			if !c.fresh {
				if leader == late {
					late = w.members[0]
				}
				w.result(leader.put(0))
				w.converge()
				late.crash(simenv.ProcessCrash)
			}
			for range 100 {
				w.result(leader.propose(100, 0))
			}
			w.run(2 * time.Second)
			late.back()
			w.catchUp(late, leader)
			if base := leader.host.opts.Log.Bounds(1).Base; late.state.loads != c.loads || base.Index != 0 {
				t.Errorf("%d states were sent, and the log begins after %v", late.state.loads, base)
			}
			w.settled()
		})
	}
}

// The same follower is needed for a quorum: clients wait for it, and nothing else
// does.
func TestCatchingUpHurriesWhenNothingIsCommitted(t *testing.T) {
	w, leader, away, other := farBehind(t, 401, 200)
	w.run(time.Second)
	other.crash(simenv.ProcessCrash)
	leader.put(0)
	w.run(500 * time.Millisecond) // less than an election time-out: it still leads
	away.back()
	begun := w.sim.Now()
	w.until(time.Minute, "the same state", func() bool { return away.state.mark.Index >= 200 })
	if took := w.sim.Now().Sub(begun); leader.group.Leader() == leader.id && took > 200/4*chunkPause/2 {
		t.Errorf("it took %v", took)
	}
	other.back()
	w.converge()
	w.check()
}

// More is written than the pace allows: the follower does not stay behind for ever.
func TestCatchingUpIsFasterThanTheWriters(t *testing.T) {
	w, leader, away, _ := farBehind(t, 402, 100)
	away.back()
	until := w.sim.Now().Add(20 * time.Second)
	for lag := 1000; lag > 40; lag = int(leader.state.mark.Index) - int(away.state.mark.Index) {
		for range 10 { // 10 KB in 12 ms, and the pace is 4
			leader.propose(1000, 0)
			leader.turn(stepStage)
			w.run(chunkPause / 10)
		}
		if w.sim.Now() > until {
			t.Fatalf("it still lacks %d of %d entries", lag, leader.state.mark.Index)
		}
	}
	w.converge()
	w.check()
}
