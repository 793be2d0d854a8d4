package raft

import (
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
)

// A lone voter leads as soon as it is asked to, commits by itself, confirms
// reads at once and never needs to be woken again.
func TestLoneVoterNeedsNobody(t *testing.T) {
	w := newWorld(1)
	r := w.replicas[0]
	r.start()
	r.node.Campaign(w.now)
	r.pump()
	w.settle(nil)
	if wake := r.node.Wake(); wake != env.Never {
		t.Fatalf("a lone leader wants to wake at %d", wake)
	}
	if _, err := r.propose("x"); err != nil {
		t.Fatal(err)
	}
	w.settle(nil)
	if _, err := r.read(); err != nil {
		t.Fatal(err)
	}
	if len(w.fates) != 1 || w.fates[0].Index != 2 || r.applied != 2 {
		t.Fatalf("reads %v, applied %d", w.fates, r.applied)
	}
	r.crash()
	r.start()
	w.pass(2 * time.Second)
	w.settle(nil)
	if s := r.node.Status(); s.Role != Leader || s.Hard.Term != 2 || s.Applied != 3 {
		t.Fatalf("after a restart: %+v", s)
	}
}

func TestThreeVotersElectReplicateAndRead(t *testing.T) {
	w := newWorld(3)
	for _, r := range w.replicas {
		r.start()
	}
	w.replicas[0].node.Campaign(w.now)
	w.replicas[0].pump()
	w.settle(nil)
	if w.leader() != w.replicas[0] {
		t.Fatalf("no leader: %+v", w.replicas[0].node.Status())
	}
	for range 10 {
		w.leader().propose("x")
	}
	w.replicas[2].read()
	w.settle(nil)
	w.pass(time.Second)
	w.settle(nil)
	for _, r := range w.replicas {
		if r.applied != 11 {
			t.Errorf("%v applied %d", r.id, r.applied)
		}
	}
	if len(w.fates) != 1 || w.fates[0].Err != nil {
		t.Fatalf("reads %v", w.fates)
	}
}
