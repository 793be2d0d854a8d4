package wal

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/invariant"
)

// frameHeadBytes is what the payload of a frame begins with: the number of the
// oldest segment that is still needed. Records follow to the end.
const frameHeadBytes = 8

// frame is being staged, in the form that it will have on disk; only heads and
// trailers are missing until it is sealed. The buffer is kept for the next one.
type frame struct {
	blocks []byte
	length int // payload bytes so far
}

// maxKeptBytes is how large a buffer may be and still be kept for later frames.
const maxKeptBytes = 4 << 20

// reset empties the frame down to its head.
func (f *frame) reset() {
	if cap(f.blocks) > maxKeptBytes {
		f.blocks = nil
	}
	f.blocks, f.length = f.blocks[:0], 0
	f.grow(frameHeadBytes)
	f.length = frameHeadBytes
}

// empty says that the frame holds no record.
func (f *frame) empty() bool { return f.length == frameHeadBytes }

// grow makes room for a payload of length bytes. New blocks are zero, since what
// a frame does not fill is.
func (f *frame) grow(length int) {
	need := blocksFor(length) * blockBytes
	if need <= len(f.blocks) {
		return
	}
	old := len(f.blocks)
	if need > cap(f.blocks) {
		larger := make([]byte, need, max(need, 2*cap(f.blocks)))
		copy(larger, f.blocks)
		f.blocks = larger
		return
	}
	f.blocks = f.blocks[:need]
	clear(f.blocks[old:])
}

// write appends bytes to the payload.
func (f *frame) write(p []byte) {
	f.grow(f.length + len(p))
	scatter(f.blocks, f.length, p)
	f.length += len(p)
}

// append adds a record and returns where in the payload it begins.
func (f *frame) append(r *Record) (offset int) {
	var b [RecordHeadBytes]byte
	r.putHead(&b)
	offset = f.length
	f.write(b[:])
	f.write(r.Data)
	return offset
}

// setLow sets the oldest segment that is needed.
func (f *frame) setLow(low uint64) {
	var b [frameHeadBytes]byte
	le.PutUint64(b[:], low)
	scatter(f.blocks, 0, b[:])
}

// finish makes the blocks ready to be written.
func (f *frame) finish(nonce, seq uint64) []byte {
	invariant.Check(f.length <= maxFrameBytes, "a frame is too large")
	count := uint32(len(f.blocks) / blockBytes)
	for number := range count {
		h := head{nonce: nonce, seq: seq, number: number, count: count, length: uint32(f.length)}
		h.finish(f.blocks[int(number)*blockBytes : int(number+1)*blockBytes])
	}
	return f.blocks
}

// maxFrameBytes bounds the payload of one frame: offsets are 32 bits wide.
const maxFrameBytes = 1 << 31

// checkFrame says whether blocks begin with the whole frame (nonce, seq). It
// returns the frame's head; count is then how many blocks it takes.
func checkFrame(blocks []byte, nonce, seq uint64) (first head, ok bool) {
	if len(blocks) < blockBytes {
		return first, false
	}
	first, ok = openBlock(blocks[:blockBytes])
	if !ok || first.nonce != nonce || first.seq != seq || first.number != 0 || !first.plausible() ||
		uint64(len(blocks)) < uint64(first.count)*blockBytes {
		return first, false
	}
	want := first
	for number := uint32(1); number < first.count; number++ {
		want.number = number
		at := int(number) * blockBytes
		if h, ok := openBlock(blocks[at : at+blockBytes]); !ok || h != want {
			return first, false
		}
	}
	return first, true
}

// plausible says that count and length agree.
func (h head) plausible() bool {
	return int64(h.length) <= maxFrameBytes && h.count > 0 && blocksFor(int(h.length)) == int(h.count)
}

// decodeFrame checks the payload of a frame and hands each record to visit, with
// its offset in the payload. Nothing is visited unless everything is in order,
// or when visit is nil. Data of a record is a part of payload.
func decodeFrame(payload []byte, visit func(offset int, r Record) error) (low uint64, err error) {
	if len(payload) < frameHeadBytes {
		return 0, fmt.Errorf("%w: frame of %d bytes", ErrRecord, len(payload))
	}
	low = le.Uint64(payload)
	for at := frameHeadBytes; at < len(payload); {
		_, size, err := DecodeRecord(payload[at:])
		if err != nil {
			return low, err
		}
		at += size
	}
	if visit == nil {
		return low, nil
	}
	for at := frameHeadBytes; at < len(payload); {
		r, size, err := DecodeRecord(payload[at:])
		if err == nil {
			err = visit(at, r)
		}
		if err != nil {
			return low, err
		}
		at += size
	}
	return low, nil
}
