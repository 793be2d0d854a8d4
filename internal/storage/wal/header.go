package wal

import (
	"errors"
	"fmt"
)

// formatVersion is the format that this package writes and reads.
const formatVersion = 1

const headerMagic = "kvorumwl"

// header is what a segment begins with: a frame of sequence 0, synced before the
// segment is used (rule 1).
//
//	magic 8 | version 4 | blocks 4 | number 8 | follows 8 | first 8 | low 8 |
//	voids 4 | { from segment 8 | from block 4 | to segment 8 | offset 8 | length 2 | reason } ... | summary
type header struct {
	number uint64
	blocks uint32 // the size of the segment, in blocks
	// follows is the sequence of the last frame before this segment, first that
	// of its own first frame. They differ when a torn frame was cut between:
	// its sequence is never used again.
	follows, first uint64
	// low is the oldest segment that was needed when this one began.
	low     uint64
	voids   []void
	summary []byte
}

// void is a stretch of the log that does not count, since it is damaged or comes
// after damage: from a block of one segment up to the beginning of another. It
// is carried from header to header as long as the segment it begins in is needed.
type void struct {
	from      uint64
	fromBlock uint32
	to        uint64
	// offset and reason are what was found damaged, in the segment from.
	offset int64
	reason string
}

// Errors of header decoding.
var (
	// ErrVersion: the log was written by a version that this one cannot read.
	ErrVersion = errors.New("wal: format version is not known")
	errHeader  = errors.New("bad segment header")
)

const (
	headerFixedBytes = 52
	voidFixedBytes   = 30
	maxReasonBytes   = 1 << 10
)

func (h *header) append(dst []byte) []byte {
	dst = append(dst, headerMagic...)
	dst = le.AppendUint32(dst, formatVersion)
	dst = le.AppendUint32(dst, h.blocks)
	for _, v := range [...]uint64{h.number, h.follows, h.first, h.low} {
		dst = le.AppendUint64(dst, v)
	}
	dst = le.AppendUint32(dst, uint32(len(h.voids)))
	for _, v := range h.voids {
		reason := v.reason[:min(len(v.reason), maxReasonBytes)]
		dst = le.AppendUint64(dst, v.from)
		dst = le.AppendUint32(dst, v.fromBlock)
		dst = le.AppendUint64(dst, v.to)
		dst = le.AppendUint64(dst, uint64(v.offset))
		dst = le.AppendUint16(dst, uint16(len(reason)))
		dst = append(dst, reason...)
	}
	return append(dst, h.summary...)
}

// decodeHeader reads what append wrote. The summary is a part of p. Errors:
// ErrVersion, errHeader.
func decodeHeader(p []byte) (h header, err error) {
	if len(p) < 12 || string(p[:8]) != headerMagic {
		return h, errHeader
	}
	if v := le.Uint32(p[8:]); v != formatVersion {
		return h, fmt.Errorf("%w: %d", ErrVersion, v)
	}
	if len(p) < headerFixedBytes {
		return h, errHeader
	}
	h.blocks = le.Uint32(p[12:])
	h.number, h.follows, h.first, h.low = le.Uint64(p[16:]), le.Uint64(p[24:]), le.Uint64(p[32:]), le.Uint64(p[40:])
	voids := le.Uint32(p[48:])
	p = p[headerFixedBytes:]
	if uint64(voids)*voidFixedBytes > uint64(len(p)) || h.first <= h.follows || h.low > h.number || h.number == 0 {
		return h, errHeader
	}
	for range voids {
		if len(p) < voidFixedBytes {
			return h, errHeader
		}
		v := void{from: le.Uint64(p), fromBlock: le.Uint32(p[8:]), to: le.Uint64(p[12:]), offset: int64(le.Uint64(p[20:]))}
		reason := int(le.Uint16(p[28:]))
		p = p[voidFixedBytes:]
		if reason > min(len(p), maxReasonBytes) || v.to <= v.from || v.to > h.number || v.offset < 0 {
			return h, errHeader
		}
		v.reason, p = string(p[:reason]), p[reason:]
		h.voids = append(h.voids, v)
	}
	h.summary = p
	return h, nil
}
