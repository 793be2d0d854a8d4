package state_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
)

func (r *replica) grant(name id.Lease, ttl int64) command.LeaseName {
	r.t.Helper()
	if _, err := r.do(&command.LeaseGrant{ID: name, TTL: ttl}); err != nil {
		r.t.Fatal(err)
	}
	return r.leases()[name].LeaseName
}

func (r *replica) putOn(name id.Lease, keys ...string) {
	r.t.Helper()
	for _, key := range keys {
		if _, err := r.do(&command.PutRequest{Key: []byte(key), Lease: name}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *replica) revision() id.Revision { return r.m.View().State().Revision }

// must does one request that is not refused.
func (r *replica) must(body command.Body) any {
	r.t.Helper()
	response, err := r.do(body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response
}

// A key hangs on the lease that its newest version names: a put moves it, a put
// without a lease and a deletion free it, a put that keeps the lease leaves it, and
// all that is so after a restart and in another replica.
func TestWhatHangsOnALease(t *testing.T) {
	r := newReplica(t, 1)
	r.grant(1, 60)
	r.grant(-2, 60)
	see := func(one, two string) {
		t.Helper()
		for _, life := range []string{"at once", "after a power loss"} {
			if got := r.attached(1); got != one {
				t.Errorf("%s: lease 1 has %s, want %s", life, got, one)
			}
			if got := r.attached(-2); got != two {
				t.Errorf("%s: lease -2 has %s, want %s", life, got, two)
			}
			if err := r.m.StartFlush(); err != nil {
				t.Fatal(err)
			}
			r.settle()
			r.crash(simenv.PowerCrash)
		}
	}
	r.putOn(1, "b", "a", "a\x00", "c")
	see(`["a" "a\x00" "b" "c"]`, `[]`)
	r.putOn(-2, "b")
	see(`["a" "a\x00" "c"]`, `["b"]`)
	r.put("a\x00", "free")
	r.must(&command.PutRequest{Key: []byte("a"), Value: []byte("x"), IgnoreLease: true})
	see(`["a" "c"]`, `["b"]`)
	r.must(&command.DeleteRangeRequest{Key: []byte("b"), End: []byte("d")})
	see(`["a"]`, `[]`)
	r.put("b", "free")
	see(`["a"]`, `[]`)
	// Within one txn the last word counts.
	key := func(lease id.Lease) command.Op {
		return command.Op{Txn: &command.TxnRequest{Success: []command.Op{{Put: &command.PutRequest{Key: []byte("t"), Lease: lease}}}}}
	}
	all := command.Op{Txn: &command.TxnRequest{Success: []command.Op{{Delete: &command.DeleteRangeRequest{Key: []byte("s"), End: []byte{0}}}}}}
	r.must(&command.TxnRequest{Success: []command.Op{key(1), all}})
	see(`["a"]`, `[]`)
	r.must(&command.TxnRequest{Success: []command.Op{all, key(-2)}})
	see(`["a"]`, `["t"]`)

	saved, err := r.m.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	other := newReplica(t, 2)
	other.grant(77, 5)
	load(t, other.m, saved, 64)
	if got := other.attached(-2) + other.attached(1) + fmt.Sprint(other.leases()); got != r.attached(-2)+r.attached(1)+fmt.Sprint(r.leases()) || len(other.leases()) != 2 {
		t.Errorf("after a snapshot: %s", got)
	}
}

// All keys of a lease go in one revision, in byte order, whatever else happens in
// the same batch of commands (etcd's order; a watcher must see them go together).
func TestKeysOfALeaseGoInOneRevision(t *testing.T) {
	r := newReplica(t, 1)
	r.grant(9, 60)
	r.putOn(9, "z", "m")
	before := r.revision()
	r.entry(1,
		encode(command.Header{}, &command.PutRequest{Key: []byte("a"), Lease: 9}),
		encode(command.Header{}, &command.DeleteRangeRequest{Key: []byte("m")}),
		encode(command.Header{}, &command.PutRequest{Key: []byte("m\x00"), Lease: 9}),
		encode(command.Header{}, &command.LeaseRevoke{ID: 9}),
		encode(command.Header{}, &command.PutRequest{Key: []byte("late"), Lease: 9}),
		encode(command.Header{}, &command.LeaseRevoke{ID: 9}))
	outcomes := r.apply()
	if got := outcomes[3].Response.(*command.LeaseRevokeResponse).Revision; got != before+4 {
		t.Errorf("revoked at %d, want %d", got, before+4)
	}
	for i := 4; i < 6; i++ {
		if !errors.Is(outcomes[i].Err, command.ErrLeaseNotFound) {
			t.Errorf("command %d after the lease: %v", i, outcomes[i].Err)
		}
	}
	if got := r.revision(); got != before+4 {
		t.Errorf("at revision %d, want %d", got, before+4)
	}
	for _, c := range []struct {
		rev  id.Revision
		want int64
	}{{before + 3, 3}, {before + 4, 0}} {
		resp, err := r.m.View().Range(&command.RangeRequest{Key: []byte{0}, End: []byte{0}, Revision: c.rev})
		if err != nil || resp.Count != c.want {
			t.Errorf("%+v, %v at %d, want %d keys", resp, err, c.rev, c.want)
		}
	}
	if got := r.attached(9); got != "[]" {
		t.Errorf("the lease that is gone has %s", got)
	}
	r.grant(9, 60)
	if r.must(&command.LeaseRevoke{ID: 9}).(*command.LeaseRevokeResponse).Revision != before+4 {
		t.Error("the end of a lease without keys is a change")
	}
}

// In one batch of commands a lease ends and another of the same ID is granted: the
// keys of the one are not those of the other, and hang on nothing when they are put
// again.
func TestALeaseEndsAndIsGrantedAnewInOneBatch(t *testing.T) {
	r := newReplica(t, 1)
	name := r.grant(9, 60)
	r.putOn(9, "a", "b", "c")
	r.grant(10, 60)
	r.putOn(10, "x")
	duty := command.Header{Class: command.Duty, Term: 1}
	put := func(key string, lease id.Lease) []byte {
		return encode(command.Header{}, &command.PutRequest{Key: []byte(key), Lease: lease})
	}
	r.entry(1,
		encode(duty, &command.LeaseExpire{Leases: []command.LeaseName{name}}),
		encode(command.Header{}, &command.LeaseGrant{ID: 9, TTL: 30}),
		put("b", 9), put("c", 10), put("x", 9), put("d", 9),
		encode(command.Header{}, &command.DeleteRangeRequest{Key: []byte("d")}))
	for i, o := range r.apply() {
		if o.Err != nil {
			t.Fatalf("command %d: %v", i, o.Err)
		}
	}
	if nine, ten := r.attached(9), r.attached(10); nine != `["b" "x"]` || ten != `["c"]` {
		t.Errorf("lease 9 has %s, lease 10 has %s", nine, ten)
	}
	before := r.revision()
	r.entry(1, encode(command.Header{}, &command.LeaseRevoke{ID: 9}), encode(command.Header{}, &command.LeaseGrant{ID: 9, TTL: 30}),
		encode(command.Header{}, &command.LeaseRevoke{ID: 9}))
	r.apply()
	if got := r.revision(); got != before+1 || r.get("b", 0) != "" && r.get("x", 0) != "" {
		t.Errorf("the second end of lease 9, which had no key, made revision %d of %d", got, before)
	}
	if all := fmt.Sprint(r.attached(9), r.leases()); all != "[]map[10:{{10 2} 60 0}]" {
		t.Errorf("what is left: %s", all)
	}
}

// etcd #15247, #17425: a leader that is none any more revokes a lease that the next
// one keeps alive. A duty is bound to the term that it was made in.
func TestAnOldLeaderRevokesNothing(t *testing.T) {
	r := newReplica(t, 1)
	name := r.grant(5, 60)
	r.putOn(5, "k")
	duty := command.Header{Class: command.Duty, Term: 1}
	r.entry(2, encode(duty, &command.LeaseExpire{Leases: []command.LeaseName{name}}),
		encode(duty, &command.LeaseCheckpoint{Leases: []command.LeaseRemaining{{LeaseName: name, Remaining: 1}}}))
	for _, o := range r.apply() {
		if !errors.Is(o.Err, state.ErrTermOver) {
			t.Errorf("the old leader's duty: %v, %v", o.Response, o.Err)
		}
	}
	if got := fmt.Sprint(r.leases(), r.attached(5)); got != `map[5:{{5 1} 60 0}]["k"]` {
		t.Errorf("the lease is %s", got)
	}
	duty.Term = 2
	r.entry(2, encode(duty, &command.LeaseExpire{Leases: []command.LeaseName{name}}))
	if o := r.apply()[0]; o.Err != nil || *o.Response.(*command.LeaseExpireResponse) != (command.LeaseExpireResponse{Leases: 1, Keys: 1}) {
		t.Errorf("the leader's duty: %+v", o)
	}
}

// What was decided about a lease is not done to the next one of the same ID: the
// client revoked it and granted it anew before the leader's expiry came.
func TestAnExpiryIsForOneLifeOfALease(t *testing.T) {
	r := newReplica(t, 1)
	old := r.grant(5, 60)
	r.must(&command.LeaseRevoke{ID: 5})
	young := r.grant(5, 60)
	r.putOn(5, "k")
	if _, err := r.do(&command.LeaseGrant{ID: 5, TTL: 60}); !errors.Is(err, command.ErrLeaseExists) {
		t.Errorf("granted twice: %v", err)
	}
	duty := func(body command.Body) any {
		t.Helper()
		r.entry(1, encode(command.Header{Class: command.Duty, Term: 1}, body))
		o := r.apply()[0]
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		return o.Response
	}
	duty(&command.LeaseCheckpoint{Leases: []command.LeaseRemaining{{LeaseName: old, Remaining: 1}}})
	if done := duty(&command.LeaseExpire{Leases: []command.LeaseName{old, {ID: 6, Birth: 1}}}); *done.(*command.LeaseExpireResponse) != (command.LeaseExpireResponse{}) {
		t.Errorf("the lease of another life ended: %+v", done)
	}
	if got := r.leases()[5]; got.LeaseName != young || got.Remaining != 0 {
		t.Errorf("the lease is %+v, want %v", got, young)
	}
	// The number of a life is never used again, not even after a crash.
	done := duty(&command.LeaseExpire{Leases: []command.LeaseName{young, young}})
	if *done.(*command.LeaseExpireResponse) != (command.LeaseExpireResponse{Leases: 1, Keys: 1}) {
		t.Errorf("one lease ended twice: %+v", done)
	}
	if err := r.m.StartFlush(); err != nil {
		t.Fatal(err)
	}
	r.settle()
	r.crash(simenv.PowerCrash)
	if next := r.grant(5, 60); next.Birth <= young.Birth {
		t.Errorf("life %d after %d", next.Birth, young.Birth)
	}
}

// etcd #13508, #14087: what was checkpointed is there for the next leader, after a
// restart and in a snapshot, and a renewal takes it back.
func TestACheckpointIsThereForTheNextLeader(t *testing.T) {
	r := newReplica(t, 1)
	name := r.grant(5, 60)
	for _, remaining := range []int64{17, 99, 0} {
		r.entry(1, encode(command.Header{Class: command.Duty, Term: 1}, &command.LeaseCheckpoint{
			Leases: []command.LeaseRemaining{{LeaseName: command.LeaseName{ID: 8, Birth: 1}, Remaining: 3}, {LeaseName: name, Remaining: remaining}}}))
		if o := r.apply()[0]; o.Err != nil {
			t.Fatal(o.Err)
		}
		want := min(remaining, 60)
		if got := r.leases(); len(got) != 1 || got[5].Remaining != want {
			t.Errorf("leases %v, want %d s left", got, want)
		}
		if err := r.m.StartFlush(); err != nil {
			t.Fatal(err)
		}
		r.settle()
		r.crash(simenv.PowerCrash)
		if got := r.leases(); len(got) != 1 || got[5].Remaining != want || got[5].TTL != 60 {
			t.Errorf("after a crash: leases %v, want %d s left", got, want)
		}
	}
}
