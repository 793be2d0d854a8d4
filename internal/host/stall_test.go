package host

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/id"
)

// stallWorld is a led cluster whose leader's disk stalls from now on, under load
// from every member.
func stallWorld(t *testing.T, members int) (w *world, leader *member) {
	w = newWorld(t, 31, members).start()
	leader = w.untilLed()
	for _, m := range w.members {
		w.result(m.put(0))
	}
	leader.stalled = true
	return w, leader
}

// settleStall lets the disk of a member work again and everything end.
func (w *world) settleStall(m *member) {
	m.stalled = false
	m.poke()
	w.until(time.Second, "the end of the stall", func() bool {
		n := len(m.stalls)
		return n == 0 || m.stalls[n-1].Over
	})
	w.until(30*time.Second, "the end of all calls", w.isDone)
	w.check()
}

// The disk of a leader stalls for five seconds: another leads within an election
// time-out, a client of the others waits no longer than that, a client of this
// member is told to go elsewhere, and leadership does not come back meanwhile.
func TestALeaderWhoseDiskStallsHandsOver(t *testing.T) {
	w, stalled := stallWorld(t, 3)
	begun := w.sim.Now()
	stuck := stalled.put(7 * time.Second)
	term := stalled.group.Term()
	w.until(time.Second, "another leader", func() bool {
		l := w.leader()
		return l != nil && l != stalled
	})
	next := w.leader()
	if next.group.Term() != term+1 {
		t.Errorf("the term went from %d to %d: there was an election too many", term, next.group.Term())
	}
	if r := w.result(next.put(7 * time.Second)); r.Err != nil || w.sim.Now().Sub(begun) > time.Second {
		t.Errorf("a put ends with %v, %v after the stall began", r.Err, w.sim.Now().Sub(begun))
	}
	if r := w.result(stuck); !errors.Is(r.Err, ErrTimeoutLeader) || w.sim.Now().Sub(begun) > 1500*time.Millisecond {
		t.Errorf("the put on the stalled member ends with %v, %v after the stall began", r.Err, w.sim.Now().Sub(begun))
	}
	now := w.sim.Now()
	for _, tag := range []uint64{stalled.put(7 * time.Second), stalled.read(7 * time.Second)} {
		if r := w.result(tag); !errors.Is(r.Err, ErrStalled) || w.sim.Now() != now {
			t.Errorf("a call to the stalled member ends with %v after %v", r.Err, w.sim.Now().Sub(now))
		}
	}
	if err := next.group.Transfer(stalled.id); err != nil {
		t.Fatal(err)
	}
	w.run(5*time.Second - w.sim.Now().Sub(begun))
	if l := w.leader(); l == stalled {
		t.Error("the stalled member leads again")
	}
	w.settleStall(stalled)
	if first, last := stalled.stalls[0], stalled.stalls[len(stalled.stalls)-1]; len(stalled.stalls) != 2 || !first.Leads || first.Heir != next.id ||
		first.Lasts < 500*time.Millisecond || first.Lasts > 700*time.Millisecond || !last.Over || last.Lasts < 4*time.Second {
		t.Errorf("it told %+v", stalled.stalls)
	}
	if r := w.result(stalled.put(0)); r.Err != nil {
		t.Errorf("a put after the stall: %v", r.Err)
	}
	if now := w.untilLed(); now == stalled {
		t.Error("it leads again without having been asked to")
	}
}

// A disk that is slow, but gets on, is no reason for another leader.
func TestASlowDiskIsNoStall(t *testing.T) {
	w, slow := stallWorld(t, 3)
	term := slow.group.Term()
	for range 10 {
		slow.stalled = true
		tag := slow.put(0)
		w.run(400 * time.Millisecond)
		slow.stalled = false
		slow.poke()
		if r := w.result(tag); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if w.leader() != slow || slow.group.Term() != term || len(slow.stalls) != 0 {
		t.Errorf("term %d became %d; told %+v", term, slow.group.Term(), slow.stalls)
	}
	w.settleStall(slow)
}

// A stalled leader stays when the others could not decide without it, or are no
// better off; its followers hear from it all the time.
func TestAStalledLeaderWithoutAnHeirGoesOn(t *testing.T) {
	for _, c := range []struct {
		name    string
		members int
		worse   func(w *world, leader *member)
	}{
		{"one of two", 2, func(*world, *member) {}},
		{"one other is down", 3, func(w *world, leader *member) {
			w.members[leader.id%3].crash(0)
		}},
		{"all disks stall", 3, func(w *world, _ *member) {
			for _, m := range w.members {
				m.stalled = true
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, leader := stallWorld(t, c.members)
			c.worse(w, leader)
			term := leader.group.Term()
			tag := leader.put(0)
			w.run(5 * time.Second)
			if w.leader() != leader || leader.group.Term() != term {
				t.Errorf("term %d became %d", term, leader.group.Term())
			}
			for _, m := range w.members {
				m.stalled = false
				if !m.up() {
					m.start()
				}
				m.poke()
			}
			if r := w.result(tag); r.Err != nil {
				t.Errorf("the put that waited: %v", r.Err)
			}
			w.settleStall(leader)
		})
	}
}

// A follower whose disk stalls costs the others nothing.
func TestAStalledFollowerIsNotWaitedFor(t *testing.T) {
	w, leader := stallWorld(t, 3)
	leader.stalled = false
	leader.poke()
	follower := w.members[leader.id%3]
	follower.stalled = true
	term := leader.group.Term()
	for range 50 {
		begun := w.sim.Now()
		if r := w.result(leader.put(0)); r.Err != nil || w.sim.Now().Sub(begun) > 50*time.Millisecond {
			t.Fatalf("a put ends with %v after %v", r.Err, w.sim.Now().Sub(begun))
		}
		w.run(50 * time.Millisecond)
	}
	if leader.group.Term() != term || len(leader.stalls) != 0 || len(follower.stalls) != 1 || follower.stalls[0].Leads {
		t.Errorf("term %d became %d; told %+v and %+v", term, leader.group.Term(), leader.stalls, follower.stalls)
	}
	w.settleStall(follower)
}

// gated is a file system whose data syncs wait while the gate is locked.
type gated struct {
	env.FS
	gate *sync.Mutex
	held *atomic.Int32
}

type gatedFile struct {
	vfs.File
	fs *gated
}

func (g *gated) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.OpenReadWrite(name, category, opts...)
	return &gatedFile{f, g}, err
}

func (f *gatedFile) SyncData() error {
	f.fs.held.Add(1)
	f.fs.gate.Lock()
	defer f.fs.gate.Unlock()
	f.fs.held.Add(-1)
	return f.File.SyncData()
}

// Heartbeats leave while a sync of the real disk hangs in the kernel: for many
// election time-outs nobody doubts the leader of two, who cannot hand over.
func TestHeartbeatsDoNotWaitForASync(t *testing.T) {
	l := &lan{hosts: map[id.Member]*Host{}}
	var gates [2]sync.Mutex
	var held [2]atomic.Int32
	var all [2]*running
	for i := range all {
		all[i] = runOn(t, &gated{osenv.FS(), &gates[i], &held[i]}, l, id.Member(i+1), 1, 2)
	}
	defer all[0].stop(t)
	defer all[1].stop(t)
	call := waiter(make(chan Result, 1))
	all[0].group.Propose(Call{To: call}, put("k", "v"))
	if r := <-call; r.Err != nil {
		t.Fatal(r.Err)
	}
	leads := 0
	if all[1].group.Leader() == 2 {
		leads = 1
	}
	leader, follower := all[leads], all[1-leads]
	term := leader.group.Term()
	gates[leads].Lock()
	leader.group.Propose(Call{To: call}, put("k", "w"))
	for end := time.Now().Add(5 * leader.host.opts.Election); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if follower.group.Term() != term || follower.group.Leader() != id.Member(leads+1) {
			t.Errorf("the follower is in term %d and takes %v for the leader", follower.group.Term(), follower.group.Leader())
			break
		}
	}
	if held[leads].Load() == 0 || len(call) != 0 {
		t.Error("no sync was under way: nothing was shown")
	}
	gates[leads].Unlock()
	if r := <-call; r.Err != nil {
		t.Errorf("the put that waited: %v", r.Err)
	}
}
