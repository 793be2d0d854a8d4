package progress

import (
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/id"
	"pgregory.net/rapid"
)

func expect(t *testing.T, f *Follower, state State, match, next id.Index) {
	t.Helper()
	if f.State() != state || f.Match() != match || f.Next() != next {
		t.Fatalf("%v, match %d, next %d; want %v, match %d, next %d", f.State(), f.Match(), f.Next(), state, match, next)
	}
}

// A life: guessed too far, probed back, replicated, lost, caught up by a snapshot.
func TestLifeOfAFollower(t *testing.T) {
	f := New(2, 10, 2, 100, 0)
	expect(t, &f, Probe, 0, 10)
	if now, bare := f.Probing(); !now || bare {
		t.Fatal("the first probe goes at once, with entries")
	}
	f.Asked()
	if now, _ := f.Probing(); now {
		t.Fatal("one probe at a time")
	}
	f.AskAgain()
	if now, bare := f.Probing(); !now || !bare {
		t.Fatal("an unanswered probe is repeated without entries")
	}
	f.Asked()

	if !f.Rejected(9, 4) {
		t.Fatal("the rejection of the probe is news")
	}
	expect(t, &f, Probe, 0, 5)
	if f.Rejected(9, 4) {
		t.Fatal("the second copy of it is not")
	}
	f.Asked()
	if !f.Accepted(4, 0) {
		t.Fatal("it agrees up to 4")
	}
	expect(t, &f, Replicate, 4, 5)

	f.Pipelined(6, 60)
	if room, sole := f.Room(); room != 40 || sole {
		t.Fatalf("room %d, sole %v", room, sole)
	}
	f.Pipelined(7, 40)
	if room, _ := f.Room(); room != 0 || f.Inflight() != 100 || !f.Outstanding() {
		t.Fatalf("room %d with %d in flight", room, f.Inflight())
	}
	if f.Accepted(5, 0); f.Inflight() != 100 {
		t.Fatal("half a message is not answered")
	}
	if f.Accepted(3, 0) {
		t.Fatal("an old acknowledgement is no news")
	}
	if !f.Accepted(6, 0) || f.Inflight() != 40 {
		t.Fatalf("%d in flight", f.Inflight())
	}
	if f.Rejected(3, 1) || f.Rejected(20, 1) {
		t.Fatal("rejections of what it has, or was never sent, are stale")
	}

	f.Lost()
	expect(t, &f, Probe, 6, 7)
	if now, _ := f.Probing(); now || f.Inflight() != 0 {
		t.Fatal("it is asked at the next heartbeat, not at once")
	}
	f.NeedSnapshot()
	expect(t, &f, Snapshot, 6, 7)
	if f.Accepted(6, 20); f.State() != Snapshot {
		t.Fatal("an answer from before the snapshot ends nothing")
	}
	if f.Rejected(6, 2) {
		t.Fatal("nor does a rejection")
	}
	f.SnapshotDone(30)
	expect(t, &f, Probe, 6, 31)
	if f.Accepted(6, 20); f.State() != Probe {
		t.Fatal("an old answer does not lead back to before the snapshot")
	}
	f.Accepted(30, 20)
	expect(t, &f, Replicate, 30, 31)
	f.SnapshotDone(40)
	expect(t, &f, Replicate, 30, 31)
}

// A probe about a place that was trimmed meanwhile is put again.
func TestProbeOfATrimmedPlaceIsRepeated(t *testing.T) {
	f := New(2, 6, 2, 100, 0)
	f.Asked()
	f.Accepted(5, 8)
	expect(t, &f, Probe, 5, 6)
	if now, _ := f.Probing(); !now {
		t.Fatal("it waits for an answer that came")
	}
}

// Rule 5: a follower that denies its own Match lost a part of its log, and what is left
// need not be the leader's.
func TestDenialOfMatchTakesItBack(t *testing.T) {
	f := New(2, 5, 2, 100, 0)
	f.Accepted(4, 0)
	if !f.Rejected(4, 2) {
		t.Fatal("the denial was not heard")
	}
	expect(t, &f, Probe, 0, 3)
}

// While entries are being loaded nothing else goes; an answer for another place
// is dropped.
func TestLoading(t *testing.T) {
	f := New(2, 5, 2, 100, 0)
	f.Accepted(4, 0)
	f.Loading()
	if room, _ := f.Room(); room != 0 {
		t.Fatal("room while loading")
	}
	if f.Loaded(9) {
		t.Fatal("entries from 9 on were not waited for")
	}
	if f.Loaded(5) {
		t.Fatal("the wait had ended")
	}
	f.Loading()
	if !f.Loaded(5) {
		t.Fatal("entries from 5 on were waited for")
	}
}

func TestActive(t *testing.T) {
	f := New(2, 5, 2, 100, 1000)
	if !f.Active(1999, 1000*time.Nanosecond) || f.Active(2000, 1000*time.Nanosecond) {
		t.Fatal("it is active until a time-out has passed")
	}
}

// The window against a plain list of what is on its way.
func TestWindowAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := window{maxMessages: rapid.IntRange(1, 9).Draw(t, "messages"), maxBytes: rapid.IntRange(1, 300).Draw(t, "bytes")}
		var list []flight
		last := id.Index(0)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				room := w.room()
				if room == 0 {
					continue
				}
				last += id.Index(rapid.IntRange(1, 3).Draw(t, "entries"))
				f := flight{last, rapid.IntRange(1, room).Draw(t, "weight")}
				w.add(f.last, f.bytes)
				list = append(list, f)
			case 2:
				match := id.Index(rapid.Uint64Range(0, uint64(last)).Draw(t, "match"))
				w.free(match)
				for len(list) > 0 && list[0].last <= match {
					list = list[1:]
				}
			case 3:
				if rapid.IntRange(0, 9).Draw(t, "clear") == 0 {
					w.clear()
					list = nil
				}
			}
			bytes := 0
			for _, f := range list {
				bytes += f.bytes
			}
			room := max(0, w.maxBytes-bytes)
			if len(list) >= w.maxMessages {
				room = 0
			}
			if w.count != len(list) || w.bytes != bytes || w.room() != room {
				t.Fatalf("%d messages of %d bytes, room %d; want %d of %d, room %d", w.count, w.bytes, w.room(), len(list), bytes, room)
			}
		}
	})
}

// Under any answers Next stays beyond Match and Match never passes what was sent.
func TestNextStaysBeyondMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := New(2, 10, 3, 1000, 0)
		end := id.Index(20)
		index := func(name string) id.Index { return id.Index(rapid.Uint64Range(0, uint64(end)).Draw(t, name)) }
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := f.Match()
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				f.Accepted(index("match"), index("trimmed"))
			case 1:
				previous := index("previous")
				if f.Rejected(previous, index("agree")) && before < previous && f.Match() != before {
					t.Fatalf("the rejection of %d moved match from %d to %d", previous, before, f.Match())
				}
			case 2:
				if room, _ := f.Room(); room > 0 && f.Next() <= end {
					f.Pipelined(end, 1)
				}
			case 3:
				f.Lost()
			case 4:
				f.NeedSnapshot()
			case 5:
				f.SnapshotDone(index("snapshot"))
			}
			if f.Next() <= f.Match() {
				t.Fatalf("next %d, match %d", f.Next(), f.Match())
			}
		}
	})
}
