package state_test

import (
	"errors"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/state/command"
)

// A downgrade is part of the state: it is answered with the version of there and then,
// survives a crash, comes with a snapshot, and is in the hash.
func TestADowngradeIsReplicated(t *testing.T) {
	r := newReplica(t, 1)
	v37, v36 := command.Version{Major: 3, Minor: 7}, command.Version{Major: 3, Minor: 6}
	agree := func(v command.Version) {
		t.Helper()
		r.entry(1, command.Encode(nil, command.Header{Term: 1}, &command.ClusterVersion{Version: v}))
		if o := r.apply(); o[0].Err != nil {
			t.Fatal(o[0].Err)
		}
	}
	r.must(&command.MemberPublish{Member: 1, Name: "one", PeerURLs: []string{"http://a"}, Version: v37})
	if _, err := r.do(&command.DowngradeEnable{Target: v36}); !errors.Is(err, command.ErrNoClusterVersion) {
		t.Fatal(err)
	}
	agree(v37)
	r.put("a", "1")
	if _, err := r.do(&command.DowngradeEnable{Target: command.FirstVersion}); !errors.Is(err, command.ErrDowngradeTarget) {
		t.Fatal(err)
	}
	before := r.hash()
	if got := r.must(&command.DowngradeEnable{Target: v36}).(*command.DowngradeResponse); *got != (command.DowngradeResponse{Revision: 2, Version: v37}) {
		t.Fatalf("enabled: %+v", got)
	}
	if r.hash() == before {
		t.Fatal("the hash does not know of it")
	}
	agree(v36)
	look := func(r *replica) {
		t.Helper()
		if v := r.m.View(); v.Downgrade() != v36 || v.ClusterVersion() != v36 || v.Downgraded() || !errors.Is(v.JudgeDowngrade(command.Version{Major: 3, Minor: 5}), command.ErrDowngrading) {
			t.Fatalf("version %v, downgrade to %v", v.ClusterVersion(), v.Downgrade())
		}
	}
	look(r)
	if err := r.m.StartFlush(); err != nil {
		t.Fatal(err)
	}
	r.settle()
	r.crash(simenv.PowerCrash)
	look(r)
	other := newReplica(t, 2)
	r.copyTo(other)
	look(other)
	if other.hash() != r.hash() {
		t.Fatal("the copy differs")
	}
	if got := r.must(&command.DowngradeCancel{}).(*command.DowngradeResponse); *got != (command.DowngradeResponse{Revision: 2, Version: v36}) {
		t.Fatalf("cancelled: %+v", got)
	}
	agree(v37)
	if r.hash() != before {
		t.Fatal("it has left something behind")
	}
}
