package host

import (
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
)

// A lone voter leads at once, commits what it is given, and answers reads.
func TestALoneVoterCommits(t *testing.T) {
	w := newWorld(t, 1, 1).start()
	m := w.members[0]
	var tags []uint64
	for range 10 {
		tags = append(tags, m.put(0))
	}
	for _, tag := range tags {
		if r := w.result(tag); r.Err != nil {
			t.Fatalf("put %d: %v", tag, r.Err)
		}
	}
	read := m.read(0)
	if r := w.result(read); r.Err != nil || r.Index < w.ackedUpTo {
		t.Fatalf("read: %+v", r)
	}
	if w.sim.Now() > 1e9 {
		t.Fatalf("it took %v: a lone voter need not wait for an election", time.Duration(w.sim.Now()))
	}
	if s := m.group.Status(); s.Leader != 1 || m.group.Leader() != 1 || m.group.Term() != s.Hard.Term || s.Waiting != 0 {
		t.Fatalf("status %+v", s)
	}
	w.check()
}

// What was acknowledged survives both kinds of crash, wherever they come.
func TestALoneVoterLosesNothing(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(t, seed, 1).start()
		m := w.members[0]
		for range 4 {
			for range 1 + w.draw.Int64N(30) {
				m.put(0)
				for range w.draw.Int64N(12) {
					w.step()
				}
			}
			m.crash(simenv.Crash(w.draw.Int64N(2)))
			if !m.start() {
				t.Fatalf("seed %d: %v", seed, m.openErr)
			}
		}
		last := m.put(0)
		if r := w.result(last); r.Err != nil {
			t.Fatalf("seed %d: %v", seed, r.Err)
		}
		for tag, c := range w.calls {
			if r, ok := w.sink.get(tag); ok && r.Err == nil && !c.read && len(w.values[c.value]) != 1 {
				t.Fatalf("seed %d: %s was acknowledged and applied at %v", seed, c.value, w.values[c.value])
			}
		}
		w.check()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
