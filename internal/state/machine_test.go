package state_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// machine is what host.Machine asks for; the host is a floor above.
type machine interface {
	Mark() raft.Position
	Apply([]raft.Entry) ([]command.Outcome, error)
	Durable() (raft.Position, error)
	StartFlush() error
	env.Turner
}

// snapshots is what host.Snapshots asks for.
type snapshots interface {
	Freeze() (state.Frozen, error)
	Receive(at raft.Position, conf raft.PlacedConf) state.Receiving
	Load(from state.Receiving) error
	Loaded() (conf raft.PlacedConf, ok bool)
}

var (
	_ machine   = (*state.Machine)(nil)
	_ snapshots = (*state.Machine)(nil)
)

func encode(h command.Header, body command.Body) []byte { return command.Encode(nil, h, body) }

func TestOutcomesNameTheirCommands(t *testing.T) {
	r := newReplica(t, 1)
	first := command.Origin{Member: 1, Boot: 2, Seq: 3}
	second := command.Origin{Member: 4, Boot: 5, Seq: 6}
	r.entry(1, encode(command.Header{Origin: first}, &command.PutRequest{Key: []byte("a")}))
	added := command.EncodeChange(&command.MemberChange{Change: command.AddLearner, Member: 9, PeerURLs: []string{"http://p"}})
	r.log = append(r.log, raft.Entry{Term: 2, Index: 2, Kind: raft.Empty},
		raft.Entry{Term: 2, Index: 3, Kind: raft.Change, Data: raft.EncodeChange(raft.Conf{Voters: []id.Member{1}, Learners: []id.Member{9}}, added)})
	r.entry(2,
		encode(command.Header{Origin: second}, &command.PutRequest{Key: []byte("a"), IgnoreValue: true, Lease: 5}),
		encode(command.Header{Origin: first}, &command.DeleteRangeRequest{Key: []byte("b")}))
	want := []command.Outcome{
		{Origin: first, Term: 1, Index: 1, Response: &command.PutResponse{Revision: 2}},
		{Origin: second, Term: 2, Index: 4, Err: command.ErrLeaseNotFound},
		{Origin: first, Term: 2, Index: 4, Response: &command.DeleteRangeResponse{Revision: 2}},
	}
	if got := r.apply(); !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if mark := (raft.Position{Index: 4, Term: 2}); r.m.Mark() != mark || r.m.View().At != mark {
		t.Fatalf("mark %v, view at %v", r.m.Mark(), r.m.View().At)
	}
	if m, known := r.m.View().Member(9); !known || !m.Learner || m.PeerURLs[0] != "http://p" {
		t.Fatalf("the member that the configuration brought: %+v, %v", m, known)
	}
	if outcomes, err := r.m.Apply(nil); outcomes != nil || err != nil {
		t.Fatalf("applying nothing: %v, %v", outcomes, err)
	}
}

// Reads of a view do not change with what is applied later.
func TestViewsStay(t *testing.T) {
	r := newReplica(t, 1)
	r.put("a", "1")
	v := r.m.View()
	r.put("a", "2")
	for view, want := range map[*state.View]string{v: "1", r.m.View(): "2"} {
		resp, err := view.Range(&command.RangeRequest{Key: []byte("a")})
		if err != nil || string(resp.KVs[0].Value) != want || resp.Revision != view.State().Revision {
			t.Fatalf("%+v, %v; want %s", resp, err, want)
		}
	}
	// Compaction passes the older one: what it was asked as the newest state is
	// answered from the newer, what was asked by revision is refused.
	r.compact(3)
	if resp, err := v.Range(&command.RangeRequest{Key: []byte("a")}); err != nil || string(resp.KVs[0].Value) != "2" || resp.Revision != 3 {
		t.Fatalf("%+v, %v", resp, err)
	}
	if resp, err := v.Range(&command.RangeRequest{Key: []byte("a"), Revision: 2}); !errors.Is(err, command.ErrCompacted) {
		t.Fatalf("%+v, %v", resp, err)
	}
	newest := &command.TxnRequest{Success: []command.Op{{Range: &command.RangeRequest{Key: []byte("a")}}}}
	if resp, err := v.Txn(newest); err != nil || resp.Revision != 3 {
		t.Fatalf("%+v, %v", resp, err)
	}
	newest.Success[0].Range.Revision = 2
	if resp, err := v.Txn(newest); !errors.Is(err, command.ErrCompacted) {
		t.Fatalf("%+v, %v", resp, err)
	}
}

// Whatever was flushed, the state that a power loss leaves is the one at its
// mark, and the log from there on leads to the same state.
func TestPowerLossAtEveryOperationOfTheDisk(t *testing.T) {
	// story applies ten entries with flushes between, and stops when the disk does.
	story := func(r *replica) {
		defer func() { recover() }() // the disk is gone
		for i := range 10 {
			r.entry(1, encode(command.Header{}, &command.PutRequest{Key: []byte{'a' + byte(i%3)}, Value: []byte{byte(i)}}))
			if i == 6 {
				r.entry(1, encode(command.Header{}, &command.CompactRequest{Revision: 5}))
			}
		}
		for _, e := range r.log {
			if _, err := r.m.Apply([]raft.Entry{e}); err != nil {
				return
			}
			if e.Index%2 == 0 {
				if r.m.StartFlush() != nil {
					return
				}
			}
			for range 5 {
				if r.disk.Down() {
					return
				}
				r.m.Turn(r.now)
				for r.disk.PendingSyncs() > 0 && !r.disk.Down() {
					r.disk.CompleteSync(0)
				}
			}
		}
	}
	whole := newReplica(t, 1)
	before := whole.disk.Ops()
	story(whole)
	ops := whole.disk.Ops() - before
	want := whole.hash()
	at := map[id.Index]uint64{} // the hash at each mark
	one := newReplica(t, 2)
	at[0] = one.hash()
	for _, e := range whole.log {
		if _, err := one.m.Apply([]raft.Entry{e}); err != nil {
			t.Fatal(err)
		}
		at[e.Index] = one.hash()
	}
	if ops < 20 {
		t.Fatalf("only %d operations", ops)
	}
	seen := map[id.Index]bool{}
	for n := range ops {
		r := newReplica(t, 100+n)
		r.disk.CrashAfter(n + 1)
		story(r)
		r.crash(simenv.PowerCrash)
		mark := r.m.Mark()
		seen[mark.Index] = true
		if got := r.hash(); got != at[mark.Index] {
			t.Fatalf("crash after %d operations: at mark %v the hash is %x, want %x", n, mark, got, at[mark.Index])
		}
		r.log = whole.log
		if _, err := r.m.Apply(r.log[mark.Index:]); err != nil {
			t.Fatal(err)
		}
		if got := r.hash(); got != want {
			t.Fatalf("crash after %d operations: after replay the hash is %x, want %x", n, got, want)
		}
	}
	if len(seen) < 4 {
		t.Fatalf("crashes left the marks %v only", seen)
	}
}

func TestDutiesEndWithTheirTerm(t *testing.T) {
	r := newReplica(t, 1)
	r.put("a", "1")
	r.put("a", "2")
	duty := func(term id.Term, body command.Body) []byte {
		return encode(command.Header{Class: command.Duty, Term: term}, body)
	}
	r.entry(5, duty(4, &command.CompactRequest{Revision: 3}), duty(5, &command.CompactRequest{Revision: 2}),
		encode(command.Header{Class: command.Client, Term: 4}, &command.PutRequest{Key: []byte("b")}))
	outcomes := r.apply()
	if !errors.Is(outcomes[0].Err, state.ErrTermOver) || outcomes[1].Err != nil || outcomes[2].Err != nil {
		t.Fatalf("%+v", outcomes)
	}
	if c := r.m.View().State().Compacted; c != 2 {
		t.Fatalf("compacted to %d", c)
	}
}

// What this program does not know ends the replica: nothing of the call is kept,
// and nothing is applied afterwards.
func TestTheUnknownEndsTheReplica(t *testing.T) {
	good := encode(command.Header{}, &command.PutRequest{Key: []byte("a"), Value: []byte("1")})
	newer := encode(command.Header{Needs: command.Version{Major: 3, Minor: 8}}, &command.PutRequest{Key: []byte("a")})
	kind := append([]byte(nil), good...)
	kind[1] = 99
	for _, c := range []struct {
		name  string
		entry raft.Entry
		want  string
	}{
		{"kind of command", raft.Entry{Kind: raft.Batch, Data: command.AppendToBatch(nil, kind)}, "unknown kind 99"},
		{"cluster version", raft.Entry{Kind: raft.Batch, Data: command.AppendToBatch(nil, newer)}, "unknown cluster version 776"},
		{"kind of entry", raft.Entry{Kind: 77}, "unknown kind of entry 77"},
		{"cut batch", raft.Entry{Kind: raft.Batch, Data: command.AppendToBatch(nil, good)[:20]}, "malformed"},
		{"cut command", raft.Entry{Kind: raft.Batch, Data: command.AppendToBatch(nil, good[:len(good)-1])}, "malformed"},
	} {
		r := newReplica(t, 1)
		r.put("a", "0")
		c.entry.Index, c.entry.Term = 3, 1
		r.entry(1, good)
		_, err := r.m.Apply([]raft.Entry{r.log[1], c.entry})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "entry 3") {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, again := r.m.Apply(r.log[1:]); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: went on with %v", c.name, again)
		}
		if _, err := r.m.Freeze(); err == nil {
			t.Errorf("%s: a failed state was saved", c.name)
		}
		r.turn()
		if got := r.get("a", 0); got != "0" || r.m.Mark().Index != 1 {
			t.Errorf("%s: a = %q at mark %v", c.name, got, r.m.Mark())
		}
		r.crash(simenv.ProcessCrash) // opens again
	}
}

func TestMembersTellTheirNames(t *testing.T) {
	r := newReplica(t, 1)
	publish := func(n id.Member, name string) {
		t.Helper()
		if _, err := r.do(&command.MemberPublish{Member: n, Name: name, PeerURLs: []string{"http://p"}, ClientURLs: []string{"http://" + name, "https://x"}}); err != nil {
			t.Fatal(err)
		}
	}
	before := r.m.View()
	hash := r.hash()
	publish(0xf000000000000001, "late")
	publish(7, "seven")
	publish(9, "nine")
	publish(7, "again")
	if r.hash() == hash {
		t.Error("members are not part of the hash")
	}
	facts := func(n id.Member, name string) member.Facts {
		return member.Facts{ID: n, Name: name, PeerURLs: []string{"http://p"}, ClientURLs: []string{"http://" + name, "https://x"}}
	}
	want := []member.Facts{facts(7, "again"), facts(9, "nine"), facts(0xf000000000000001, "late")}
	check := func(when string) {
		t.Helper()
		if got := r.m.View().Members(); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: %+v", when, got)
		}
	}
	check("published")
	if len(before.Members()) != 0 {
		t.Error("an older view has changed")
	}
	if err := r.m.StartFlush(); err != nil {
		t.Fatal(err)
	}
	r.settle()
	r.crash(simenv.PowerCrash)
	check("after a crash")
}

func TestDamagedMetaRowsAreNamed(t *testing.T) {
	for _, name := range []string{"mark", "member/0000000000000007", "mvcc"} {
		r := newReplica(t, 1)
		if _, err := r.do(&command.MemberPublish{Member: 7}); err != nil {
			t.Fatal(err)
		}
		batch := r.db.NewBatch()
		batch.Set(keys.AppendMeta(nil, id.DefaultGroup, name), []byte{1, 8, 1})
		if err := r.db.Commit(batch); err != nil {
			t.Fatal(err)
		}
		var damage *mvcc.DamageError
		_, err := state.Open(id.DefaultGroup, r.db, "")
		if !errors.As(err, &damage) && !errors.Is(err, member.ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Groups share a store and nothing else.
func TestGroupsAreApart(t *testing.T) {
	r := newReplica(t, 1)
	other, err := state.Open(2, r.db, "")
	if err != nil {
		t.Fatal(err)
	}
	r.put("a", "1")
	hash := r.hash()
	if _, err := other.Apply([]raft.Entry{{Index: 1, Term: 1, Kind: raft.Batch, Data: command.AppendToBatch(nil,
		encode(command.Header{}, &command.DeleteRangeRequest{Key: []byte{0}, End: []byte{0}}))}}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Apply([]raft.Entry{{Index: 2, Term: 1, Kind: raft.Batch, Data: command.AppendToBatch(nil,
		encode(command.Header{}, &command.PutRequest{Key: []byte("a"), Value: []byte("other")}))}}); err != nil {
		t.Fatal(err)
	}
	if r.get("a", 0) != "1" || r.hash() != hash {
		t.Fatal("the other group reached in")
	}
	saved, err := other.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	if err := receive(r.m, saved.At(), func() ([]byte, bool) {
		chunk, ok, _ := saved.Next(0)
		return chunk, ok
	}); !errors.Is(err, state.ErrDamagedSnapshot) {
		t.Fatalf("a snapshot of another group: %v", err)
	}
	saved.Close()
	if r.get("a", 0) != "1" || r.hash() != hash {
		t.Fatal("a refused snapshot changed the state")
	}
}

// Steps of removal are as small, and the pauses between them as long, as the replica is
// told, whatever it has to remove; who waits for its end is not kept by that.
func TestRemovalIsPaced(t *testing.T) {
	r := newReplica(t, 1)
	r.m.PaceRemoval(5, 700*time.Millisecond)
	for i := range 300 {
		r.put("k", fmt.Sprint(i))
	}
	r.compact(301)
	removed := func() uint64 { return r.m.Counts().Store.Compacted.Load() }
	_, wake := r.m.Turn(r.now)
	first := removed()
	if pause := wake.Sub(r.now); first == 0 || first > 5 || pause != 700*time.Millisecond {
		t.Fatalf("%d versions in a step, then a pause of %v", first, pause)
	}
	r.now = wake
	enough := r.m.HurryRemoval()
	defer enough()
	if _, wake = r.m.Turn(r.now); wake.Sub(r.now) > time.Millisecond || removed() != first+5 {
		t.Errorf("%d versions after the second step, and a pause of %v, for somebody who waits", removed(), wake.Sub(r.now))
	}
	r.m.PaceRemoval(5000, time.Hour)
	r.now = wake
	if r.m.Turn(r.now); removed() != 299 {
		t.Errorf("%d versions after a step of 5000", removed())
	}
	r.m.PaceRemoval(0, 0)
	r.put("k", "last")
	enough()
	r.compact(302)
	r.now = r.now.Add(time.Second)
	if r.m.Turn(r.now); removed() != 300 {
		t.Errorf("%d versions by the usual pace", removed())
	}
}

// Removal rests between its slices: a thousand turns at one moment do no more than
// one, and a turn once the rest is over does the next.
func TestRemovalRestsBetweenSlices(t *testing.T) {
	r := newReplica(t, 1)
	for i := range 2000 {
		r.put("k", fmt.Sprint(i))
	}
	r.compact(2001)
	removed := func() int64 { return r.m.View().State().Removed }
	_, wake := r.m.Turn(r.now)
	first := removed()
	if first == 0 {
		t.Fatal("nothing was removed in the first turn")
	}
	for range 1000 {
		if _, again := r.m.Turn(r.now); again != wake {
			t.Fatalf("resting until %v, then until %v", wake, again)
		}
	}
	if removed() != first {
		t.Fatalf("removed %d bytes while resting", removed()-first)
	}
	r.now = wake
	r.m.Turn(r.now)
	slow := removed() - first
	if slow == 0 {
		t.Fatal("the rest is over and nothing was removed")
	}
	enough := r.m.HurryRemoval()
	for range 2 { // the rest that has begun ends as it was
		_, wake = r.m.Turn(r.now)
		r.now = wake
	}
	if hurried := removed() - first - slow; hurried < 10*slow {
		t.Fatalf("a slice of %d bytes in a hurry, of %d without", hurried, slow)
	}
	enough()
	r.settle()
	if st := r.m.View().State(); st.Freed != st.Compacted || st.Bytes() != st.Written-st.Removed {
		t.Fatalf("settled at %+v", st)
	}
}
