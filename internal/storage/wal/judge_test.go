package wal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
)

// tail makes a log whose last frame has three blocks, and returns the segment's
// bytes before and after that frame, and its first block. With recycled set the
// blocks were frames of an earlier life of the file.
func tail(t *testing.T, recycled bool) (s *scene, before, after []byte, block uint32) {
	s = newScene(t)
	if recycled {
		// No spare is filled in this scene: one that is used was a segment.
		for s.l.cur == nil || s.l.cur.filled != s.l.cur.blocks {
			s.mustFrame(big("old", 3000))
			s.o.lines = s.o.lines[:1]
			s.l.Release(s.l.Newest())
			s.l.Turn(s.p.Clock.Now())
		}
	}
	s.o.lines = nil
	s.mustFrame("a")
	s.mustFrame("b")
	s.reopen(simenv.PowerCrash)
	s.o.lines = s.o.lines[len(s.o.lines)-2:]
	number := s.l.Newest()
	before, block = s.image(number), s.l.end
	varied := make([]byte, 10000)
	r := rand.New(rand.NewPCG(3, 3))
	for i := range varied {
		varied[i] = byte(r.Uint32())
	}
	s.mustFrame("c" + string(varied))
	return s, before, s.image(number), block
}

// recover gives a copy of the scene's log a new tail and opens it.
func (s *scene) recover(image []byte) *scene {
	s.t.Helper()
	number := s.l.Newest()
	disk := s.m.Disk().CrashClone(simenv.ProcessCrash, "copy")
	other := &scene{t: s.t, world: s.world, m: s.m, p: s.p, o: &listing{}, first: s.first, disk: disk}
	fs := disk.Mount()
	f, err := fs.OpenReadWrite(segmentPath(number), "")
	if err == nil {
		_, err = f.WriteAt(bytes.Clone(image), 0)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	w := s.p.World()
	other.l, err = Open(Options{FS: fs, Dir: "wal", Rand: w.Rand, Tasks: w.Tasks, Clock: w.Clock, FirstSegmentBytes: s.first, MaxSegmentBytes: s.first}, other.o)
	if err != nil {
		s.t.Fatal(err)
	}
	return other
}

func (s *scene) last() string {
	if len(s.o.lines) == 0 {
		return ""
	}
	return s.o.lines[len(s.o.lines)-1][:1]
}

// TestTornInEveryWay writes the last frame in part: every choice of its blocks,
// and many choices of its sectors. None is damage, none leaves half a frame, and
// the log goes on.
func TestTornInEveryWay(t *testing.T) {
	for _, recycled := range []bool{false, true} {
		s, before, after, block := tail(t, recycled)
		at := int(block) * blockBytes
		r := rand.New(rand.NewPCG(1, 1))
		const unit = sectorBytes
		for trial := range 300 {
			image := bytes.Clone(before)
			if len(image) < len(after) {
				image = append(image, make([]byte, len(after)-len(image))...)
			}
			written, parts := 0, 3*blockBytes/unit
			for part := range parts {
				keep := r.IntN(2) == 0
				if trial < 8 { // whole blocks
					keep = trial>>(part*unit/blockBytes)&1 == 1
				}
				if keep {
					from := at + part*unit
					copy(image[from:from+unit], after[from:])
					written++
				}
			}
			o := s.recover(image)
			if d := o.l.Damage(); d != nil {
				t.Fatalf("recycled %v, trial %d: torn taken for %v", recycled, trial, d)
			}
			want := "b"
			if written == parts {
				want = "c"
			}
			if o.last() != want {
				t.Fatalf("recycled %v, trial %d: the last record is %q, want %q", recycled, trial, o.last(), want)
			}
			if err := o.frame("d"); err != nil || o.last() != "d" {
				t.Fatal(err)
			}
		}
	}
}

// TestTornOrCorrupt is rule 2 as a table.
func TestTornOrCorrupt(t *testing.T) {
	flip := func(b []byte, at int) { b[at] ^= 0x10 }
	blankSector := func(b []byte, at int) { clear(b[at : at+sectorBytes]) }
	for _, c := range []struct {
		name string
		// harm changes the three blocks of the last frame.
		harm func(frame []byte)
		// more frames follow it.
		followed bool
		damaged  int64 // offset of the damage in the frame; -1: none
		last     string
	}{
		{"whole", func(b []byte) {}, false, -1, "c"},
		{"blank", func(b []byte) { clear(b) }, false, -1, "b"},
		{"first block blank", func(b []byte) { clear(b[:blockBytes]) }, false, -1, "b"},
		{"last block blank", func(b []byte) { clear(b[2*blockBytes:]) }, false, -1, "b"},
		{"a sector blank", func(b []byte) { blankSector(b, blockBytes+3*sectorBytes) }, false, -1, "b"},
		{"first block blank, others follow", func(b []byte) { clear(b[:blockBytes]) }, true, 0, "b"},
		{"all blank, others follow", func(b []byte) { clear(b) }, true, 0, "b"},
		{"a sector blank, others follow", func(b []byte) { blankSector(b, blockBytes+3*sectorBytes) }, true, blockBytes + 3*sectorBytes, "b"},
		{"a flipped nonce", func(b []byte) { flip(b, 2) }, false, 0, "b"},
		{"a flipped sequence", func(b []byte) { flip(b, blockBytes+9) }, false, blockBytes, "b"},
		{"a flipped checksum", func(b []byte) { flip(b, 29) }, false, 0, "b"},
		{"a flipped bit of a value", func(b []byte) { flip(b, 2*blockBytes+700) }, false, 2*blockBytes + 512, "b"},
		{"a flipped bit of the padding", func(b []byte) { flip(b, 3*blockBytes-20) }, false, 3*blockBytes - 512, "b"},
		{"a flipped tag", func(b []byte) { flip(b, 2*blockBytes+504) }, false, 2 * blockBytes, "b"},
		{"a flipped bit and a blank sector", func(b []byte) { flip(b, 600); blankSector(b, blockBytes) }, false, 512, "b"},
		{"a flipped bit, others follow", func(b []byte) { flip(b, 600) }, true, 512, "b"},
		{"two sectors swapped", func(b []byte) {
			x := bytes.Clone(b[512:1024])
			copy(b[512:1024], b[1024:1536])
			copy(b[1024:1536], x)
		}, false, 0, "b"},
		{"two blocks swapped", func(b []byte) {
			x := bytes.Clone(b[:blockBytes])
			copy(b[:blockBytes], b[blockBytes:2*blockBytes])
			copy(b[blockBytes:2*blockBytes], x)
		}, false, 0, "b"},
	} {
		s, _, _, block := tail(t, false)
		if c.followed {
			s.mustFrame("d")
		}
		image := s.image(1)
		at := int64(block) * blockBytes
		c.harm(image[at : at+3*blockBytes])
		o := s.recover(image)
		d := o.l.Damage()
		switch {
		case c.damaged < 0 && d != nil:
			t.Errorf("%s: taken for %v", c.name, d)
		case c.damaged >= 0 && (d == nil || d.File != segmentPath(1) || d.Offset != at+c.damaged):
			t.Errorf("%s: damage %v, want it at %d", c.name, d, at+c.damaged)
		case o.last() != c.last:
			t.Errorf("%s: the last record is %q, want %q", c.name, o.last(), c.last)
		case c.followed && d != nil && (len(o.o.lost) == 0 || o.o.lost[len(o.o.lost)-1] != "d"):
			t.Errorf("%s: what follows was not handed over as lost: %q", c.name, o.o.lost)
		}
	}
}

// TestATornFrameStaysHarmless: the remains of a torn frame lie in their segment
// for as long as it lives, and are neither taken for damage nor for a frame when
// the log has long gone on, nor when it is torn again.
func TestATornFrameStaysHarmless(t *testing.T) {
	s, _, after, block := tail(t, false)
	torn := bytes.Clone(after)
	clear(torn[int(block)*blockBytes : int(block+1)*blockBytes])
	s.overwrite(1, 0, torn)
	s.reopen(simenv.PowerCrash)
	for i := range 5 {
		s.mustFrame(fmt.Sprint("d", i), big("e", 9000))
		number, end := s.l.Newest(), int(s.l.end)
		image := s.image(number)
		clear(image[(end-2)*blockBytes : (end-1)*blockBytes]) // torn again
		s.overwrite(number, 0, image)
		s.reopen(simenv.PowerCrash)
		if d := s.l.Damage(); d != nil {
			t.Fatalf("round %d: %v", i, d)
		}
		s.wants("a", "b")
		if int(number) != i+2 {
			t.Fatalf("round %d is in segment %d", i, number)
		}
	}
	s.mustFrame("f")
	s.reopen(simenv.PowerCrash)
	s.wants("a", "b", "f")
}

// TestAForgedFrameInAValue stores the very bytes of frames in values: of this
// segment, with its nonce, and of the sequences that come next. None is ever
// taken for a frame, wherever it lies.
func TestAForgedFrameInAValue(t *testing.T) {
	for shift := 0; shift < blockBytes; shift += 509 {
		s := newScene(t)
		s.mustFrame("a")
		var f frame
		f.reset()
		f.append(&Record{Group: 1, Kind: 9})
		r := record("forged")
		f.append(&r)
		forged := bytes.Repeat([]byte{0xee}, shift)
		for seq := s.l.seq; seq < s.l.seq+4; seq++ {
			forged = append(forged, f.finish(s.l.cur.nonce, seq)...)
		}
		s.mustFrame(string(forged))
		// Even if the whole frame but the forged blocks is lost.
		image := s.image(1)
		o := s.recover(image)
		o.wants("a", string(forged))
		number := int(s.l.end) - blocksFor(frameHeadBytes+RecordHeadBytes+len(forged))
		clear(image[number*blockBytes : (number+1)*blockBytes])
		o = s.recover(image)
		o.wants("a")
		if o.l.Damage() != nil {
			t.Fatalf("shift %d: %v", shift, o.l.Damage())
		}
	}
}

// TestTheHeaderOfTheNewestSegment: whatever a power loss leaves of a header that
// was not synced, the segment is taken for unborn; a damaged header of one that
// was used is damage.
func TestTheHeaderOfTheNewestSegment(t *testing.T) {
	for _, used := range []bool{false, true} {
		s := newScene(t)
		for s.l.Newest() == 1 {
			s.mustFrame(big("a", 3000))
		}
		lines := s.o.lines
		image := s.image(2)
		headBlocks := int(s.l.end) - 1
		if !used {
			clear(image[headBlocks*blockBytes:])
			lines = lines[:len(lines)-1]
		}
		for _, c := range []struct {
			name   string
			unborn bool
			harm   func()
		}{
			{"whole", false, func() {}},
			{"first sector blank", true, func() { clear(image[:512]) }},
			{"blank", true, func() { clear(image[:headBlocks*blockBytes]) }},
			{"a flipped bit", false, func() { image[100] ^= 1 }},
		} {
			keep := bytes.Clone(image)
			c.harm()
			o := s.recover(image)
			copy(image, keep)
			d := o.l.Damage()
			switch {
			case c.name == "whole":
				if d != nil {
					t.Errorf("used %v, whole: %v", used, d)
				}
			case used || !c.unborn:
				if d == nil || d.File != segmentPath(2) {
					t.Errorf("used %v, %s: damage %v", used, c.name, d)
				}
			case d != nil || o.l.Newest() != 1:
				t.Errorf("used %v, %s: damage %v, newest %d", used, c.name, d, o.l.Newest())
			default:
				o.wants(lines...)
				if err := o.frame(big("next", 3000)); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestAFileThatWasRenamedAndNeverUsedIsUnborn(t *testing.T) {
	s, _, after, _ := tail(t, true)
	newest := s.l.Newest()
	want := s.o.lines
	s.overwrite(newest+1, 0, after)
	s.reopen(simenv.ProcessCrash)
	if s.l.Damage() != nil || s.l.Newest() != newest {
		t.Fatalf("damage %v, newest %d", s.l.Damage(), s.l.Newest())
	}
	s.wants(append(s.o.lines[:len(s.o.lines)-len(want):len(s.o.lines)-len(want)], want...)...)
	if files := s.m.Disk().Files(); files[len(files)-1] > segmentPath(newest) {
		t.Errorf("files %v", files)
	}
}
