package wal

import (
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/internal/env"
)

// headerState is what the beginning of a file turns out to be.
type headerState uint8

const (
	// good: the file is the segment that its name says.
	good headerState = iota
	// unborn: its header was never completely written, so it was never used.
	unborn
	// bad: the header was written and is damaged.
	bad
)

// found is a segment file as recovery finds it.
type found struct {
	segment
	bytes      int64
	state      headerState
	header     header
	headBlocks uint32
	brokenAt   int64 // of a bad header
	window     window
}

// limit is how many blocks of the file may hold something.
func (f *found) limit() uint32 { return uint32((f.bytes + blockBytes - 1) / blockBytes) }

// window reads a file forwards, many blocks at a time.
type window struct {
	buffer []byte
	first  uint32
}

const windowBlocks = 64

// blocks returns count blocks from number on; they are only lent. What lies
// beyond the end of the file is blank.
func (f *found) blockAt(number, count uint32) ([]byte, error) {
	w := &f.window
	have := uint32(len(w.buffer) / blockBytes)
	if number < w.first || number+count > w.first+have {
		size := int(max(count, windowBlocks)) * blockBytes
		if cap(w.buffer) < size {
			w.buffer = make([]byte, size)
		}
		w.buffer, w.first = w.buffer[:size], number
		if err := readFull(f.file, w.buffer, int64(number)*blockBytes); err != nil {
			w.buffer = w.buffer[:0]
			return nil, fmt.Errorf("wal: read %s at offset %d: %w", f.path, int64(number)*blockBytes, err)
		}
	}
	at := int(number-w.first) * blockBytes
	return w.buffer[at : at+int(count)*blockBytes], nil
}

// openFound opens a segment file and reads its header. Errors: those of the file
// system, ErrVersion.
func openFound(fs env.FS, dir string, number uint64) (*found, error) {
	f := &found{}
	f.number, f.path = number, fs.PathJoin(dir, fileName(number, segmentSuffix))
	var err error
	if f.file, err = fs.OpenReadWrite(f.path, env.WAL); err != nil {
		return nil, err
	}
	info, err := f.file.Stat()
	if err == nil {
		f.bytes = info.Size()
		f.filled = uint32(f.bytes / blockBytes)
		err = f.readHeader()
	}
	if err != nil {
		_ = f.file.Close()
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return f, nil
}

func (f *found) readHeader() error {
	first, err := f.blockAt(0, 1)
	if err != nil {
		return err
	}
	h, whole := openBlock(first)
	count := uint32(1)
	if whole && h.seq == 0 && h.number == 0 && h.plausible() && int64(h.count) <= int64(f.limit()) {
		count = h.count
	}
	blocks, err := f.blockAt(0, count)
	if err != nil {
		return err
	}
	if _, ok := checkFrame(blocks, h.nonce, 0); ok {
		payload := make([]byte, h.length)
		gather(payload, blocks, 0)
		switch f.header, err = decodeHeader(payload); {
		case errors.Is(err, ErrVersion):
			return err
		case err != nil:
			f.state = bad
		case f.header.number != f.number:
			f.state = unborn // the file was renamed, its new header never written
		default:
			f.nonce, f.blocks, f.headBlocks = h.nonce, f.header.blocks, h.count
		}
		return nil
	}
	f.state, f.brokenAt = judgeHeader(blocks)
	return nil
}

// judgeHeader tells a header that was never completely written from one that is
// damaged: by its sectors, each of which must be blank or whole, and not all of
// one life.
func judgeHeader(blocks []byte) (state headerState, brokenAt int64) {
	var tags [2]uint32
	kinds := 0
	blanks := false
	for at := 0; at < len(blocks); at += sectorBytes {
		sector := blocks[at : at+sectorBytes]
		tag := le.Uint32(sector[sectorRoom:])
		switch classify(sector, tag) {
		case broken:
			return bad, int64(at)
		case blank:
			blanks = true
		default:
			if kinds == 0 || kinds == 1 && tags[0] != tag {
				tags[kinds] = tag
				kinds++
			}
		}
	}
	if blanks || kinds > 1 {
		return unborn, 0
	}
	// All of one life, and yet no header of it: the beginning of a recycled file
	// whose old header had more blocks, which its first block does not tell any
	// more, or damage. Only the former is followed by nothing newer.
	if h, whole := openBlock(blocks[:blockBytes]); whole && h.seq == 0 {
		return unborn, 0
	}
	return bad, 0
}
