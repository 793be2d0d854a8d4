package wal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

// listing is an Owner that only remembers what it was told.
type listing struct {
	lines   []string
	pending []string
	lost    []string
	summary []string
}

func (o *listing) Summarize(dst []byte) []byte { return append(dst, strings.Join(o.lines, "\n")...) }

func (o *listing) Placed(segment uint64, base uint32) {
	o.lines = append(o.lines, o.pending...)
	o.pending = nil
}

func (o *listing) Restore(summary []byte, lost bool) error {
	o.summary = append(o.summary, string(summary))
	if !lost && len(summary) > 0 {
		o.lines = strings.Split(string(summary), "\n")
	}
	return nil
}

func (o *listing) Replay(segment uint64, offset uint32, r Record, lost bool) error {
	if lost {
		o.lost = append(o.lost, string(r.Data))
	} else {
		o.lines = append(o.lines, string(r.Data))
	}
	return nil
}

func record(data string) Record {
	r := Record{Group: 1, Kind: 1, Term: 2, Index: 3, Data: []byte(data)}
	r.Sum = Sum(r.Group, r.Kind, r.Term, r.Index, r.Data)
	return r
}

// scene is a log on a seeded disk.
type scene struct {
	t     testing.TB
	world *simenv.World
	m     *simenv.Machine
	p     *simenv.Process
	o     *listing
	l     *Log
	first int64
	disk  *simenv.Disk
}

func newScene(t testing.TB) *scene {
	w := simenv.New(1, simenv.Options{})
	s := &scene{t: t, world: w, m: w.Machine("a"), first: 64 << 10}
	s.p, s.disk = s.m.Start(), s.m.Disk()
	s.open()
	return s
}

func (s *scene) tryOpen() error {
	w := s.p.World()
	s.o = &listing{}
	var err error
	s.l, err = Open(Options{FS: w.FS, Dir: "wal", Rand: w.Rand, Tasks: w.Tasks, Clock: w.Clock, FirstSegmentBytes: s.first, MaxSegmentBytes: s.first}, s.o)
	return err
}

func (s *scene) open() {
	s.t.Helper()
	if err := s.tryOpen(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) reopen(c simenv.Crash) {
	s.t.Helper()
	s.m.Crash(c)
	s.p = s.m.Start()
	s.open()
}

func (s *scene) append(data string) {
	s.o.pending = append(s.o.pending, data)
	s.l.Append(record(data))
}

// frame writes one frame and waits for its sync.
func (s *scene) frame(data ...string) (err error) {
	for _, d := range data {
		s.append(d)
	}
	err = errors.New("never reported")
	s.l.StartSync(false, func(e error) { err = e })
	s.complete()
	return err
}

func (s *scene) mustFrame(data ...string) {
	s.t.Helper()
	if err := s.frame(data...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) complete() {
	for s.disk.PendingSyncs() > 0 {
		s.disk.CompleteSync(0)
	}
}

func (s *scene) wants(lines ...string) {
	s.t.Helper()
	if !slices.Equal(s.o.lines, lines) {
		s.t.Fatalf("the log holds %d records %.200q, want %d %.200q", len(s.o.lines), s.o.lines, len(lines), lines)
	}
}

// segmentPath is the file of a segment, image its bytes.
func segmentPath(number uint64) string { return "wal/" + fileName(number, segmentSuffix) }

func (s *scene) image(number uint64) []byte {
	s.t.Helper()
	f, err := s.p.World().FS.Open(segmentPath(number))
	if err != nil {
		s.t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if err := readFull(f, b, 0); err != nil {
		s.t.Fatal(err)
	}
	return b
}

// overwrite puts bytes into a segment's file, behind the log's back.
func (s *scene) overwrite(number uint64, at int64, p []byte) {
	s.t.Helper()
	f, err := s.p.World().FS.OpenReadWrite(segmentPath(number), env.WAL)
	if err == nil {
		_, err = f.WriteAt(bytes.Clone(p), at)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func big(name string, size int) string { return name + strings.Repeat(".", size-len(name)) }

func TestFramesComeBackInOrder(t *testing.T) {
	s := newScene(t)
	s.mustFrame("a", "b")
	s.mustFrame(big("c", 10000))
	s.mustFrame()
	s.mustFrame("", "d")
	s.append("never synced")
	s.reopen(simenv.PowerCrash)
	s.wants("a", "b", big("c", 10000), "", "d")
	s.mustFrame("e")
	s.reopen(simenv.ProcessCrash)
	s.wants("a", "b", big("c", 10000), "", "d", "e")
	if s.l.Damage() != nil || s.l.Newest() != 1 {
		t.Errorf("damage %v, newest segment %d", s.l.Damage(), s.l.Newest())
	}
}

func TestAFrameNeverCrossesSegments(t *testing.T) {
	s := newScene(t)
	var want []string
	for i := range 10 {
		want = append(want, big(fmt.Sprint(i), 20000))
		s.mustFrame(want[i])
	}
	huge := big("huge", 300000) // larger than any segment
	s.mustFrame(huge)
	s.mustFrame("after")
	want = append(want, huge, "after")
	if s.l.Newest() < 4 {
		t.Errorf("only %d segments", s.l.Newest())
	}
	s.reopen(simenv.PowerCrash)
	s.wants(want...)
	// A frame that fills its segment to the last block is no reason to look on.
	for room := s.l.cur.blocks - s.l.end; room > 0; room = s.l.cur.blocks - s.l.end {
		s.mustFrame("fill")
		want = append(want, "fill")
	}
	s.reopen(simenv.PowerCrash)
	s.mustFrame("next")
	s.reopen(simenv.PowerCrash)
	s.wants(append(want, "next")...)
}

func TestASegmentThatGrowsWithALargeSummary(t *testing.T) {
	s := newScene(t)
	var want []string
	for i := range 60 { // the header of each segment repeats all of it: more than one block
		want = append(want, big(fmt.Sprint(i), 3500))
		s.mustFrame(want[i])
		s.l.Release(s.l.Newest())
		s.l.Turn(s.p.Clock.Now())
	}
	s.reopen(simenv.PowerCrash)
	s.wants(want...)
	if len(s.o.summary) != 1 || len(s.o.summary[0]) < 4*blockBytes {
		t.Errorf("%d summaries", len(s.o.summary))
	}
}

func TestTheSealComesAfter100MillisecondsOfSilence(t *testing.T) {
	s := newScene(t)
	turn := func() (bool, time.Duration) {
		now := s.p.Clock.Now()
		worked, wake := s.l.Turn(now)
		if wake == env.Never {
			return worked, -1
		}
		return worked, wake.Sub(now)
	}
	if worked, wake := turn(); worked || wake != -1 {
		t.Fatalf("an empty log wants a turn: %v, %v", worked, wake)
	}
	s.mustFrame("a")
	if worked, wake := turn(); worked || wake != 100*time.Millisecond {
		t.Fatalf("after a frame: %v, %v", worked, wake)
	}
	s.world.AdvanceTo(s.world.Now().Add(101 * time.Millisecond))
	end := s.l.end
	if worked, _ := turn(); !worked || s.l.end != end+1 {
		t.Fatalf("no seal")
	}
	// A frame that comes while the seal is being synced waits for it: only the
	// last frame may ever be torn.
	s.append("b")
	reported := false
	s.l.StartSync(false, func(err error) { reported = err == nil })
	if reported || s.m.Disk().PendingSyncs() != 1 || s.l.end != end+1 {
		t.Fatalf("the frame did not wait: %v, %d", reported, s.m.Disk().PendingSyncs())
	}
	s.m.Disk().CompleteSync(0)
	if reported || s.l.end != end+2 {
		t.Fatal("the frame did not follow the seal")
	}
	s.complete()
	if !reported {
		t.Fatal("the frame was not reported")
	}
	s.reopen(simenv.PowerCrash)
	s.wants("a", "b")
	if _, wake := turn(); wake != 100*time.Millisecond {
		t.Errorf("the last frame is not sealed, the next turn is in %v", wake)
	}
}

func TestACleanCloseSeals(t *testing.T) {
	s := newScene(t)
	s.mustFrame("a")
	if err := s.l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.l.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
	s.reopen(simenv.PowerCrash)
	s.wants("a")
	if s.l.follows != 2 || !s.l.sealed {
		t.Errorf("the last frame is %d, sealed %v", s.l.follows, s.l.sealed)
	}
}

func TestAnErrorIsFinal(t *testing.T) {
	for _, op := range []simenv.Op{simenv.OpWrite, simenv.OpSync} {
		s := newScene(t)
		s.mustFrame("a")
		remove := s.m.Disk().Inject(simenv.EIO(op))
		err := s.frame("b")
		if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), segmentPath(1)) {
			t.Errorf("error %v", err)
		}
		remove()
		if again := s.frame("c"); again == nil || again.Error() != err.Error() {
			t.Errorf("after %v the log goes on: %v", err, again)
		}
		if worked, wake := s.l.Turn(s.p.Clock.Now().Add(time.Hour)); worked || wake != env.Never {
			t.Error("a failed log turns")
		}
		if s.l.Close() == nil {
			t.Error("a failed log closes well")
		}
	}
}

func TestAFullDiskIsAnErrorAndNoDamage(t *testing.T) {
	s := newScene(t)
	s.mustFrame("a")
	s.m.Disk().SetCapacity(s.m.Disk().Used())
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = s.frame(big("b", 3000))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v", err)
	}
	s.m.Disk().SetCapacity(0)
	s.reopen(simenv.PowerCrash)
	if s.l.Damage() != nil || s.o.lines[0] != "a" {
		t.Errorf("damage %v", s.l.Damage())
	}
	s.mustFrame("c")
}

func TestSegmentsAreRecycledAndSparesPrepared(t *testing.T) {
	s := newScene(t)
	prepared, last := 0, s.l.Newest()
	for i := range 300 {
		s.mustFrame(big(fmt.Sprint(i), 2000))
		if now := s.l.Newest(); now != last && s.l.cur.filled == s.l.cur.blocks {
			prepared, last = prepared+1, now
		}
		s.o.lines = s.o.lines[:1]
		s.l.Release(s.l.Newest())
		s.l.Turn(s.p.Clock.Now())
		for s.p.Tasks.Pending() > 0 {
			s.p.Tasks.RunOne(0)
		}
	}
	if prepared < 5 {
		t.Errorf("%d segments began in prepared files", prepared)
	}
	if s.l.cur.filled != s.l.cur.blocks {
		t.Error("the present segment was not prepared")
	}
	files := s.m.Disk().Files()
	if len(files) > 4 {
		t.Errorf("files %v", files)
	}
	s.reopen(simenv.PowerCrash)
	if s.l.Damage() != nil || len(s.l.spares.ready) == 0 {
		t.Errorf("damage %v, spares %v", s.l.Damage(), s.l.spares.ready)
	}
	if got := s.m.Disk().Files(); len(got) > len(files) {
		t.Errorf("files %v", got)
	}
}

func TestASpareThatCannotBeMadeIsNoReasonToStop(t *testing.T) {
	s := newScene(t)
	s.m.Disk().Inject(simenv.Fault{Ops: simenv.OpSync, Err: syscall.EIO, Match: func(path string) bool { return strings.HasSuffix(path, spareSuffix) }})
	for i := range 100 {
		s.mustFrame(big(fmt.Sprint(i), 2000))
		s.l.Turn(s.p.Clock.Now())
		for s.p.Tasks.Pending() > 0 {
			s.p.Tasks.RunOne(0)
		}
	}
	if !s.l.spares.failed || s.l.Newest() < 5 {
		t.Errorf("failed %v, newest %d", s.l.spares.failed, s.l.Newest())
	}
	if err := s.l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAReaderHoldsItsSegment(t *testing.T) {
	s := newScene(t)
	offset := s.l.Append(record("held"))
	s.o.pending = append(s.o.pending, "held")
	base := s.l.end * blockRoom
	s.mustFrame()
	reader, ok := s.l.Reader(1)
	if !ok {
		t.Fatal("no segment 1")
	}
	for i := range 100 {
		s.mustFrame(big(fmt.Sprint(i), 3000))
		s.o.lines = s.o.lines[:1]
		s.l.Release(s.l.Newest())
		s.l.Turn(s.p.Clock.Now())
	}
	data := make([]byte, RecordHeadBytes+4)
	if err := reader.Read(data, base+offset); err != nil {
		t.Fatal(err)
	}
	if r, _, err := DecodeRecord(data); err != nil || string(r.Data) != "held" {
		t.Errorf("read %q, %v", r.Data, err)
	}
	if file, at := reader.Where(base + offset); file != segmentPath(1) || at != blockBytes+headBytes+frameHeadBytes {
		t.Errorf("the record is at %s %d", file, at)
	}
	reader.Release()
	s.l.Turn(s.p.Clock.Now())
	if _, ok := s.l.Reader(1); ok {
		t.Error("the segment is still there")
	}
}

var update = flag.Bool("update", false, "rewrite the golden files")

// countingRand makes golden files repeatable.
type countingRand struct{ n uint64 }

func (r *countingRand) Uint64() uint64 {
	r.n++
	return 0x0102030405060708 * r.n
}
func (r *countingRand) Int64N(n int64) int64 { return int64(r.Uint64() % uint64(n)) }

// TestFormatVersion1 pins every byte of a small log, and that this program reads
// it for ever.
func TestFormatVersion1(t *testing.T) {
	golden := filepath.Join("testdata", "v1.hex")
	s := newScene(t)
	w := s.p.World()
	o := &listing{}
	l, err := Open(Options{FS: w.FS, Dir: "golden", Rand: &countingRand{}, Tasks: w.Tasks, Clock: w.Clock, FirstSegmentBytes: 6 * blockBytes}, o)
	if err != nil {
		t.Fatal(err)
	}
	s.l, s.o = l, o
	s.mustFrame("first", "second")
	s.mustFrame(big("two blocks", 5000))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := w.FS.Open("golden/" + fileName(1, segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, 6*blockBytes)
	if err := readFull(f, image, 0); err != nil {
		t.Fatal(err)
	}
	dump := dumpZeros(image)
	if *update {
		if err := os.WriteFile(golden, []byte(dump), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if dump != string(want) {
		t.Errorf("the bytes of format version 1 have changed; compare with %s (-update)", golden)
	}
	if err := w.FS.MkdirAll("old", 0o700); err != nil {
		t.Fatal(err)
	}
	old, err := w.FS.Create("old/"+fileName(1, segmentSuffix), env.WAL)
	if err == nil {
		_, err = old.Write(undump(t, string(want)))
	}
	if err != nil {
		t.Fatal(err)
	}
	o = &listing{}
	if l, err = Open(Options{FS: w.FS, Dir: "old", Rand: w.Rand, Tasks: w.Tasks, Clock: w.Clock}, o); err != nil || l.Damage() != nil {
		t.Fatal(err, l.Damage())
	}
	s.o = o
	s.wants("first", "second", big("two blocks", 5000))
}

// dumpZeros is a hex dump that leaves out rows of zeros.
func dumpZeros(p []byte) string {
	var b strings.Builder
	for at := 0; at < len(p); at += 32 {
		if row := p[at : at+32]; !bytes.Equal(row, zeros[:32]) {
			fmt.Fprintf(&b, "%06x %s\n", at, hex.EncodeToString(row))
		}
	}
	return b.String()
}

func undump(t *testing.T, dump string) []byte {
	p := make([]byte, 6*blockBytes)
	for line := range strings.Lines(dump) {
		var at int
		var row []byte
		if _, err := fmt.Sscanf(line, "%x %x", &at, &row); err != nil {
			t.Fatal(err)
		}
		copy(p[at:], row)
	}
	return p
}

func TestANewerFormatIsRefusedAndNotTouched(t *testing.T) {
	s := newScene(t)
	image := s.image(1)
	payload := make([]byte, headerFixedBytes)
	gather(payload, image, 0)
	payload[8]++
	seg := &s.l.live[0]
	h := head{nonce: (*seg).nonce, count: 1, length: uint32(len(payload))}
	block := make([]byte, blockBytes)
	scatter(block, 0, payload)
	h.finish(block)
	s.overwrite(1, 0, block)
	s.m.Crash(simenv.ProcessCrash)
	s.p = s.m.Start()
	if err := s.tryOpen(); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), segmentPath(1)) {
		t.Errorf("opened: %v", err)
	}
}
