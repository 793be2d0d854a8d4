package rpc

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	// frameHead is the length of a frame's head (RFC 9113, 4.1).
	frameHead = 9
	// maxFrame is the largest payload that we take in, and announce: the least that
	// a server may (RFC 9113, 4.2).
	maxFrame = 16 << 10
	// firstWindow is every window before anybody changed it (RFC 9113, 6.9.2).
	firstWindow = 65535
	// mostWindow is the largest window there is.
	mostWindow = 1<<31 - 1
)

// frame is one frame of the client. Its payload is valid until more is read.
type frame struct {
	kind    http2.FrameType
	flags   http2.Flags
	stream  uint32
	payload []byte
}

func (f *frame) has(flag http2.Flags) bool { return f.flags&flag != 0 }

// parseFrame takes the first frame off what was read. rest is as it was when the
// frame has not come entirely; need says how many bytes there must be at least.
func parseFrame(read []byte) (f frame, rest []byte, need int, err error) {
	if len(read) < frameHead {
		return f, read, frameHead, nil
	}
	length := int(read[0])<<16 | int(read[1])<<8 | int(read[2])
	if length > maxFrame {
		return f, read, 0, fault(http2.ErrCodeFrameSize, "a frame is larger than 16384 bytes")
	}
	if len(read) < frameHead+length {
		return f, read, frameHead + length, nil
	}
	f = frame{
		kind: http2.FrameType(read[3]), flags: http2.Flags(read[4]),
		stream:  binary.BigEndian.Uint32(read[5:]) & mostWindow,
		payload: read[frameHead : frameHead+length : frameHead+length],
	}
	return f, read[frameHead+length:], 0, nil
}

// unpad cuts the padding of a DATA or HEADERS frame off.
func (f *frame) unpad() ([]byte, error) {
	if !f.has(http2.FlagDataPadded) {
		return f.payload, nil
	}
	if len(f.payload) == 0 {
		return nil, fault(http2.ErrCodeFrameSize, "a padded frame without its length")
	}
	pad := int(f.payload[0])
	if pad >= len(f.payload) {
		return nil, fault(http2.ErrCodeProtocol, "padding longer than its frame")
	}
	return f.payload[1 : len(f.payload)-pad], nil
}

// connFault ends the connection with a GOAWAY of its code.
type connFault struct {
	code http2.ErrCode
	text string
}

func (e *connFault) Error() string { return e.code.String() + ": " + e.text }

func fault(code http2.ErrCode, text string) error { return &connFault{code, text} }

func appendFrameHead(dst []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags),
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// patchFrameHead writes a head over nine bytes that were left for it.
func patchFrameHead(at []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) {
	appendFrameHead(at[:0], length, kind, flags, stream)
}

func appendReset(dst []byte, stream uint32, code http2.ErrCode) []byte {
	dst = appendFrameHead(dst, 4, http2.FrameRSTStream, 0, stream)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

func appendWindowUpdate(dst []byte, stream uint32, more int) []byte {
	dst = appendFrameHead(dst, 4, http2.FrameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(dst, uint32(more))
}

func appendPing(dst []byte, flags http2.Flags, data [8]byte) []byte {
	dst = appendFrameHead(dst, 8, http2.FramePing, flags, 0)
	return append(dst, data[:]...)
}

func appendGoAway(dst []byte, last uint32, code http2.ErrCode, text string) []byte {
	dst = appendFrameHead(dst, 8+len(text), http2.FrameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, text...)
}

func appendSettings(dst []byte, settings ...http2.Setting) []byte {
	dst = appendFrameHead(dst, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Val)
	}
	return dst
}

// appendDataHead begins a DATA frame of that many bytes.
func appendDataHead(dst []byte, length int, stream uint32) []byte {
	return appendFrameHead(dst, length, http2.FrameData, 0, stream)
}
