package state_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
)

// chunks freezes a state and reads it in pieces of maxBytes.
func chunks(t testing.TB, r *replica, maxBytes int) (at raft.Position, list [][]byte) {
	t.Helper()
	saved, err := r.m.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	// What is applied from now on is not in it.
	r.put("later", "1")
	r.settle()
	for {
		chunk, ok, err := saved.Next(maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return saved.At(), list
		}
		list = append(list, chunk)
	}
}

func each(list [][]byte) func() ([]byte, bool) {
	return func() ([]byte, bool) {
		if len(list) == 0 {
			return nil, false
		}
		chunk := list[0]
		list = list[1:]
		return chunk, true
	}
}

// receive moves a snapshot into a machine.
func receive(m *state.Machine, at raft.Position, next func() ([]byte, bool)) error {
	in := m.Receive(at, raft.PlacedConf{})
	for chunk, ok := next(); ok; chunk, ok = next() {
		if err := in.Add(chunk); err != nil {
			return errors.Join(err, in.Close())
		}
	}
	return errors.Join(m.Load(in), in.Close())
}

func filled(t testing.TB) *replica {
	r := newReplica(t, 1)
	for i := range 200 {
		r.put(fmt.Sprintf("k%d", i%50), fmt.Sprint(i))
	}
	if _, err := r.do(&command.MemberPublish{Member: 3, Name: "three"}); err != nil {
		t.Fatal(err)
	}
	r.compact(120)
	r.turn() // removal has begun
	return r
}

func TestSnapshotCarriesTheWholeState(t *testing.T) {
	for _, maxBytes := range []int{0, 1, 300, 5000} {
		r := filled(t)
		want, mark := r.hash(), r.m.Mark()
		at, list := chunks(t, r, maxBytes)
		if at != mark || maxBytes == 300 && len(list) < 10 || maxBytes == 0 && len(list) != 1 {
			t.Fatalf("%d chunks at %v, mark %v", len(list), at, mark)
		}
		for _, chunk := range list {
			if maxBytes > 1 && len(chunk) > 2*maxBytes+300 {
				t.Fatalf("a chunk of %d bytes", len(chunk))
			}
		}
		into := newReplica(t, 2)
		into.put("gone", "1")
		old := into.m.View()
		if err := receive(into.m, at, each(list)); err != nil {
			t.Fatal(err)
		}
		if into.hash() != want || into.m.Mark() != at || into.m.View().At != at || len(into.m.View().Members()) != 1 {
			t.Fatalf("loaded state differs, mark %v", into.m.Mark())
		}
		if got := into.get("gone", 0); got != "" {
			t.Fatalf("a key of the former state: %q", got)
		}
		// The old view passes its readers on.
		if resp, err := old.Range(&command.RangeRequest{Key: []byte("k7")}); err != nil || len(resp.KVs) != 1 {
			t.Fatalf("%+v, %v", resp, err)
		}
		// It is durable at once, and goes on from there.
		into.crash(simenv.PowerCrash)
		if into.hash() != want || into.m.Mark() != at {
			t.Fatal("the loaded state was not durable")
		}
		into.settle()
		if into.hash() != want {
			t.Fatal("removal that went on changed the state")
		}
		if _, err := into.m.Apply([]raft.Entry{{Index: at.Index + 1, Term: at.Term, Kind: raft.Empty}}); err != nil {
			t.Fatal(err)
		}
	}
}

// One flipped bit anywhere, a chunk missing, twice or in another's place: refused,
// and the state is what it was.
func TestDamagedSnapshotsAreRefused(t *testing.T) {
	at, list := chunks(t, filled(t), 2000)
	if len(list) < 3 {
		t.Fatalf("only %d chunks", len(list))
	}
	into := newReplica(t, 2)
	into.put("a", "1")
	want := into.hash()
	refuse := func(what string, at raft.Position, list ...[]byte) {
		t.Helper()
		if err := receive(into.m, at, each(list)); !errors.Is(err, state.ErrDamagedSnapshot) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	last := list[len(list)-1]
	refuse("nothing", at)
	refuse("the last chunk missing", at, list[:len(list)-1]...)
	refuse("the first chunk missing", at, list[1:]...)
	refuse("a chunk twice", at, append([][]byte{list[0], list[0]}, list[1:]...)...)
	refuse("one after the last", at, append(append([][]byte{}, list...), last)...)
	refuse("another position", raft.Position{Index: at.Index + 1, Term: at.Term}, list...)
	refuse("another term", raft.Position{Index: at.Index, Term: at.Term + 1}, list...)
	for i := 0; i < len(list[1]); i++ {
		bad := append([]byte(nil), list[1]...)
		bad[i] ^= 1 << (i % 8)
		refuse(fmt.Sprintf("byte %d", i), at, append([][]byte{list[0], bad}, list[2:]...)...)
		refuse(fmt.Sprintf("cut at %d", i), at, append([][]byte{list[0], list[1][:i]}, list[2:]...)...)
	}
	if into.hash() != want || into.get("a", 0) != "1" {
		t.Fatal("a refused snapshot changed the state")
	}
	if err := receive(into.m, at, each(list)); err != nil {
		t.Fatal(err)
	}
}

// A power loss at any operation of the disk while a snapshot is installed leaves
// the old state or the new one.
func TestPowerLossDuringLoad(t *testing.T) {
	from := filled(t)
	newHash := from.hash()
	at, list := chunks(t, from, 0)
	old := 0
	for n := uint64(0); ; n++ {
		into := newReplica(t, 10+n)
		into.put("a", "1")
		if err := into.m.StartFlush(); err != nil {
			t.Fatal(err)
		}
		into.settle()
		oldHash := into.hash()
		into.disk.CrashAfter(n + 1)
		done := false
		func() {
			defer func() { recover() }()
			done = receive(into.m, at, each(list)) == nil
		}()
		if into.disk.Down() {
			done = false
		}
		into.crash(simenv.PowerCrash)
		switch h := into.hash(); {
		case h == newHash && into.m.Mark() == at:
		case h == oldHash && into.m.Mark().Index == 1 && !done:
			old++
		default:
			t.Fatalf("crash after %d operations: hash %x, mark %v, done %v", n, h, into.m.Mark(), done)
		}
		if done {
			if old < 2 {
				t.Fatalf("the old state was left %d times only, of %d", old, n)
			}
			return
		}
	}
}
