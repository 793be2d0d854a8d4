package host

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// stopped is a world whose first member has some log and has crashed; its state
// survives up to the last flush only, so that the log is replayed.
func stopped(t *testing.T, members int) (*world, *member) {
	w := newWorld(t, 20, members).start()
	m := w.untilLed()
	for range 20 {
		w.result(m.put(0))
	}
	w.until(10*time.Second, "the same everywhere", func() bool {
		for _, o := range w.members {
			if o.state.mark != m.state.mark {
				return false
			}
		}
		return true
	})
	for _, o := range w.members {
		o.crash(simenv.PowerCrash)
	}
	return w, m
}

// fill makes the log so long that its beginning is trimmed.
func (m *member) fill() {
	for range 60 {
		m.w.result(m.proposeSize(4000))
	}
}

func TestStartReplaysWhatIsCommitted(t *testing.T) {
	w, m := stopped(t, 1)
	if !m.start() {
		t.Fatal(m.openErr)
	}
	replayed := m.state.mark.Index
	if replayed == 0 || m.group.Applied() != replayed {
		t.Fatalf("replayed up to %d, the group says %d", replayed, m.group.Applied())
	}
	for tag, c := range w.calls {
		if r, _ := w.sink.get(tag); r.Index <= replayed && m.state.data[keyOf(tag)] == "" {
			t.Fatalf("%s is not there", c.value)
		}
	}
}

// The replay tells how far it has come.
func TestReplayTellsItsProgress(t *testing.T) {
	w, m := stopped(t, 1)
	m.proc = m.machine.Start()
	outside := m.proc.World()
	log, err := raftlog.Open(raftlog.Options{FS: outside.FS, Dir: w.dir, Rand: outside.Rand, Tasks: outside.Tasks, Clock: outside.Clock})
	if err != nil {
		t.Fatal(err)
	}
	var told []id.Index
	h := New(Options{Member: 1, Clock: outside.Clock, Rand: outside.Rand, Tasks: outside.Tasks, Log: log, Transport: m,
		Election: time.Second, Heartbeat: time.Second / 10, Replaying: func(_ id.Group, at, last id.Index) { told = append(told, at, last) }})
	m.host = h
	state := &register{m: m, data: map[string]string{}}
	if _, err := h.Open(1, state, raft.Conf{}); err != nil {
		t.Fatal(err)
	}
	if len(told) < 2 || told[len(told)-1] != state.mark.Index || told[len(told)-2] != state.mark.Index {
		t.Fatalf("told %v, replayed up to %d", told, state.mark.Index)
	}
}

func keyOf(tag uint64) string { return "k" + string(rune('0'+tag%7)) }

// A lone voter does not start when its log does not hold what its state says.
func TestALoneVoterRefusesALogThatDoesNotFit(t *testing.T) {
	for name, spoil := range map[string]func(w *world, m *member){
		"ends before": func(_ *world, m *member) { m.saved.mark = raft.Position{Index: 99999, Term: 1} },
		"begins after": func(_ *world, m *member) {
			m.saved.mark = raft.Position{}
		},
		"does not know": func(w *world, m *member) {
			m.saved.mark = raft.Position{Index: 9, Term: 1}
			w.dir += "elsewhere"
		},
	} {
		w := newWorld(t, 20, 1)
		w.limits.FlushBytes = 1000
		w.start()
		m := w.members[0]
		m.fill()
		if name == "begins after" && m.host.opts.Log.Bounds(1).Base.Index == 0 {
			t.Fatal("the log was never trimmed")
		}
		m.crash(simenv.ProcessCrash)
		spoil(w, m)
		var lost *LostLogError
		if m.start() || !errors.As(m.openErr, &lost) || !strings.Contains(lost.Error(), name) {
			t.Errorf("%s: %v", name, m.openErr)
		}
	}
}

func TestALoneVoterRefusesADamagedLog(t *testing.T) {
	w, m := stopped(t, 1)
	disk := m.machine.Disk()
	for _, f := range disk.Files() {
		if strings.HasPrefix(f, w.dir) {
			// A block amid the good ones of the log.
			if err := disk.Flip(f, 3*4096+100, 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	var damage *raftlog.DamageError
	if m.start() || !errors.As(m.openErr, &damage) || damage.File == "" {
		t.Fatalf("%v", m.openErr)
	}
}

// A damaged replica of three starts, does not vote, catches up, and votes again
// once it has applied an entry of a later term (rule 5).
func TestADamagedReplicaOfThreeComesBack(t *testing.T) {
	w, m := stopped(t, 3)
	disk := m.machine.Disk()
	for _, f := range disk.Files() {
		if err := disk.Flip(f, 3*4096+100, 3); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range w.members {
		if !o.start() {
			t.Fatal(o.openErr)
		}
	}
	if !m.group.Status().Damaged {
		t.Fatal("the replica does not know that it is damaged")
	}
	if l := w.untilLed(); l == m {
		t.Fatal("a damaged replica leads")
	}
	w.result(w.members[m.id%3].put(0))
	w.converge()
	w.check()
}

// Damage is not forgotten by another crash, although the store has all that is left
// of the log: the log is not trimmed before the replica has healed.
func TestDamageIsRememberedUntilItIsHealed(t *testing.T) {
	w, m := stopped(t, 3)
	w.limits.FlushBytes, w.limits.RetainBytes = 1, 1
	disk := m.machine.Disk()
	for _, f := range disk.Files() {
		if err := disk.Flip(f, 10*4096+100, 3); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range w.members {
		if o != m && !o.start() {
			t.Fatal(o.openErr)
		}
	}
	// It hears of new terms, which it notes in its log, but gets no entries.
	w.onSend = func(e *Envelope) bool { return e.To == m.id && e.weight() > envelopeWeight }
	for range 4 {
		if !m.start() {
			t.Fatal(m.openErr)
		}
		s := m.group.Status()
		if !s.Damaged || s.Last.Index < 3 {
			t.Fatalf("%+v", s)
		}
		leader := w.untilLed()
		if leader.group.Transfer(0) == nil {
			leader.poke()
		}
		w.run(3 * time.Second)
		m.crash(simenv.PowerCrash)
		// The next run begins with a state that is as far as its log.
		m.saved = savedState{mark: s.Last, data: w.replayed(s.Last.Index)}
	}
	w.onSend = nil
	m.start()
	leader := w.untilLed()
	if err := leader.group.Transfer(0); err != nil {
		t.Fatal(err)
	}
	leader.poke()
	w.until(20*time.Second, "the replica to heal", func() bool { return !m.group.Status().Damaged })
	w.result(m.put(0))
	w.converge()
	w.check()
}

// A crash between the installation of a snapshot and the reset of the log leaves
// a log that knows nothing of the state's mark: it is discarded (rule 12).
func TestALogThatForkedIsRestartedAtTheMark(t *testing.T) {
	w, m := stopped(t, 3)
	at := raft.Position{Index: 5, Term: 77}
	m.saved.mark = at
	if !m.start() {
		t.Fatal(m.openErr)
	}
	if s := m.group.Status(); s.Last != at || s.Applied != 5 || s.Damaged || s.Hard.Term < 77 {
		t.Fatalf("%+v", s)
	}
	// The record of it is durable with the first frame.
	w.until(10*time.Second, "the reset in the log", func() bool {
		return m.host.opts.Log.Bounds(1).Base == at
	})
	m.crash(simenv.PowerCrash)
	if !m.start() || m.group.Status().Last != at {
		t.Fatalf("%v, log up to %+v", m.openErr, m.group.Status().Last)
	}
}

// A state that is gone, with a log that was trimmed, makes a replica of three
// damaged; it gets everything from the others.
func TestALostStateIsFetchedFromTheOthers(t *testing.T) {
	w := newWorld(t, 23, 3)
	w.limits.FlushBytes, w.limits.RetainBytes = 1000, 1000
	w.start()
	m := w.untilLed()
	m.fill()
	if m.host.opts.Log.Bounds(1).Base.Index == 0 {
		t.Fatal("the log was never trimmed")
	}
	m.crash(simenv.ProcessCrash)
	m.saved = savedState{data: map[string]string{}}
	if !m.start() || !m.group.Status().Damaged {
		t.Fatalf("%v", m.openErr)
	}
	w.untilLed()
	w.converge()
	w.check()
}

// A follower that was away for longer than the log is kept gets the state, and a
// crash at any moment of that does no harm.
func TestSnapshotCatchUp(t *testing.T) {
	for crashAfter := range 12 {
		w := newWorld(t, uint64(30+crashAfter), 3)
		w.limits.FlushBytes, w.limits.RetainBytes = 1000, 1000
		w.start()
		leader := w.untilLed()
		away := w.members[leader.id%3]
		w.result(away.put(0))
		away.crash(simenv.ProcessCrash)
		leader.fill()
		if leader.host.opts.Log.Bounds(1).Base.Index == 0 {
			t.Fatal("the log was never trimmed")
		}
		if !away.start() {
			t.Fatal(away.openErr)
		}
		start := away.state.mark.Index
		// The state jumps in the middle of the log: a snapshot was loaded.
		w.until(20*time.Second, "a snapshot", func() bool { return away.state.loads > 0 })
		if away.state.mark.Index <= start {
			t.Fatal("the snapshot leads nowhere")
		}
		if crashAfter > 0 {
			for range crashAfter - 1 {
				w.step()
			}
			away.crash(simenv.Crash(crashAfter % 2))
			if !away.start() {
				t.Fatal(away.openErr)
			}
		}
		w.result(leader.put(0))
		w.converge()
		w.check()
	}
}

// A leader that was cut off has more entries, of its own term, than the others
// have; they bring it a snapshot that ends among them. A crash comes when the state
// is in place and the log still knows nothing of it. Then it leads again, and one
// who was away all the time learns everything from it.
func crashBetweenStateAndLog(t testing.TB) {
	w := newWorld(t, 40, 5)
	w.limits.FlushBytes, w.limits.RetainBytes = 1000, 1000
	w.start()
	old := w.untilLed()
	w.result(old.put(0))
	w.cut[old.id] = true
	away := w.members[old.id%5]
	away.crash(simenv.PowerCrash)
	for range 300 {
		old.put(time.Second)
		old.turn(stepStage)
		w.run(100 * time.Microsecond)
	}
	w.until(20*time.Second, "another leader", func() bool { l := w.leader(); return l != nil && l != old })
	next := w.leader()
	for range 40 {
		w.result(next.proposeSize(8000))
	}
	w.until(10*time.Second, "a shorter log", func() bool { return next.host.opts.Log.Bounds(1).Base.Index > 5 })
	delete(w.cut, old.id)
	w.until(20*time.Second, "a snapshot", func() bool { return old.state.loads > 0 })
	if at := old.state.mark.Index; old.host.opts.Log.Bounds(1).Last.Index <= at {
		t.Fatalf("the log ends before the snapshot's index %d: nothing is shown", at)
	}
	old.crash(simenv.ProcessCrash)
	w.forget(old)
	w.limits = Limits{} // it keeps its log from now on
	if !old.start() {
		t.Fatal(old.openErr)
	}
	w.result(next.put(0))
	w.until(10*time.Second, "the old leader to catch up", func() bool { return old.state.mark == next.state.mark })
	if err := next.group.Transfer(old.id); err != nil {
		t.Fatal(err)
	}
	next.poke()
	w.until(10*time.Second, "the old leader to lead", func() bool { return w.leader() == old })
	if !away.start() {
		t.Fatal(away.openErr)
	}
	w.converge()
	w.check()
}

func TestACrashBetweenStateAndLog(t *testing.T) { crashBetweenStateAndLog(t) }

// A machine that cannot save its state leaves the follower behind, and does not
// stop the others.
func TestAMachineWithoutSnapshots(t *testing.T) {
	w := newWorld(t, 50, 3)
	w.limits.FlushBytes, w.limits.RetainBytes = 1000, 1000
	w.noSaves = true
	w.start()
	leader := w.untilLed()
	away := w.members[leader.id%3]
	away.crash(simenv.ProcessCrash)
	leader.fill()
	if !away.start() {
		t.Fatal(away.openErr)
	}
	w.run(5 * time.Second)
	if r := w.result(leader.put(0)); r.Err != nil || away.state.mark.Index > 100 {
		t.Fatalf("%+v, the follower is at %d", r, away.state.mark.Index)
	}
}
