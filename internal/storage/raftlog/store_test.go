package raftlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
	"github.com/kvorum/kvorum/internal/storage/wal"
)

// machine is a disk and what a process on it is given.
type machine struct {
	world *simenv.World
	*simenv.Machine
	process *simenv.Process
	// first and most are the sizes of segments.
	first, most int64
}

func newMachine(seed uint64, o simenv.Options) *machine {
	w := simenv.New(seed, o)
	m := &machine{world: w, Machine: w.Machine("a"), first: 64 << 10, most: 128 << 10}
	m.process = m.Start()
	return m
}

func (m *machine) open() (*raftlog.Store, error) {
	w := m.process.World()
	return raftlog.Open(raftlog.Options{
		FS: w.FS, Dir: "log", Rand: w.Rand, Tasks: w.Tasks, Clock: w.Clock,
		FirstSegmentBytes: m.first, MaxSegmentBytes: m.most,
	})
}

func (m *machine) mustOpen(t testing.TB) *raftlog.Store {
	t.Helper()
	s, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sync runs a StartSync to its end; reported is false when the process died.
func (m *machine) sync(s *raftlog.Store) (reported bool, err error) {
	s.StartSync(false, func(e error) { reported, err = true, e })
	for !reported && m.Disk().PendingSyncs() > 0 {
		m.Disk().CompleteSync(0)
	}
	return reported, err
}

func (m *machine) mustSync(t testing.TB, s *raftlog.Store) {
	t.Helper()
	if reported, err := m.sync(s); !reported || err != nil {
		t.Fatalf("sync: reported %v, %v", reported, err)
	}
}

// turns runs the log's housekeeping and background work until there is none.
func (m *machine) turns(s *raftlog.Store) {
	for range 1000 {
		worked, _ := s.Turn(m.process.Clock.Now())
		for m.Disk().PendingSyncs() > 0 {
			m.Disk().CompleteSync(0)
		}
		if m.process.Tasks.Pending() > 0 {
			m.process.Tasks.RunOne(0)
			worked = true
		}
		if !worked {
			return
		}
	}
}

func (m *machine) crash(c simenv.Crash) {
	m.Crash(c)
	m.process = m.Start()
}

func entry(group id.Group, term id.Term, index id.Index, data string) raft.Entry {
	e := raft.Entry{Term: term, Index: index, Kind: raft.Batch, Data: []byte(data)}
	if data == "" {
		e.Data = nil
	}
	e.Sum = wal.Sum(group, uint8(e.Kind), term, index, e.Data)
	return e
}

func change(group id.Group, term id.Term, index id.Index, c raft.Conf) raft.Entry {
	e := raft.Entry{Term: term, Index: index, Kind: raft.Change, Data: raft.EncodeConf(c)}
	e.Sum = wal.Sum(group, uint8(e.Kind), term, index, e.Data)
	return e
}

func entries(group id.Group, term id.Term, low, high id.Index) []raft.Entry {
	var all []raft.Entry
	for i := low; i <= high; i++ {
		all = append(all, entry(group, term, i, fmt.Sprintf("%d/%d/%d", group, term, i)))
	}
	return all
}

func conf(members ...id.Member) raft.Conf { return raft.Conf{Voters: members} }

func only(t testing.TB, s *raftlog.Store) raftlog.Recovered {
	t.Helper()
	groups := s.Groups()
	if len(groups) != 1 {
		t.Fatalf("recovered %d groups: %+v", len(groups), groups)
	}
	return groups[0]
}

func TestWhatWasSyncedIsThereAfterARestart(t *testing.T) {
	for _, crash := range []simenv.Crash{simenv.ProcessCrash, simenv.PowerCrash} {
		m := newMachine(1, simenv.Options{})
		s := m.mustOpen(t)
		if len(s.Groups()) != 0 || s.Damage() != nil {
			t.Fatal("a new log is not empty")
		}
		s.Create(1, conf(7))
		hard := raft.HardState{Term: 3, Vote: 7, Commit: 2}
		s.Append(raftlog.Save{Group: 1, Hard: hard, Entries: entries(1, 3, 1, 5)})
		m.mustSync(t, s)
		m.crash(crash)

		s = m.mustOpen(t)
		want := raft.Start{
			Hard: hard, Conf: conf(7), Previous: conf(7), Last: 5,
			Terms: []raft.TermRun{{First: 1, Term: 3}},
		}
		if got := only(t, s); got.Group != 1 || !reflect.DeepEqual(got.Start, want) {
			t.Errorf("after a %v: got %+v, want %+v", crash, got.Start, want)
		}
		got, err := s.Entries(1, 2, 4, 1<<20)
		if err != nil || !reflect.DeepEqual(got, entries(1, 3, 2, 4)) {
			t.Errorf("after a %v: entries %+v, %v", crash, got, err)
		}
	}
}

func TestEntriesAreReplaced(t *testing.T) {
	m := newMachine(2, simenv.Options{})
	s := m.mustOpen(t)
	s.Create(1, conf(1, 2, 3))
	s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 1}, Entries: entries(1, 1, 1, 10)})
	m.mustSync(t, s)
	s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 2}, Entries: append(entries(1, 2, 4, 5), change(1, 2, 6, conf(1, 2)))})
	m.mustSync(t, s)
	check := func(when string) {
		t.Helper()
		if b := s.Bounds(1); b.Last != (raft.Position{Index: 6, Term: 2}) {
			t.Errorf("%s: bounds %+v", when, b)
		}
		got, err := s.Entries(1, 1, 9, 1<<20)
		want := append(append(entries(1, 1, 1, 3), entries(1, 2, 4, 5)...), change(1, 2, 6, conf(1, 2)))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", when, got, err)
		}
	}
	check("before")
	m.crash(simenv.PowerCrash)
	s = m.mustOpen(t)
	check("after")
	start := only(t, s).Start
	if !reflect.DeepEqual(start.Terms, []raft.TermRun{{First: 1, Term: 1}, {First: 4, Term: 2}}) || start.ConfIndex != 6 ||
		!reflect.DeepEqual(start.Conf, conf(1, 2)) || !reflect.DeepEqual(start.Previous, conf(1, 2, 3)) || start.PreviousIndex != 0 {
		t.Errorf("start %+v", start)
	}
	// A new leader replaces the change: the former configuration is back.
	s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 3}, Entries: entries(1, 3, 5, 5)})
	m.mustSync(t, s)
	m.crash(simenv.PowerCrash)
	s = m.mustOpen(t)
	if start := only(t, s).Start; start.ConfIndex != 0 || !reflect.DeepEqual(start.Conf, conf(1, 2, 3)) {
		t.Errorf("after the truncation: %+v", start)
	}
}

func TestManySegmentsAreTrimmedAndRecycled(t *testing.T) {
	m := newMachine(3, simenv.Options{})
	s := m.mustOpen(t)
	s.Create(1, conf(1))
	value := string(bytes.Repeat([]byte("v"), 1000))
	hard := raft.HardState{Term: 1, Vote: 1}
	for i := id.Index(1); i <= 2000; i++ {
		hard.Commit = i - 1
		s.Append(raftlog.Save{Group: 1, Hard: hard, Entries: []raft.Entry{entry(1, 1, i, value)}})
		m.mustSync(t, s)
		if i%50 == 0 {
			s.Retain(1, i-10, i-10)
		}
		m.turns(s)
	}
	b := s.Bounds(1)
	if b.Base.Index < 1900 || b.Last.Index != 2000 || b.Base.Term != 1 {
		t.Errorf("bounds %+v", b)
	}
	if _, err := s.Entries(1, b.Base.Index, 2000, 1<<20); !errors.Is(err, raftlog.ErrTrimmed) {
		t.Errorf("trimmed entries are answered with %v", err)
	}
	if used := m.Disk().Used(); used > 6*m.most {
		t.Errorf("the log takes %d bytes of disk: %v", used, m.Disk().Files())
	}
	m.crash(simenv.PowerCrash)
	s = m.mustOpen(t)
	start := only(t, s).Start
	if start.Hard != hard || start.Last != 2000 || start.Base.Index > b.Base.Index || s.Damage() != nil {
		t.Errorf("start %+v, damage %v", start, s.Damage())
	}
	if got, err := s.Entries(1, start.Base.Index+1, 2000, 1<<30); err != nil || len(got) != int(2000-start.Base.Index) {
		t.Errorf("%d entries, %v", len(got), err)
	}
}

func TestAVoteOutlivesItsSegment(t *testing.T) {
	m := newMachine(4, simenv.Options{})
	s := m.mustOpen(t)
	s.Create(1, conf(1))
	s.Create(2, conf(4, 5, 6))
	idle := raft.HardState{Term: 9, Vote: 5}
	s.Append(raftlog.Save{Group: 2, Hard: idle})
	value := string(bytes.Repeat([]byte("v"), 3000))
	for i := id.Index(1); i <= 300; i++ {
		s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 1}, Entries: []raft.Entry{entry(1, 1, i, value)}})
		m.mustSync(t, s)
		s.Retain(1, i, i+1)
		m.turns(s)
	}
	m.crash(simenv.PowerCrash)
	for _, f := range m.Disk().Files() {
		if f == "log/0000000000000001.wal" {
			t.Fatal("the first segment is still there")
		}
	}
	s = m.mustOpen(t)
	groups := s.Groups()
	if len(groups) != 2 || groups[1].Group != 2 || groups[1].Start.Hard != idle || !reflect.DeepEqual(groups[1].Start.Conf, conf(4, 5, 6)) {
		t.Errorf("recovered %+v", groups)
	}
}
