package raftlog_test

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// TestAHundredGroups interleaves writes, truncations, resets, trims, creations
// and removals of a hundred groups, and compares every log with a naive one
// after each restart.
func TestAHundredGroups(t *testing.T) {
	m := newMachine(21, simenv.Options{})
	m.first, m.most = 64<<10, 256<<10
	h := newHistory(t, m, 21)
	h.maxGroups, h.valueBytes = 100, 600
	if !h.open() {
		t.Fatal("not opened")
	}
	for len(h.now) < 100 {
		h.create()
	}
	for round := range 4 {
		for range 1500 {
			h.step()
		}
		h.sync()
		if why := h.compare(); why != "" {
			t.Fatalf("round %d, while running: %s", round, why)
		}
		h.end([]simenv.Crash{simenv.ProcessCrash, simenv.PowerCrash}[round%2])
		if !h.open() {
			t.Fatal("not opened")
		}
	}
	if newest := segments(m.Disk()); len(newest) == 0 || newest[0] == "log/0000000000000001.wal" {
		t.Errorf("nothing was ever trimmed: %v", newest)
	}
}

// compare looks at the running store, which shows what was written.
func (h *history) compare() string {
	for g, want := range h.frames[0] {
		b := h.s.Bounds(g)
		if b.Last != (raft.Position{Index: want.last(), Term: want.term(want.last())}) || b.Base.Term != want.term(b.Base.Index) {
			return fmt.Sprintf("group %d: bounds %+v, want the end at %d", g, b, want.last())
		}
		if why := h.reads(g, &want, b.Base.Index); why != "" {
			return why
		}
	}
	return ""
}

// TestReadingWhileTheLogIsWrittenAndTrimmed lets goroutines read, as loads for
// lagging followers do, while the persister writes, replaces and trims.
func TestReadingWhileTheLogIsWrittenAndTrimmed(t *testing.T) {
	m := newMachine(22, simenv.Options{})
	s := m.mustOpen(t)
	s.Create(1, conf(1, 2))
	var stop atomic.Bool
	var readers sync.WaitGroup
	var read, trimmed atomic.Int64
	for r := range 3 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for i := id.Index(r); !stop.Load(); i++ {
				b := s.Bounds(1)
				if b.Last.Index == b.Base.Index {
					continue
				}
				low := b.Base.Index + 1 + i%(b.Last.Index-b.Base.Index)
				got, err := s.Entries(1, low, low+10, 1<<16)
				if err == raftlog.ErrTrimmed {
					trimmed.Add(1)
					continue
				}
				if err != nil || len(got) == 0 {
					t.Errorf("entry %d: %d entries, %v", low, len(got), err)
					return
				}
				for k, e := range got {
					if want := entry(1, e.Term, low+id.Index(k), fmt.Sprintf("1/%d/%d", e.Term, e.Index)); !reflect.DeepEqual(e, want) {
						t.Errorf("read %+v, want %+v", e, want)
						return
					}
				}
				read.Add(int64(len(got)))
			}
		}()
	}
	for i := id.Index(1); i <= 3000 || read.Load() < 1000; i++ {
		term := id.Term(1 + i/100)
		s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: term}, Entries: entries(1, term, i, i+2)}) // two are replaced by the next
		m.mustSync(t, s)
		if i%64 == 0 {
			s.Retain(1, i-10, i-10)
		}
		m.turns(s)
	}
	stop.Store(true)
	readers.Wait()
	t.Logf("%d entries read, %d reads came too late", read.Load(), trimmed.Load())
}

func TestAGroupThatWasRemovedIsGone(t *testing.T) {
	m := newMachine(23, simenv.Options{})
	s := m.mustOpen(t)
	s.Create(1, conf(1))
	s.Create(2, conf(2))
	s.Append(raftlog.Save{Group: 2, Hard: raft.HardState{Term: 1}, Entries: entries(2, 1, 1, 3)})
	m.mustSync(t, s)
	if s.BytesAfter(2, 1) < 64 || s.BytesAfter(2, 3) != 0 || s.BytesAfter(2, 0) <= s.BytesAfter(2, 1) {
		t.Errorf("bytes after: %d, %d, %d", s.BytesAfter(2, 0), s.BytesAfter(2, 1), s.BytesAfter(2, 3))
	}
	s.Remove(2)
	if s.Staged() == 0 {
		t.Error("nothing is staged")
	}
	m.mustSync(t, s)
	if _, err := s.Entries(2, 1, 3, 100); err != raftlog.ErrTrimmed {
		t.Errorf("entries of a removed group: %v", err)
	}
	if b := s.Bounds(2); b != (raftlog.Bounds{}) {
		t.Errorf("bounds of a removed group: %+v", b)
	}
	m.crash(simenv.PowerCrash)
	if got := only(t, m.mustOpen(t)); got.Group != 1 {
		t.Errorf("recovered %+v", got)
	}
}

func TestAResetOutlivesItsSegment(t *testing.T) {
	m := newMachine(24, simenv.Options{})
	s := m.mustOpen(t)
	s.Create(1, conf(1))
	s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 1}, Entries: entries(1, 1, 1, 9)})
	at := raft.Position{Index: 1000, Term: 4}
	hard := raft.HardState{Term: 5, Vote: 2, Commit: 1000}
	s.Append(raftlog.Save{Group: 1, Hard: hard, Reset: &raftlog.Reset{At: at, Conf: conf(2, 3), ConfIndex: 990}})
	m.mustSync(t, s)
	s.Create(2, conf(9))
	for i := id.Index(1); i <= 500; i++ {
		s.Append(raftlog.Save{Group: 2, Hard: raft.HardState{Term: 1}, Entries: []raft.Entry{entry(2, 1, i, string(make([]byte, 1000)))}})
		m.mustSync(t, s)
		s.Retain(2, i, i+1)
		m.turns(s)
	}
	m.crash(simenv.PowerCrash)
	s = m.mustOpen(t)
	want := raft.Start{Hard: hard, Conf: conf(2, 3), ConfIndex: 990, Previous: conf(2, 3), PreviousIndex: 990, Base: at, Last: 1000}
	if got := s.Groups()[0].Start; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	s.Append(raftlog.Save{Group: 1, Hard: hard, Entries: entries(1, 5, 1001, 1002)})
	m.mustSync(t, s)
	if got, err := s.Entries(1, 1001, 1002, 1<<20); err != nil || len(got) != 2 {
		t.Errorf("%d entries, %v", len(got), err)
	}
}
