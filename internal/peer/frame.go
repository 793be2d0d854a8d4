package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// magic is how every connection of ours begins. Its first byte begins neither a
// request of HTTP nor a record of TLS.
const magic = "\xCBKvorum\n"

// A frame is a header of nine bytes and a body:
//
//	4 bytes  length of the body, little-endian
//	1 byte   kind
//	4 bytes  CRC32C of the five bytes before it and of the body
const headerBytes = 9

// The kinds of frames.
const (
	frameHello byte = iota + 1
	frameReply
	frameMessage
	framePing
	framePong
	frameAsk
	frameAnswer
)

const (
	// maxBody bounds the body of a frame once the greetings are over. It is wide:
	// the largest is one command of --max-request-bytes, and members may differ in
	// that flag.
	maxBody = 64 << 20
	// maxGreeting bounds it before that.
	maxGreeting = 16 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errTooLong = errors.New("peer: a frame is longer than any that this protocol has")
	errDamaged = errors.New("peer: a frame's checksum does not match")
	errStrange = errors.New("peer: a frame of a kind that has no place here")
)

// appender is what can write itself behind other bytes.
type appender interface{ AppendTo(buf []byte) []byte }

// raw is a body that is already there.
type raw []byte

// AppendTo appends the bytes.
func (r raw) AppendTo(buf []byte) []byte { return append(buf, r...) }

// appendFrame appends a frame to buf. A body beyond maxBody is not appended:
// errTooLong.
func appendFrame(buf []byte, kind byte, body appender) ([]byte, error) {
	start := len(buf)
	buf = append(buf, 0, 0, 0, 0, kind, 0, 0, 0, 0)
	buf = body.AppendTo(buf)
	frame := buf[start:]
	if len(frame)-headerBytes > maxBody {
		return buf[:start], errTooLong
	}
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-headerBytes))
	binary.LittleEndian.PutUint32(frame[5:], sumOf(frame))
	return buf, nil
}

// sumOf is the checksum of a whole frame, its own four bytes left out.
func sumOf(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:5], castagnoli), castagnoli, frame[headerBytes:])
}

// frameReader reads frames from a stream. The bodies that it yields are the
// caller's to keep: they lie in blocks that are never written again, and share
// them with their neighbours.
type frameReader struct {
	from io.Reader
	// limit bounds a body, fresh is the size of a block while little comes.
	limit, fresh int

	block       []byte
	first, last int // what was read and not yet yielded
	size        int // of the latest block for many frames
	full        bool
}

// next reads one frame. Errors: io.EOF between two frames, io.ErrUnexpectedEOF
// within one, errTooLong, errDamaged, and those of the stream.
func (f *frameReader) next() (kind byte, body []byte, err error) {
	for {
		have, need := f.last-f.first, headerBytes
		if have >= headerBytes {
			length := binary.LittleEndian.Uint32(f.block[f.first:])
			if uint64(length) > uint64(f.limit) {
				return 0, nil, errTooLong
			}
			need += int(length)
		}
		if have >= need {
			frame := f.block[f.first : f.first+need : f.first+need]
			f.first += need
			if binary.LittleEndian.Uint32(frame[5:]) != sumOf(frame) {
				return 0, nil, errDamaged
			}
			return frame[4], frame[headerBytes:], nil
		}
		f.room(have, need)
		n, err := f.from.Read(f.block[f.last:])
		f.last += n
		f.full = f.last == len(f.block)
		if n > 0 || err == nil {
			continue
		}
		if err == io.EOF && have > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
}

// step is how far a block grows ahead of what has come: a length alone takes no
// more memory than this.
const step = 1<<20 + 4096

// largest bounds a block of many frames.
const largest = 256 << 10

// room makes sure that there is space behind what has come; a frame of need bytes,
// of which have are there, is to lie in one piece.
func (f *frameReader) room(have, need int) {
	fits := f.first+need <= len(f.block) || f.first == 0 && len(f.block) >= step
	if fits && f.last < len(f.block) {
		return
	}
	// Where much comes, blocks are larger, so that few frames cross their ends.
	if f.full {
		f.size = min(2*f.size, largest)
	} else {
		f.size = 0
	}
	f.size = max(f.size, f.fresh)
	block := make([]byte, max(f.size, min(need, max(step, 2*have))))
	copy(block, f.block[f.first:f.last])
	f.block, f.first, f.last = block, 0, have
}

// refused is the error of a peer that would not talk to us, or that we would not
// talk to.
type refused struct {
	code byte
	text string
}

// Error implements error.
func (r *refused) Error() string { return r.text }

func refuse(code byte, format string, args ...any) *refused {
	return &refused{code, fmt.Sprintf(format, args...)}
}
