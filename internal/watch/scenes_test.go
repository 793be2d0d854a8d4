package watch_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/watch"
)

// The scenes of pains.md, class D, and those at the edges of the design.

func key(k string) *watch.Request { return &watch.Request{Key: []byte(k)} }

func prefix(k, end string) *watch.Request { return &watch.Request{Key: []byte(k), End: []byte(end)} }

func everything() *watch.Request { return prefix("\x00", "\x00") }

func TestAnIdleWatchGetsWhatHappens(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	c := w.client()
	w.apply(put("a", "0"))
	c.stream.Create(key("a"))
	c.stream.Create(prefix("a", "c"))
	c.stream.Create(&watch.Request{Key: []byte("b"), End: []byte{0}, NoPuts: true})
	c.want("created", "0@2 created", "1@2 created", "2@2 created")
	w.apply(put("a", "1"))
	c.want("a key", "0@3 PUT a=1.3", "1@3 PUT a=1.3")
	w.apply(txn(put("b", "1"), put("z", "1"), del("a", "")), del("b", "\x00"))
	c.want("two revisions at once", "1@5 PUT b=1.4 DELETE a.4 DELETE b.5", "0@4 DELETE a.4", "2@5 DELETE b.5 DELETE z.5")
	if w.tasks.Pending() > 0 {
		t.Error("a task is left")
	}
}

// Nothing is done for those who are not concerned: they are not even woken.
func TestWhoIsNotConcernedSleeps(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	nobody := w.client()
	w.apply(put("a", "1"))
	if w.tasks.Pending() > 0 {
		t.Error("a task, and nobody watches")
	}
	c := w.client()
	c.stream.Create(key("b"))
	c.want("created", "0@2 created")
	c.woken = false
	w.apply(put("a", "2"))
	w.run()
	if c.woken || nobody.woken {
		t.Error("woken for another's key")
	}
	w.apply(put("b", "2"))
	w.run()
	if !c.woken || nobody.woken {
		t.Error("not woken, or the wrong one")
	}
}

// #20221: a watch of the future gets nothing earlier, whatever is put together for
// others of the same range.
func TestAWatchOfTheFutureGetsNothingEarlier(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	c := w.client()
	c.stream.Create(everything())
	c.stream.Create(&watch.Request{Key: []byte{0}, End: []byte{0}, Start: 4})
	c.want("created", "0@1 created", "1@1 created")
	w.apply(put("a", "1"))
	c.want("before", "0@2 PUT a=1.2")
	w.apply(put("a", "2"), put("a", "3"), put("a", "4"))
	c.want("from there on", "0@5 PUT a=2.3 PUT a=3.4 PUT a=4.5", "1@5 PUT a=3.4 PUT a=4.5")
}

// The ring's first event, and the one before it, which only the history has.
func TestTheEdgeOfTheRing(t *testing.T) {
	w := newWorld(t, 12_000, watch.New)
	for i := range 300 {
		w.apply(put("a", fmt.Sprint(i)))
	}
	low := w.hi()
	for _, ok := w.view.Load().Recent(low); ok; _, ok = w.view.Load().Recent(low) {
		low--
	} // low is the last revision that the ring does not have whole
	if low < 10 || low > w.hi()-10 {
		t.Fatalf("the ring goes from %d to %d", low+1, w.hi())
	}
	for start := low - 2; start <= low+3; start++ {
		c := w.client()
		c.stream.Create(&watch.Request{Key: []byte("a"), Start: start, PrevKV: true})
		next := start
		for m, ok := c.next(); ok; m, ok = c.next() {
			for _, e := range m.Events {
				if e.Kv.ModRevision != int64(next) || e.PrevKv == nil || e.PrevKv.ModRevision != int64(next-1) {
					t.Fatalf("from %d: %v, want %d", start, e, next)
				}
				next++
			}
		}
		if next != w.hi()+1 {
			t.Errorf("from %d: ended before %d of %d", start, next, w.hi())
		}
		c.stream.Close()
	}
}

// #22295: a watch that falls behind and is overtaken by a compaction is told so, not
// left hanging; one at the compact revision itself misses nothing, the deletion
// included (#18089).
func TestCompactionDuringCatchUp(t *testing.T) {
	w := newWorld(t, 1, watch.New)
	slow, edge := w.client(), w.client()
	slow.stream.Create(key("a"))
	slow.want("created", "0@1 created")
	w.apply(put("a", "1"))    // 2
	w.apply(put("a", "2"))    // 3
	w.apply(del("a", "\x00")) // 4
	w.apply(put("a", "3"))    // 5
	w.run()
	w.apply(compact(4))
	w.remove()
	slow.want("overtaken", "0@0 canceled compacted 4")
	w.apply(put("a", "4")) // 6
	slow.want("nothing more")
	slow.stream.Progress()
	slow.want("no bookmark while it keeps its ID")
	slow.stream.Cancel(0)
	slow.stream.Create(key("b"))
	slow.stream.Progress()
	slow.want("cancelled", "0@6 canceled", "1@6 created", "-1@6")
	edge.stream.Create(&watch.Request{Key: []byte("a"), Start: 4, PrevKV: true})
	edge.stream.Create(&watch.Request{Key: []byte("a"), Start: 3})
	edge.want("at the edge", "0@6 created", "1@6 created", "1@0 canceled compacted 4",
		"0@6 DELETE a.4 PUT a=3.5 PUT a=4.6<3.5")
}

// A value before the compact revision is not shown, one at it is.
func TestPreviousValuesAtTheCompactRevision(t *testing.T) {
	for _, ring := range []int{1, 1 << 20} {
		w := newWorld(t, ring, watch.New)
		for i := range 4 {
			w.apply(put("a", fmt.Sprint(i))) // 2 to 5
		}
		w.apply(compact(4))
		w.remove()
		c := w.client()
		c.stream.Create(&watch.Request{Key: []byte("a"), Start: 4, PrevKV: true})
		c.want("from 4", "0@5 created", "0@5 PUT a=2.4 PUT a=3.5<2.4")
	}
}

// The previous value is that of the revision before, whatever the same revision did
// to the key.
func TestPreviousValueOfAKeyThatChangesTwiceInARevision(t *testing.T) {
	for _, ring := range []int{1, 1 << 20} {
		w := newWorld(t, ring, watch.New)
		w.apply(put("a", "1"))                                   // 2
		w.apply(txn(del("a", ""), put("a", "2")))                // 3
		w.apply(txn(put("b", "1"), del("b", ""), put("c", "1"))) // 4
		c := w.client()
		c.stream.Create(&watch.Request{Key: []byte{0}, End: []byte{0}, Start: 2, PrevKV: true})
		c.want("all", "0@4 created", "0@4 PUT a=1.2 DELETE a.3<1.2 PUT a=2.3<1.2 PUT b=1.4 DELETE b.4 PUT c=1.4")
	}
}

// #15220: a bookmark is never ahead of what the stream has been sent.
func TestProgressWaitsForEvents(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	c := w.client()
	c.stream.Create(key("a"))
	c.want("created", "0@1 created")
	w.apply(put("a", "1"))
	c.stream.Progress() // the hub has not yet seen the event
	if m, ok := c.next(); ok {
		t.Fatalf("%s before the event", tell(m))
	}
	c.woken = false
	w.run()
	if !c.woken {
		t.Fatal("nobody woke the stream")
	}
	c.want("after the event", "0@2 PUT a=1.2", "-1@2")
	w.apply(put("b", "1"))
	c.stream.Progress()
	c.stream.Progress()
	c.want("without an event", "-1@3")
	w.apply(put("b", "1"))
	c.stream.Progress()
	w.apply(put("b", "1"))
	c.stream.Progress()
	c.want("two at once are one", "-1@5")
	behind := w.client()
	behind.stream.Create(&watch.Request{Key: []byte("a"), Start: 2})
	behind.stream.Progress()
	behind.want("dropped while it is behind", "0@5 created", "0@5 PUT a=1.2")
	behind.stream.Progress()
	behind.want("later", "-1@5")
}

// Bookmarks by interval: an event lets the next one fall out.
func TestTicks(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	c := w.client()
	c.stream.Create(&watch.Request{Key: []byte("a"), Progress: true})
	c.stream.Create(&watch.Request{Key: []byte("b"), Progress: true, Start: 5})
	c.stream.Create(key("a"))
	c.want("created", "0@1 created", "1@1 created", "2@1 created")
	c.stream.Tick()
	c.want("a first tick, so that an interval has passed")
	c.stream.Tick()
	c.want("idle", "0@1")
	w.apply(put("a", "1"))
	c.want("an event", "0@2 PUT a=1.2", "2@2 PUT a=1.2")
	c.stream.Tick()
	c.want("after an event")
	w.apply(put("a", "2"))
	w.run()
	c.stream.Tick() // while an event is owed
	c.want("owed", "0@3 PUT a=2.3", "2@3 PUT a=2.3")
	w.apply(put("x", "2"), put("x", "3"))
	w.run()
	c.stream.Tick()
	c.stream.Tick()
	c.want("the second too has started by now", "1@5", "0@5", "1@5")
}

// A snapshot empties the ring with the view that shows it; what was between is read
// from its history.
func TestASnapshotUnderAWatch(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	c := w.client()
	c.stream.Create(everything())
	c.want("created", "0@1 created")
	w.apply(put("a", "1"))
	w.away++ // the installation begins
	w.apply(put("a", "2"), put("b", "1"))
	w.load()
	if _, ok := w.view.Load().Recent(w.hi()); ok {
		t.Error("the ring has what came before the snapshot")
	}
	c.want("from history", "0@4 PUT a=1.2 PUT a=2.3 PUT b=1.4")
	w.apply(put("a", "3"))
	c.want("live again", "0@5 PUT a=3.5")
}

// While a snapshot is being installed nothing can be read: the sender tries again.
func TestBusyWhileASnapshotIsInstalled(t *testing.T) {
	w := newWorld(t, 1, watch.New)
	c := w.client()
	w.apply(put("a", "1"))
	w.apply(put("a", "2"))
	c.stream.Create(&watch.Request{Key: []byte("a"), Start: 2})
	c.next() // created
	w.away++
	for range 2 {
		if _, ok, err := c.stream.Next(); ok || !errors.Is(err, watch.ErrBusy) {
			t.Fatalf("%v, %v", ok, err)
		}
	}
	w.load()
	c.want("afterwards", "0@3 PUT a=1.2 PUT a=2.3")
}

// What does not fit into one message is cut between events; a revision is whole again
// once the pieces are joined. Nothing of the watch comes between, not even its end.
func TestFragments(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New) // pieces of less than 300 bytes
	c := w.client()
	c.stream.Create(&watch.Request{Key: []byte{0}, End: []byte{0}, Fragment: true})
	c.stream.Create(everything())
	c.want("created", "0@1 created", "1@1 created")
	value := string(make([]byte, 100))
	w.apply(txn(put("a", value), put("b", value), put("c", value), put("d", value+value+value), put("e", "")))
	w.run()
	first, _ := c.next()
	c.stream.Cancel(0)
	if got := tell(first); got != "0@2 fragment PUT a.2 PUT b.2" {
		t.Errorf("first: %s", got)
	}
	c.want("the others", "0@2 fragment PUT c.2", "0@2 fragment PUT d.2", "0@2 PUT e.2", "0@2 canceled",
		"1@2 PUT a.2 PUT b.2 PUT c.2 PUT d.2 PUT e.2")
}

// What several want of the same revisions is put together once.
func TestWhatIsSharedIsMadeOnce(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	var all []*client
	for range 5 {
		c := w.client()
		c.stream.Create(prefix("a", "b"))
		c.stream.Create(prefix("a", "b"))
		c.all()
		all = append(all, c)
	}
	if n := w.hub.Groups(); n != 1 {
		t.Errorf("%d groups", n)
	}
	w.apply(put("a", "1"), put("a", "2"))
	w.run()
	var made []byte
	for _, c := range all {
		for range 2 {
			r, ok, err := c.stream.Next()
			if !ok || err != nil || made != nil && &made[0] != &r.Events[0] {
				t.Fatalf("%v, %v: %x made anew", ok, err, r.Events)
			}
			made = r.Events
		}
	}
	if n, _ := w.hub.Cached(); n != 1 {
		t.Errorf("%d runs kept", n)
	}
}

// #14563, #20707: IDs are taken as they are given, zero is chosen by the server, and
// what is refused leaves no trace.
func TestIDs(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	c := w.client()
	ask := func(id int64, more ...func(*watch.Request)) {
		r := key("a")
		r.ID = id
		for _, f := range more {
			f(r)
		}
		c.stream.Create(r)
	}
	denied := errors.New("denied")
	deny := func(r *watch.Request) { r.Permit = func(_, _ []byte) error { return denied } }
	ask(1)
	ask(0)
	ask(0)
	c.want("chosen around the given", "1@1 created", "0@1 created", "2@1 created")
	ask(2)
	ask(-1)
	ask(-5)
	ask(0, deny)
	ask(0)
	c.want("given, doubled, negative, denied", "-1@1 created canceled (watch: the stream has a watch of this ID)",
		"-1@1 created", "-5@1 created", "-1@1 created canceled (denied)", "3@1 created")
	// The order of the checks.
	ask(2, deny, func(r *watch.Request) { r.Start = -1 })
	ask(2, deny, func(r *watch.Request) { r.End = []byte("a") })
	ask(2, func(r *watch.Request) { r.End = []byte("a") })
	c.want("refused", "-1@1 created canceled ("+command.ErrCompacted.Error()+")",
		"-1@1 created canceled (denied)", "-1@1 created canceled (watch: range is empty)")
	c.stream.Cancel(2)
	c.stream.Cancel(2)
	ask(2)
	ask(0)
	c.want("again", "2@1 canceled", "2@1 created", "4@1 created")
	w.apply(put("a", "1"))
	if got := c.all(); len(got) != 7 {
		t.Errorf("events of %d watches: %q", len(got), got)
	}
}

// A client that does not read costs nothing that grows.
func TestAStalledStreamIsOnlyACursor(t *testing.T) {
	w := newWorld(t, 10_000, watch.New)
	stalled := w.client()
	for range 10 {
		stalled.stream.Create(key("a"))
	}
	stalled.all()
	live := w.client()
	live.stream.Create(key("a"))
	live.all()
	for i := range 1000 {
		w.apply(put("a", fmt.Sprint(i)))
		w.run()
		if got := live.all(); len(got) != 1 {
			t.Fatalf("%q", got)
		}
	}
	seen := make(map[int64]int64)
	for m, ok := stalled.next(); ok; m, ok = stalled.next() {
		for _, e := range m.Events {
			if seen[m.WatchId]++; e.Kv.Version != seen[m.WatchId] {
				t.Fatalf("watch %d: version %d in the place of %d", m.WatchId, e.Kv.Version, seen[m.WatchId])
			}
		}
	}
	for id, n := range seen {
		if n != 1000 {
			t.Errorf("watch %d saw %d", id, n)
		}
	}
}

// Who is behind finds what was read ahead for it and leaves nothing of it. When more are
// behind than there is room for, less is read ahead for each: everybody still comes to
// the end.
func TestWhatIsReadAheadIsUsedUp(t *testing.T) {
	const puts = 800
	reads := 0
	w := newWorld(t, 1000, func(o watch.Options) *watch.Hub {
		o.Slowly = func(read func()) { reads++; read() }
		return watch.NewSmall(o, 100, 500, 1000, 1000, 80_000)
	})
	for i := range puts {
		w.apply(put(fmt.Sprintf("k%d", i%8), fmt.Sprint(i)))
	}
	w.run()
	behind := func(from byte) func() (more bool) {
		c := w.client()
		c.stream.Create(&watch.Request{Key: []byte{from}, End: []byte{0}, Start: 2})
		at := int64(2)
		return func() bool {
			m, ok := c.next()
			if !ok {
				if at != puts+2 {
					t.Fatalf("the last one is revision %d", at-1)
				}
				c.stream.Close()
				return false
			}
			for _, e := range m.Events {
				if e.Kv.ModRevision != at {
					t.Fatalf("revision %d came instead of %d", e.Kv.ModRevision, at)
				}
				at++
			}
			return true
		}
	}
	responses := 0
	for next := behind('a'); next(); {
		responses++
	}
	if left, bytes := w.hub.Cached(); reads == 0 || responses < 4*reads || left != 0 || bytes != 0 {
		t.Errorf("%d responses of %d reads, %d runs of %d bytes are left", responses, reads, left, bytes)
	}
	reads, responses = 0, 0
	var all []func() bool
	for i := range 20 {
		all = append(all, behind('A'+byte(i)))
	}
	for len(all) > 0 {
		all = slices.DeleteFunc(all, func(next func() bool) bool { responses++; return !next() })
	}
	if responses < 2*reads || w.hub.Groups() != 0 {
		t.Errorf("of twenty %d responses of %d reads, %d groups are left", responses, reads, w.hub.Groups())
	}
}

// What was read ahead for a watch goes with it, as a whole.
func TestWhoLeavesLeavesNothingBehind(t *testing.T) {
	w := newWorld(t, 1000, func(o watch.Options) *watch.Hub { return watch.NewSmall(o, 100, 500, 1000, 1000, 80_000) })
	for i := range 400 {
		w.apply(put(fmt.Sprintf("k%d", i%8), fmt.Sprint(i)))
	}
	w.run()
	for _, prev := range []bool{false, true} {
		c := w.client()
		c.stream.Create(&watch.Request{Key: []byte{'a'}, End: []byte{0}, Start: 2, PrevKV: prev})
		for range 3 { // created, and two responses of more
			c.next()
		}
		runs, bytes := w.hub.Cached()
		if runs < 2 || bytes < 1000 {
			t.Fatalf("%d runs of %d bytes were read ahead", runs, bytes)
		}
		c.stream.Close()
		if runs, bytes = w.hub.Cached(); runs != 0 || bytes != 0 {
			t.Errorf("%d runs of %d bytes are left", runs, bytes)
		}
	}
}

func TestAClosedHubEndsItsStreams(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	c := w.client()
	c.stream.Create(key("a"))
	c.all()
	c.woken = false
	w.hub.Close()
	if _, _, err := c.stream.Next(); !c.woken || !errors.Is(err, watch.ErrClosed) {
		t.Errorf("woken: %v, %v", c.woken, err)
	}
	c.stream.Close()
	c.stream.Close()
	c.stream.Create(key("b"))
	w.apply(put("a", "1"))
	w.run()
}

// A watch that waits for a revision is given no bookmark of one before it, however
// far the hub has come (seed 25 of a lone member).
func TestABookmarkIsNeverBeforeTheStart(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	c := w.client()
	w.apply(put("a", "1"))
	c.stream.Create(&watch.Request{Key: []byte("z"), Start: 3, Progress: true})
	c.want("created", "0@2 created")
	c.stream.Tick()
	w.apply(put("a", "2"))
	c.stream.Tick() // the hub has not matched revision 3 yet
	if m, ok := c.next(); ok {
		t.Errorf("before the start: %s", tell(m))
	}
	w.run()
	c.stream.Tick()
	c.want("at the start", "0@3")
}

// What a watch is told of the store's revision does not go back, though what it is
// shown was put together for another one before it was created (seed 2 of a lone
// member).
func TestHeadersDoNotGoBackBehindTheCreation(t *testing.T) {
	w := newWorld(t, 1<<20, watch.New)
	w.apply(put("a", "1"))
	w.apply(put("a", "2"))
	first, second, late := w.client(), w.client(), w.client()
	past := watch.Request{Key: []byte("a"), Start: 2}
	for _, c := range []*client{first, second} {
		r := past
		c.stream.Create(&r)
	}
	first.want("the past", "0@3 created", "0@3 PUT a=1.2 PUT a=2.3")
	w.apply(put("b", "1"))
	late.stream.Create(&past)
	late.want("the same past later", "0@4 created", "0@4 PUT a=1.2 PUT a=2.3")
}
