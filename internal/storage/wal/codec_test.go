package wal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
)

// TestSumIsCRC32C compares the sum, a part of which is computed by hand, with the
// library's over the same bytes.
func TestSumIsCRC32C(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		group, kind, term, index := id.Group(r.Uint32()), uint8(r.Uint32()), id.Term(r.Uint64()), id.Index(r.Uint64())
		data := make([]byte, r.IntN(100))
		b := binary.LittleEndian.AppendUint32(nil, uint32(group))
		b = append(b, kind, 0, 0, 0)
		b = binary.LittleEndian.AppendUint64(b, uint64(term))
		b = binary.LittleEndian.AppendUint64(b, uint64(index))
		want := crc32.Checksum(append(b, data...), castagnoli)
		if got := Sum(group, kind, term, index, data); got != want {
			t.Fatalf("sum %08x, want %08x", got, want)
		}
	}
}

// TestPayloadsSurviveTheirSectors writes payloads of every length around the
// seams of sectors and blocks, and reads parts of them back.
func TestPayloadsSurviveTheirSectors(t *testing.T) {
	if blockRoom != 4000 {
		t.Fatalf("a block has room for %d bytes", blockRoom)
	}
	payload := make([]byte, 3*blockRoom)
	for i := range payload {
		payload[i] = byte(1 + i*7%255)
	}
	for _, length := range []int{1, 471, 472, 473, 976, 977, 3999, 4000, 4001, 8000, 12000} {
		var f frame
		f.grow(length)
		f.write(payload[:length])
		blocks := f.finish(5, 6)
		if len(blocks) != blocksFor(length)*blockBytes {
			t.Fatalf("%d bytes take %d", length, len(blocks))
		}
		first, ok := checkFrame(blocks, 5, 6)
		if !ok || int(first.length) != length {
			t.Fatalf("%d bytes: %+v, %v", length, first, ok)
		}
		for from := 0; from < length; from += 97 {
			got := make([]byte, min(700, length-from))
			gather(got, blocks, from)
			if !bytes.Equal(got, payload[from:from+len(got)]) {
				t.Fatalf("bytes from %d of %d differ", from, length)
			}
		}
	}
}

func sampleHeader() header {
	return header{
		number: 9, blocks: 1024, follows: 70, first: 72, low: 3,
		voids:   []void{{from: 4, fromBlock: 17, to: 8, offset: 17*4096 + 512, reason: "frame 33 is damaged"}},
		summary: []byte("summary"),
	}
}

func TestHeadersComeBack(t *testing.T) {
	h := sampleHeader()
	got, err := decodeHeader(h.append(nil))
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range len(h.append(nil)) - len(h.summary) {
		if _, err := decodeHeader(h.append(nil)[:n]); err == nil {
			t.Errorf("the first %d bytes are taken for a header", n)
		}
	}
}

func TestNamesOfFiles(t *testing.T) {
	if n, ok := parseName(fileName(255, segmentSuffix), segmentSuffix); !ok || n != 255 {
		t.Errorf("%d, %v", n, ok)
	}
	for _, name := range []string{"", ".wal", "1.wal", "00000000000000FF.wal", "0000000000000000.wal", "00000000000000ff.spare", "x0000000000000ff.wal"} {
		if n, ok := parseName(name, segmentSuffix); ok {
			t.Errorf("%s is taken for segment %d", name, n)
		}
	}
}

func FuzzRecord(f *testing.F) {
	var fr frame
	r := record("data")
	fr.append(&r)
	seed := make([]byte, fr.length)
	gather(seed, fr.blocks, 0)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, p []byte) {
		r, size, err := DecodeRecord(p)
		if err != nil {
			return
		}
		var again frame
		again.append(&r)
		got := make([]byte, again.length)
		gather(got, again.blocks, 0)
		if !bytes.Equal(got, p[:size]) {
			t.Errorf("%x is encoded as %x", p[:size], got)
		}
	})
}

func FuzzHeader(f *testing.F) {
	h := sampleHeader()
	f.Add(h.append(nil))
	h.voids = nil
	f.Add(h.append(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodeHeader(p)
		if err == nil && !bytes.Equal(h.append(nil), p) {
			t.Errorf("%x is encoded as %x", p, h.append(nil))
		}
	})
}

func FuzzFrame(f *testing.F) {
	var fr frame
	fr.reset()
	a, b := record("a"), record("bb")
	fr.append(&a)
	fr.append(&b)
	payload := make([]byte, fr.length)
	gather(payload, fr.blocks, 0)
	f.Add(payload)
	f.Add(payload[:frameHeadBytes])
	f.Fuzz(func(t *testing.T, p []byte) {
		var again frame
		again.reset()
		low, err := decodeFrame(p, func(offset int, r Record) error {
			if again.append(&r) != offset {
				t.Error("a record is not where it was")
			}
			return nil
		})
		if err != nil {
			return
		}
		again.setLow(low)
		got := make([]byte, again.length)
		gather(got, again.blocks, 0)
		if !bytes.Equal(got, p) {
			t.Errorf("%x is encoded as %x", p, got)
		}
	})
}

// FuzzBlocks writes two frames, does to their blocks what the input says, and
// lets the decoder of blocks and the judge look at the result: they must not
// panic, what they accept must be as it was written, and a frame that only
// missed whole sectors must never be called damaged.
func FuzzBlocks(f *testing.F) {
	var fr frame
	fr.reset()
	r := record(big("x", 5000))
	fr.append(&r)
	image := append(bytes.Clone(fr.finish(7, 3)), make([]byte, blockBytes)...)
	f.Add([]byte{})
	f.Add([]byte{0, 9, 0})           // a sector blank
	f.Add([]byte{1, 9, 200})         // a flipped bit
	f.Add([]byte{2, 3, 4, 0, 15, 0}) // a sector where another belongs
	f.Fuzz(func(t *testing.T, edits []byte) {
		p := bytes.Clone(image)
		missing, harmed := false, false
		for ; len(edits) >= 3; edits = edits[3:] {
			sector := p[int(edits[1])*sectorBytes%len(p):][:sectorBytes]
			switch edits[0] % 3 {
			case 0:
				clear(sector)
				missing = true
			case 1:
				sector[int(edits[2])*2] ^= 1 << (edits[2] % 8)
				harmed = true
			case 2:
				copy(sector, p[int(edits[2])*sectorBytes%len(p):][:sectorBytes])
				harmed = true
			}
		}
		j := newJudgement(7, 3, 0)
		for at := 0; at < len(p); at += blockBytes {
			block := p[at : at+blockBytes]
			if h, whole := openBlock(block); whole {
				again := bytes.Clone(block)
				h.finish(again)
				if !bytes.Equal(again, block) {
					t.Errorf("block %d can be written in two ways", at/blockBytes)
				}
			}
			j.look(uint32(at/blockBytes), block)
		}
		_, whole := checkFrame(p, 7, 3)
		if same := bytes.Equal(p[:2*blockBytes], image[:2*blockBytes]); whole != same {
			t.Errorf("the frame is as it was: %v, taken for whole: %v", same, whole)
		}
		v, offset, reason := j.verdict()
		if v == corrupt && (offset < 0 || offset >= int64(len(p))) {
			t.Errorf("%s at %d of %d", reason, offset, len(p))
		}
		if missing && !harmed && !whole && v == corrupt {
			t.Errorf("missing sectors are called damage: %s at %d", reason, offset)
		}
		judgeHeader(p)
	})
}
