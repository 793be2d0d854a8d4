package server

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/lease"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

// watched is a clock of leases with the facts that it follows, and what a patient
// reader of the rules expects of it.
type watched struct {
	t     *testing.T
	db    engine.DB
	batch engine.Batch
	facts *lease.Table
	*deadlines
	now  env.Instant
	term id.Term
	// ends is when each lease ends at the earliest, while this member leads.
	ends map[id.Lease]env.Instant
	// known are all leases, as the facts have them.
	known map[id.Lease]lease.Facts
}

const grace = time.Second

// all takes all leases that are due.
func all(lease.Weight) bool { return true }

func newWatched(t *testing.T) *watched {
	t.Helper()
	db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	facts, err := lease.Open(1, db)
	if err != nil {
		t.Fatal(err)
	}
	now := env.Instant(12345 * time.Millisecond)
	return &watched{t: t, db: db, batch: db.NewBatch(), facts: facts, now: now,
		deadlines: newDeadlines(facts.Follow(), grace, now), ends: map[id.Lease]env.Instant{}, known: map[id.Lease]lease.Facts{}}
}

// change changes the facts, and lets the clock see it.
func (w *watched) change(do func()) {
	w.t.Helper()
	w.facts.Begin(w.batch)
	do()
	if err := w.facts.Finish(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.db.Commit(w.batch); err != nil {
		w.t.Fatal(err)
	}
	w.facts.Publish()
	w.see()
}

func (w *watched) see() []ended { return w.follow(w.now, w.term, nil) }

func (w *watched) grant(name id.Lease, ttl int64) {
	w.change(func() {
		if err := w.facts.Grant(&command.LeaseGrant{ID: name, TTL: ttl}); err != nil {
			w.t.Fatal(err)
		}
	})
	w.ends[name] = w.now.Add(time.Duration(ttl) * time.Second)
	w.known[name] = lease.Facts{TTL: ttl}
}

func (w *watched) revoke(name id.Lease) {
	w.change(func() { w.facts.End(name, nil); w.facts.Flush() })
	delete(w.ends, name)
	delete(w.known, name)
}

func (w *watched) checkpoint(name id.Lease, remaining int64) {
	w.change(func() {
		birth := w.recs[w.index[name]].Birth
		w.facts.Checkpoint(&command.LeaseCheckpoint{Leases: []command.LeaseRemaining{
			{LeaseName: command.LeaseName{ID: name, Birth: birth}, Remaining: remaining}}})
	})
	f := w.known[name]
	f.Remaining = min(remaining, f.TTL)
	w.known[name] = f
}

// lead begins a term of this member, or ends one (0).
func (w *watched) lead(term id.Term) {
	w.term, w.now = term, w.now.Add(time.Millisecond)
	w.see()
	for name, f := range w.known {
		left := f.TTL
		if f.Remaining > 0 {
			left = f.Remaining
		}
		w.ends[name] = w.now.Add(grace + time.Duration(left)*time.Second)
	}
}

// pass lets time pass and returns the leases that are found to end.
func (w *watched) pass(d time.Duration, most int) (over []id.Lease) {
	w.t.Helper()
	w.now = w.now.Add(d)
	w.see()
	for w.turn(w.now, most) {
	}
	if w.term == 0 {
		return nil
	}
	for _, name := range w.take(w.now, all) {
		if end := w.ends[name.ID]; end > w.now {
			w.t.Fatalf("lease %d ends %v early", name.ID, end.Sub(w.now))
		}
		over = append(over, name.ID)
	}
	for name, end := range w.ends {
		if end.Add(tickLength) < w.now && w.recs[w.index[name]].stage != ending {
			w.t.Fatalf("lease %d does not end, %v late", name, w.now.Sub(end))
		}
	}
	slices.Sort(over)
	return over
}

// No lease ends early, whatever happens to leaders and clocks, and none later than a
// tick after its time, as far as the clock is looked at.
func TestNoLeaseEndsEarlyOrLate(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 5))
			w := newWatched(t)
			some := func() (id.Lease, bool) {
				names := w.all()
				if len(names) == 0 {
					return 0, false
				}
				return names[rnd.IntN(len(names))], true
			}
			next, ended := id.Lease(1), 0
			for range 1500 {
				name, any := some()
				switch n := rnd.IntN(20); {
				case n < 4 || !any:
					w.grant(next, 1+rnd.Int64N([]int64{4, 60, 2000}[rnd.IntN(3)]))
					next++
				case n < 8:
					_, ttl, v := w.renew(name, w.now)
					if v == isNoted {
						w.checkpoint(name, 0)
					}
					if v != isHeld {
						w.ends[name] = w.now.Add(seconds(ttl))
					}
				case n == 8:
					w.revoke(name)
				case n == 9 && w.term != 0:
					w.checkpoint(name, rnd.Int64N(w.known[name].TTL+1))
				case n == 10:
					w.lead(0)
				case n == 11 || w.term == 0 && n < 15:
					w.lead(id.Term(rnd.Uint64()>>1 | 1))
				default:
					for _, name := range w.pass(time.Duration(rnd.Int64N(int64(3*time.Second))), 1+rnd.IntN(10)) {
						if _, _, v := w.renew(name, w.now); v != isHeld {
							t.Fatalf("a renewal of lease %d, which ends, is %v", name, v)
						}
						if rnd.IntN(3) == 0 {
							w.spare([]command.LeaseName{w.recs[w.index[name]].LeaseName}, w.now, nil)
							w.ends[name] = w.now // it is looked at again with the next tick
							continue
						}
						w.revoke(name)
						ended++
					}
				}
			}
			if ended == 0 && seed%3 != 2 {
				t.Error("no lease ever ended")
			}
		})
	}
}

// etcd #9496: the promotion of a leader touched every lease. Here a million of them
// cost it nothing, and none ends before its time.
func TestALeaderBeginsWithAMillionLeases(t *testing.T) {
	w := newWatched(t)
	count := 1_000_000
	if testing.Short() {
		count = 100_000
	}
	w.change(func() {
		for i := range count {
			if err := w.facts.Grant(&command.LeaseGrant{ID: id.Lease(i + 1), TTL: 60}); err != nil {
				t.Fatal(err)
			}
		}
	})
	w.now = w.now.Add(59 * time.Second)
	for w.turn(w.now, 1<<20) {
	}
	begun := time.Now()
	w.term = 7
	w.see()
	if took := time.Since(begun); took > 50*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	w.now = w.now.Add(60 * time.Second)
	for w.turn(w.now, 1<<20) {
	}
	if n := len(w.take(w.now, all)); n != 0 {
		t.Errorf("%d leases end early", n)
	}
	w.now = w.now.Add(grace + tickLength)
	for w.turn(w.now, 1<<20) {
	}
	if n := len(w.take(w.now, all)); n != count {
		t.Errorf("%d of %d leases end", n, count)
	}
}

// Who renews a lease while its end is proposed is told what came of it: that it is
// gone (etcd #20615 told of a success), or to ask again.
func TestARenewalWaitsForTheEnd(t *testing.T) {
	w := newWatched(t)
	w.lead(3)
	w.grant(1, 2)
	w.grant(2, 2)
	if got := w.pass(3*time.Second, 100); !slices.Equal(got, []id.Lease{1, 2}) {
		t.Fatalf("leases %v end", got)
	}
	for i, name := range []id.Lease{1, 2} {
		if _, _, v := w.renew(name, w.now); v != isHeld || !w.hold(renewal{host.Call{Tag: uint64(i)}, name}) {
			t.Fatalf("the renewal of lease %d is %v", name, v)
		}
	}
	name := w.recs[w.index[2]].LeaseName
	w.facts.Begin(w.batch)
	w.facts.End(1, nil)
	w.facts.Flush()
	if err := w.facts.Finish(); err != nil {
		w.t.Fatal(err)
	}
	w.facts.Publish()
	delete(w.ends, 1)
	w.ends[2] = w.now.Add(2 * time.Second)
	if over := w.see(); len(over) != 1 || over[0].call.Tag != 0 || over[0].err != command.ErrLeaseNotFound {
		t.Fatalf("lease 1 is gone: %+v", over)
	}
	if over := w.spare([]command.LeaseName{name}, w.now, nil); len(over) != 1 || over[0].call.Tag != 1 {
		t.Fatalf("lease 2 is spared: %+v", over)
	}
	if w.hold(renewal{host.Call{}, 2}) || w.hold(renewal{host.Call{}, 1}) {
		t.Error("there is nothing to wait for any more")
	}
	if _, ttl, v := w.renew(2, w.now); ttl != 2 || v != isRenewed {
		t.Errorf("the renewal of lease 2 is %v", v)
	}
	if got := w.pass(1900*time.Millisecond, 100); len(got) != 0 {
		t.Errorf("leases %v end early", got)
	}
}

// A lease that is due and was renewed before its end was proposed goes on.
func TestARenewalBeforeTheEndIsProposed(t *testing.T) {
	w := newWatched(t)
	w.lead(3)
	w.grant(1, 2)
	w.now = w.now.Add(3 * time.Second)
	for w.turn(w.now, 10) {
	}
	if w.waiting() != 1 {
		t.Fatal("the lease is not due")
	}
	if _, _, v := w.renew(1, w.now); v != isRenewed {
		t.Fatalf("its renewal is %v", v)
	}
	if got := w.take(w.now, all); len(got) != 0 {
		t.Fatalf("%v ends", got)
	}
	w.ends[1] = w.now.Add(2 * time.Second)
	if got := w.pass(2*time.Second+tickLength, 10); !slices.Equal(got, []id.Lease{1}) {
		t.Errorf("leases %v end", got)
	}
}

// Those that end together end in the order of their IDs, and what did not fit into an
// entry is the first to go into the next one, though it was not noticed first.
func TestWhatDoesNotFitGoesNext(t *testing.T) {
	w := newWatched(t)
	w.lead(3)
	for _, name := range []id.Lease{5, 3, 9, 1, 7} {
		w.grant(name, 2)
	}
	w.now = w.now.Add(3 * time.Second)
	for w.turn(w.now, 100) {
	}
	w.grant(2, 2) // is noticed after the others
	names := func(list []command.LeaseName) (ids []id.Lease) {
		for _, name := range list {
			ids = append(ids, name.ID)
		}
		return ids
	}
	left := 0
	some := func(lease.Weight) bool { left--; return left >= 0 }
	left = 2
	if got := names(w.take(w.now, some)); !slices.Equal(got, []id.Lease{1, 3}) {
		t.Fatalf("leases %v end first", got)
	}
	if _, _, v := w.renew(3, w.now); v != isHeld {
		t.Errorf("the renewal of lease 3, which ends, is %v", v)
	}
	if _, _, v := w.renew(5, w.now); v != isRenewed {
		t.Errorf("the renewal of lease 5, which did not fit, is %v", v)
	}
	left = 1
	if got := names(w.take(w.now, some)); !slices.Equal(got, []id.Lease{7}) || w.waiting() != 1 {
		t.Errorf("leases %v end next, %d wait", got, w.waiting())
	}
	w.now = w.now.Add(3 * time.Second)
	for w.turn(w.now, 100) {
	}
	left = 10
	if got := names(w.take(w.now, some)); !slices.Equal(got, []id.Lease{9, 2, 5}) || w.waiting() != 0 {
		t.Errorf("leases %v end last, %d wait", got, w.waiting())
	}
}

// An entry ends as many leases as may be applied within its time, with as many bytes
// of keys as it may have: many light ones, few heavy ones, or a single one that is
// larger than an entry should be. What was detached does not count.
func TestAnEntryEndsWhatItHasTimeFor(t *testing.T) {
	w := newWatched(t)
	w.lead(3)
	next := id.Lease(1)
	grant := func(leases, keys, size int) {
		for range leases {
			name := next
			w.grant(name, 2)
			w.change(func() {
				for k := range keys {
					w.facts.Attach(fmt.Appendf(nil, "%0*d", size, k), name)
				}
			})
			next++
		}
	}
	entry := func() int { return len(w.take(w.now, new(entryOfEnds).fits)) }
	light := int(expireTime / (leaseTime + keyTime))
	grant(3*light, 1, 20)
	grant(1, 1000, 20)   // too many keys for any entry
	grant(1, 3, 100_000) // too many bytes
	grant(9, 15, 20)     // a few to an entry
	w.change(func() { w.facts.Attach([]byte("x"), 1); w.facts.Detach([]byte("x"), 1) })
	w.now = w.now.Add(3 * time.Second)
	for w.turn(w.now, 10_000) {
	}
	var got []int
	for w.waiting() > 0 {
		got = append(got, entry())
	}
	want := []int{light, light, light, 1, 1}
	for n, most := 9, int(expireTime/(leaseTime+15*keyTime)); n > 0; n -= most {
		want = append(want, min(n, most))
	}
	if !slices.Equal(got, want) {
		t.Errorf("entries of %d leases, want %d", got, want)
	}
}

// What was checkpointed is all that the next leader gives; who is renewed in the
// meantime is told so only when that was taken back.
func TestACheckpointAndTheNextLeader(t *testing.T) {
	w := newWatched(t)
	w.lead(3)
	w.grant(1, 600)
	w.grant(2, 600)
	w.grant(3, 200) // too short for checkpoints
	if got := w.pass(100*time.Second+300*time.Millisecond, 10); len(got) != 0 {
		t.Fatal("early")
	}
	list, more := w.note(w.now, 300*time.Second, 10)
	if len(list) != 2 || list[0].Remaining != 500 || more {
		t.Fatalf("checkpoint %+v", list)
	}
	if _, _, v := w.renew(1, w.now); v != isHeld || !w.hold(renewal{host.Call{}, 1}) {
		t.Errorf("a renewal while the checkpoint is proposed is %v", v)
	}
	w.checkpoint(1, list[0].Remaining)
	w.checkpoint(2, list[1].Remaining)
	if over := w.unnote(list, nil); len(over) != 1 {
		t.Errorf("%d calls are told to ask again", len(over))
	}
	name, _, v := w.renew(1, w.now)
	if v != isNoted || name.ID != 1 {
		t.Errorf("a renewal after the checkpoint is %v", v)
	}
	w.checkpoint(1, 0)
	w.lead(4)
	for lease, want := range map[id.Lease]int64{1: 601, 2: 501, 3: 201} {
		if left, _, _ := w.left(lease, w.now); left != want {
			t.Errorf("the next leader gives lease %d %d s, want %d", lease, left, want)
		}
	}
	if got := w.all(); !slices.Equal(got, []id.Lease{3, 2, 1}) {
		t.Errorf("the leader lists %v", got)
	}
	w.lead(0)
	if got := w.all(); !slices.Equal(got, []id.Lease{1, 2, 3}) {
		t.Errorf("a follower lists %v", got)
	}
}

// A TTL that no clock can count to is still what it is.
func TestTheLongestLease(t *testing.T) {
	w := newWatched(t)
	w.lead(3)
	w.grant(1, command.MaxLeaseTTL)
	if left, granted, known := w.left(1, w.now.Add(time.Second)); left != command.MaxLeaseTTL-1 || granted != command.MaxLeaseTTL || !known {
		t.Errorf("%d of %d s left", left, granted)
	}
}

// BenchmarkRenew is what storing one renewal costs the leader.
func BenchmarkRenew(b *testing.B) {
	d := newDeadlines(nil, grace, 0)
	for i := range 10_000 {
		d.set(&lease.Change{Facts: lease.Facts{LeaseName: command.LeaseName{ID: id.Lease(i + 1), Birth: 1}, TTL: 60}}, 0)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, _, v := d.renew(id.Lease(i%10_000+1), env.Instant(i)); v != isRenewed {
			b.Fatal(v)
		}
	}
}

// BenchmarkLeaderChange makes a member with a million leases the leader: all that it
// does until it answers for them, once a new term is known. Renewals and the looks of
// the wheel go on meanwhile in bounded pieces, the longest of which is reported.
func BenchmarkLeaderChange(b *testing.B) {
	const count, ttl = 1_000_000, 60
	db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), Dir: "db"})
	if err != nil {
		b.Fatal(err)
	}
	facts, err := lease.Open(1, db)
	if err != nil {
		b.Fatal(err)
	}
	d := newDeadlines(facts.Follow(), grace, 0)
	d.follow(0, 0, nil) // that there is none
	draw := rand.New(rand.NewPCG(1, 2))
	for range count {
		d.set(&lease.Change{Facts: lease.Facts{LeaseName: command.LeaseName{ID: id.Lease(draw.Int64()), Birth: 1}, TTL: ttl}}, env.Instant(draw.Int64N(int64(ttl*time.Second))))
	}
	now, term := env.Instant(0), id.Term(0)
	var longest time.Duration
	for b.Loop() {
		term++
		d.follow(now, term, nil)
		b.StopTimer()
		// Half a TTL goes by, in which nobody renews and nothing may end.
		for end := now.Add(ttl / 2 * time.Second); now < end; now = now.Add(expireLook) {
			for more := true; more; {
				begin := time.Now()
				more = d.turn(now, lookedAt)
				longest = max(longest, time.Since(begin))
			}
		}
		if d.waiting() > 0 {
			b.Fatalf("%d leases end early", d.waiting())
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(longest.Microseconds()), "longest-look-us")
}
