package raftlog_test

import (
	"path/filepath"
	"testing"

	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
	"github.com/kvorum/kvorum/internal/storage/wal"
)

// writer appends one entry and a new commit after another, as a busy leader does.
type writer struct {
	s    *raftlog.Store
	save raftlog.Save
	err  error
	done func(error)
}

func newWriter(t testing.TB, bytes int) *writer {
	world := osenv.New()
	t.Cleanup(world.Stop)
	s, err := raftlog.Open(raftlog.Options{
		FS: world.FS, Dir: filepath.Join(t.TempDir(), "log"), Rand: world.Rand, Tasks: world.Tasks, Clock: world.Clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.Create(1, conf(1))
	w := &writer{s: s, save: raftlog.Save{Group: 1, Hard: raft.HardState{Term: 1, Vote: 1}}}
	w.save.Entries = []raft.Entry{{Term: 1, Kind: raft.Batch, Data: make([]byte, bytes)}}
	w.done = func(err error) { w.err = err }
	w.write()
	return w
}

func (w *writer) write() {
	e := &w.save.Entries[0]
	e.Index++
	e.Sum = wal.Sum(1, uint8(e.Kind), e.Term, e.Index, e.Data)
	w.save.Hard.Commit = e.Index - 1
	w.s.Append(w.save)
	w.s.StartSync(true, w.done)
}

func TestAppendingDoesNotAllocate(t *testing.T) {
	w := newWriter(t, 300)
	allocs := testing.AllocsPerRun(1000, w.write)
	if w.err != nil {
		t.Fatal(w.err)
	}
	if allocs >= 1 {
		t.Errorf("%v allocations for each frame", allocs)
	}
}

// BenchmarkAppendAndSync is one client's put: an entry, its frame, its sync.
func BenchmarkAppendAndSync(b *testing.B) {
	w := newWriter(b, 300)
	b.ReportAllocs()
	for b.Loop() {
		w.write()
		if i := w.save.Entries[0].Index; i%1000 == 0 {
			w.s.Retain(1, i-1, i)
		}
	}
	if w.err != nil {
		b.Fatal(w.err)
	}
}

// BenchmarkEntries reads back what a follower that lags is sent.
func BenchmarkEntries(b *testing.B) {
	w := newWriter(b, 300)
	for w.save.Entries[0].Index < 5000 {
		for range 100 {
			e := &w.save.Entries[0]
			e.Index++
			e.Sum = wal.Sum(1, uint8(e.Kind), e.Term, e.Index, e.Data)
			w.s.Append(w.save)
		}
		w.s.StartSync(true, w.done)
	}
	b.ReportAllocs()
	b.SetBytes(300 * 1000)
	low := id.Index(1)
	for b.Loop() {
		if got, err := w.s.Entries(1, low, low+999, 1<<30); err != nil || len(got) != 1000 {
			b.Fatal(len(got), err)
		}
		low = low%3000 + 1
	}
}
