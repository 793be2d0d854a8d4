package raftlog_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// openClone opens the log on a copy of the machine's disk to which something was
// done.
func (m *machine) openClone(t testing.TB, name string, harm func(*simenv.Disk)) (*raftlog.Store, *simenv.Disk) {
	t.Helper()
	disk := m.Disk().CrashClone(simenv.ProcessCrash, name)
	harm(disk)
	w := m.process.World()
	s, err := raftlog.Open(raftlog.Options{
		FS: disk.Mount(), Dir: "log", Rand: w.Rand, Tasks: w.Tasks, Clock: w.Clock,
		FirstSegmentBytes: m.first, MaxSegmentBytes: m.most,
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s, disk
}

func segments(d *simenv.Disk) []string {
	return slices.DeleteFunc(d.Files(), func(f string) bool { return !strings.HasSuffix(f, ".wal") })
}

func size(t testing.TB, m *machine, file string) int64 {
	t.Helper()
	info, err := m.process.World().FS.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func contents(t testing.TB, m *machine) map[string]string {
	all := map[string]string{}
	for _, file := range m.Disk().Files() {
		f, err := m.process.World().FS.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, size(t, m, file))
		if _, err := f.ReadAt(data, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		all[file] = string(data)
	}
	return all
}

// prefixOf says how a damaged log differs from a part of what was written: less
// it may have, never something else.
func prefixOf(s *raftlog.Store, state map[id.Group]naiveLog) string {
	for _, g := range s.Groups() {
		want, ok := state[g.Group]
		if !ok {
			continue // removed behind the damage
		}
		if !g.Start.Damaged {
			return fmt.Sprintf("group %d is not marked", g.Group)
		}
		if g.Start.Hard.Term > want.hard.Term || g.Start.Hard.Commit > g.Start.Last {
			return fmt.Sprintf("group %d: hard state %+v, last %d, was %+v", g.Group, g.Start.Hard, g.Start.Last, want.hard)
		}
		for i := g.Start.Base.Index + 1; i <= g.Start.Last; i++ {
			got, err := s.Entries(g.Group, i, i, 1)
			if err != nil {
				return fmt.Sprintf("group %d: entry %d: %v", g.Group, i, err)
			}
			if got[0].Index != i || got[0].Sum == 0 {
				return fmt.Sprintf("group %d: entry %d is %+v", g.Group, i, got[0])
			}
		}
	}
	return ""
}

// TestAFlippedBitIsFoundWhereverItIs flips a bit in each block of each segment of
// a log that has recycled some, one at a time. Either the log names the file and
// the block, or the block was of no use and everything is there.
func TestAFlippedBitIsFoundWhereverItIs(t *testing.T) {
	m := newMachine(9, simenv.Options{})
	m.first, m.most = 32<<10, 64<<10
	h := newHistory(t, m, 9)
	h.live(1500)
	h.frames = append(h.frames, h.now)
	if err := h.s.Close(); err != nil {
		t.Fatal(err)
	}
	state := maps.Clone(h.now)
	r := rand.New(rand.NewPCG(9, 9))
	found, unused := 0, 0
	for _, file := range segments(m.Disk()) {
		for at := int64(0); at < size(t, m, file); at += 4096 {
			for _, within := range []int64{r.Int64N(32), r.Int64N(4096), 504 + 512*r.Int64N(8) + r.Int64N(8)} {
				name := fmt.Sprintf("%s %d", file, at+within)
				s, _ := m.openClone(t, name, func(d *simenv.Disk) {
					if err := d.Flip(file, at+within, r.IntN(8)); err != nil {
						t.Fatal(err)
					}
				})
				h.s = s
				if d := s.Damage(); d == nil {
					unused++
					if why := h.differs(state); why != "" {
						t.Fatalf("%s: flipped, not found, and: %s", name, why)
					}
				} else {
					found++
					if d.File != file || d.Offset/4096 != at/4096 {
						t.Fatalf("%s: reported as %v", name, d)
					}
					if why := prefixOf(s, state); why != "" {
						t.Fatalf("%s: %v, but %s", name, d, why)
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Logf("%d flips found, %d in unused blocks, %d segments", found, unused, len(segments(m.Disk())))
	if found < 100 || unused < 10 {
		t.Errorf("%d flips found, %d in unused blocks: the log is not what this test is about", found, unused)
	}
}

// damaged makes a log of several segments and flips a bit in the frame that holds
// entry 30 of 60.
func damaged(t *testing.T) (m *machine, file string) {
	m = newMachine(10, simenv.Options{})
	m.first, m.most = 64<<10, 64<<10
	s := m.mustOpen(t)
	s.Create(1, conf(1, 2, 3))
	for i := id.Index(1); i <= 60; i++ {
		s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 1 + id.Term(i/40), Commit: i - 1}, Entries: []raft.Entry{entry(1, 1, i, strings.Repeat("x", 3000))}})
		if i == 50 {
			s.Create(2, conf(5))
			s.Append(raftlog.Save{Group: 2, Hard: raft.HardState{Term: 8, Vote: 5}, Entries: entries(2, 8, 1, 3)})
		}
		m.mustSync(t, s)
	}
	files := segments(m.Disk())
	if len(files) < 3 {
		t.Fatalf("only %v", files)
	}
	m.crash(simenv.PowerCrash)
	file = files[1]
	if err := m.Disk().Flip(file, 5*4096+100, 3); err != nil {
		t.Fatal(err)
	}
	return m, file
}

func TestADamagedLogKeepsWhatIsSoundAndSaysSo(t *testing.T) {
	m, file := damaged(t)
	before := contents(t, m)
	s := m.mustOpen(t)
	d := s.Damage()
	if d == nil || d.File != file || d.Offset != 5*4096 || d.Error() == "" {
		t.Fatalf("damage %v", d)
	}
	groups := s.Groups()
	if len(groups) != 2 || !groups[0].Start.Damaged || !groups[1].Start.Damaged {
		t.Fatalf("groups %+v", groups)
	}
	// The term comes from behind the damage. The commit does not: what it counted
	// there may have replaced entries that this log still has.
	last, hard := groups[0].Start.Last, groups[0].Start.Hard
	if last < 10 || last > 30 || hard.Term != 2 || hard.Vote != 0 || hard.Commit >= last {
		t.Errorf("group 1: %+v", groups[0].Start)
	}
	if g := groups[1].Start; g.Hard != (raft.HardState{Term: 8, Vote: 5}) || g.Last != 0 || !reflect.DeepEqual(g.Conf, conf(5)) {
		t.Errorf("group 2, which began behind the damage: %+v", g)
	}
	// Whoever refuses to start has changed nothing.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(contents(t, m), before) {
		t.Error("opening a damaged log has changed it")
	}
	s = m.mustOpen(t)
	if again := s.Damage(); !reflect.DeepEqual(again, d) {
		t.Fatalf("the second look says %v, the first %v", again, d)
	}
	// Whoever goes on, with what a leader sends again, has a sound log and is
	// still marked: the promise to keep silent outlives the process.
	s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 3, Commit: last}, Entries: entries(1, 3, last+1, last+40)})
	s.Append(raftlog.Save{Group: 2, Hard: raft.HardState{Term: 8, Vote: 5}, Entries: entries(2, 8, 1, 2)})
	m.mustSync(t, s)
	m.crash(simenv.PowerCrash)
	s = m.mustOpen(t)
	if again := s.Damage(); !reflect.DeepEqual(again, d) {
		t.Fatalf("after going on it says %v, before %v", again, d)
	}
	groups = s.Groups()
	if g := groups[0].Start; g.Last != last+40 || g.Hard.Term != 3 || !g.Damaged || groups[1].Start.Last != 2 {
		t.Fatalf("groups %+v", groups)
	}
	got, err := s.Entries(1, last-2, last+40, 1<<20)
	if err != nil || len(got) != 43 || !reflect.DeepEqual(got[3:], entries(1, 3, last+1, last+40)) {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	// Once nobody needs the damaged stretch, it is gone, and the mark with it.
	value := strings.Repeat("y", 3000)
	for i := last + 41; i < last+100; i++ {
		s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 3, Commit: i - 1}, Entries: []raft.Entry{entry(1, 3, i, value)}})
		m.mustSync(t, s)
		s.Retain(1, i-5, i-5)
		s.Retain(2, 2, 3)
		m.turns(s)
	}
	m.crash(simenv.PowerCrash)
	s = m.mustOpen(t)
	if s.Damage() != nil || s.Groups()[0].Start.Damaged {
		t.Errorf("still damaged: %v", s.Damage())
	}
}

func TestMissingAndForeignSegmentsAreDamage(t *testing.T) {
	m, file := damaged(t)
	if err := m.Disk().Flip(file, 5*4096+100, 3); err != nil { // undo
		t.Fatal(err)
	}
	files := segments(m.Disk())
	first, _ := m.openClone(t, "sound", func(*simenv.Disk) {})
	if first.Damage() != nil {
		t.Fatal(first.Damage())
	}
	for i, gone := range files[:len(files)-1] {
		s, _ := m.openClone(t, gone, func(d *simenv.Disk) {
			if err := d.Mount().Remove(gone); err != nil {
				t.Fatal(err)
			}
		})
		if d := s.Damage(); d == nil || d.File != gone || d.Offset != 0 {
			t.Errorf("segment %d of %d is gone: %v", i, len(files), d)
		}
		for _, g := range s.Groups() {
			if !g.Start.Damaged {
				t.Errorf("group %d is not marked", g.Group)
			}
		}
	}
	s, _ := m.openClone(t, "swapped", func(d *simenv.Disk) {
		if err := d.Mount().Rename(files[0], files[1]); err != nil {
			t.Fatal(err)
		}
	})
	if s.Damage() == nil {
		t.Error("a segment under another's name is taken for it")
	}
}

func TestReadingBackNeverReturnsWrongData(t *testing.T) {
	m := newMachine(11, simenv.Options{})
	s := m.mustOpen(t)
	s.Create(1, conf(1))
	s.Append(raftlog.Save{Group: 1, Hard: raft.HardState{Term: 1}, Entries: entries(1, 1, 1, 200)})
	m.mustSync(t, s)
	file := segments(m.Disk())[0]
	wrong := 0
	for at := int64(4096); at < 5*4096; at += 37 {
		if err := m.Disk().Flip(file, at, 1); err != nil {
			t.Fatal(err)
		}
		for i := id.Index(1); i <= 200; i++ {
			got, err := s.Entries(1, i, i, 1)
			var d *raftlog.DamageError
			switch {
			case errors.As(err, &d):
				wrong++
				if d.File != file || d.Offset > at || at-d.Offset > 100 {
					t.Fatalf("flip at %d reported as %v", at, d)
				}
			case err != nil || !reflect.DeepEqual(got, entries(1, 1, i, i)):
				t.Fatalf("flip at %d: entry %d reads as %+v, %v", at, i, got, err)
			}
		}
		if err := m.Disk().Flip(file, at, 1); err != nil {
			t.Fatal(err)
		}
	}
	if wrong < 100 {
		t.Errorf("only %d flips were noticed", wrong)
	}
}

// adopt takes what a damaged log still has for what there is.
func (h *history) adopt(t *testing.T) {
	h.now = map[id.Group]naiveLog{}
	for _, g := range h.s.Groups() {
		n := naiveLog{hard: g.Start.Hard, base: g.Start.Base, conf: g.Start.Previous, confIndex: g.Start.PreviousIndex}
		for i := n.base.Index + 1; i <= g.Start.Last; i++ {
			got, err := h.s.Entries(g.Group, i, i, 1)
			if err != nil {
				t.Fatal(err)
			}
			n.entries = append(n.entries, got...)
		}
		h.now[g.Group] = n
		h.trims[g.Group] = g.Start.Last // nothing before it is replaced any more
	}
	h.frames = []map[id.Group]naiveLog{maps.Clone(h.now)}
}

// TestLivesWithDamage flips bits between the lives of a log that goes on all the
// same, as a damaged replica among sound ones does: what it has after the damage
// and what it writes then are kept like anything else.
func TestLivesWithDamage(t *testing.T) {
	hits, again := 0, 0
	for seed := uint64(1); seed <= 25; seed++ {
		m := newMachine(seed, simenv.Options{})
		m.first, m.most = 16<<10, 64<<10
		h := newHistory(t, m, seed)
		where := ""
		remembers := func() {
			t.Helper()
			if !h.open() {
				t.Fatal("not opened")
			}
			if h.s.Damage() != nil {
				again++
			} else if slices.Contains(m.Disk().Files(), where) {
				t.Fatalf("seed %d: the damage of %s is forgotten while the file is there", seed, where)
			}
		}
		for range 8 {
			remembers()
			for range h.r.IntN(200) {
				h.step()
			}
			h.end([]simenv.Crash{simenv.ProcessCrash, simenv.PowerCrash}[h.r.IntN(2)])
			remembers() // a crash alone changes nothing
			h.end(simenv.PowerCrash)
			files := segments(m.Disk())
			file := files[h.r.IntN(len(files))]
			if _, _, err := m.Disk().FlipRandom(file, 0, min(16<<10, size(t, m, file))); err != nil {
				t.Fatal(err)
			}
			h.s = m.mustOpen(t)
			if d := h.s.Damage(); d != nil {
				hits++
				h.damaged, where = true, d.File
				h.adopt(t)
			}
			for range h.r.IntN(40) {
				h.step()
			}
			h.sync()
			h.end(simenv.ProcessCrash)
		}
	}
	t.Logf("%d openings with damage, %d more that remembered it", hits, again)
	if hits < 50 || again < 20 {
		t.Errorf("%d openings with damage, %d that remembered it: not what this test is about", hits, again)
	}
}
