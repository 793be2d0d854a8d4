package rpc

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/metadata"
)

// The header fields of every answer that went well. They alone go into the
// client's table, so that such an answer costs two bytes of header and two of
// trailer; all others are sent as they are.
const (
	fieldType = iota
	fieldStatus
	fieldMessage
	commonFields
)

var commonField = [commonFields]struct{ name, value string }{
	fieldType:    {"content-type", "application/grpc"},
	fieldStatus:  {"grpc-status", "0"},
	fieldMessage: {"grpc-message", ""},
}

// commonSize is what the three take in the client's table (RFC 7541, 4.1), rounded up.
const commonSize = 256

// encoder writes header blocks. It belongs to the connection's writer; a copy of
// it is a point to go back to.
type encoder struct {
	// limit is the size of the table that the client allows. changed says that it
	// has not been told yet that we obey.
	limit   uint32
	changed bool
	entries uint8
	// order tells when a common field went into the table: 1 for the first; 0 never.
	order [commonFields]uint8
}

// resize obeys the client's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) resize(limit uint32) {
	limit = min(limit, 4096)
	if limit == e.limit {
		return
	}
	if limit < commonSize { // no table at all: told as a table of nothing
		limit, e.entries, e.order = 0, 0, [commonFields]uint8{}
	}
	e.limit, e.changed = limit, true
}

// begin comes before the first field of a block.
func (e *encoder) begin(dst []byte) []byte {
	if e.changed {
		e.changed = false
		dst = appendInt(dst, 0x20, 5, uint64(e.limit))
	}
	return dst
}

// common appends one of the common fields.
func (e *encoder) common(dst []byte, field int) []byte {
	f := &commonField[field]
	switch {
	case e.order[field] != 0:
		return append(dst, 0x80|(62+e.entries-e.order[field]))
	case e.limit == 0:
		return appendField(dst, f.name, f.value)
	}
	e.entries++
	e.order[field] = e.entries
	dst = append(dst, 0x40)
	return appendString(appendString(dst, f.name), f.value)
}

// headers appends the first block of an answer: the HTTP status and the content type.
func (e *encoder) headers(dst []byte, httpStatus int, subtype string) []byte {
	dst = e.httpStatus(e.begin(dst), httpStatus)
	if subtype == "" {
		return e.common(dst, fieldType)
	}
	return appendField(dst, "content-type", "application/grpc+"+subtype)
}

// status appends the fields that end a call.
func (e *encoder) status(dst []byte, code uint32, message string) []byte {
	if code == 0 {
		dst = e.common(dst, fieldStatus)
	} else {
		dst = appendField(dst, "grpc-status", strconv.FormatUint(uint64(code), 10))
	}
	if message == "" {
		return e.common(dst, fieldMessage)
	}
	return appendField(dst, "grpc-message", percentEncoded(message))
}

// appendField appends a field that does not go into the table.
func appendField(dst []byte, name, value string) []byte {
	return appendString(appendString(append(dst, 0), name), value)
}

// appendMetadata appends what a handler wants to be sent. The names that gRPC keeps
// for itself are left out.
func appendMetadata(dst []byte, md metadata.MD) []byte {
	for name, values := range md {
		if reserved(name) {
			continue
		}
		for _, v := range values {
			if strings.HasSuffix(name, "-bin") {
				v = encodeBinary(v)
			}
			dst = appendField(dst, name, v)
		}
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(appendInt(dst, 0, 7, uint64(len(s))), s...)
}

// appendInt appends an integer with a prefix of that many bits (RFC 7541, 5.1).
func appendInt(dst []byte, first byte, bits int, n uint64) []byte {
	most := uint64(1)<<bits - 1
	if n < most {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// appendBlock turns the header block at the end of dst, which begins after nine
// bytes left for a head, into a HEADERS frame and what CONTINUATION frames it needs.
func appendBlock(dst []byte, begin int, stream uint32, end bool, most int) []byte {
	var flags http2.Flags
	if end {
		flags = http2.FlagHeadersEndStream
	}
	length := len(dst) - begin - frameHead
	if length <= most {
		patchFrameHead(dst[begin:begin+frameHead], length, http2.FrameHeaders, flags|http2.FlagHeadersEndHeaders, stream)
		return dst
	}
	block := append([]byte(nil), dst[begin+frameHead:]...)
	dst = append(appendFrameHead(dst[:begin], most, http2.FrameHeaders, flags, stream), block[:most]...)
	for block = block[most:]; len(block) > 0; {
		piece := block[:min(most, len(block))]
		block = block[len(piece):]
		flags = 0
		if len(block) == 0 {
			flags = http2.FlagContinuationEndHeaders
		}
		dst = append(appendFrameHead(dst, len(piece), http2.FrameContinuation, flags, stream), piece...)
	}
	return dst
}

// percentEncoded is a status message as the header grpc-message carries it: what is
// not printable ASCII, and the percent sign, byte by byte in hexadecimal; what is
// not UTF-8 as the replacement character.
func percentEncoded(message string) string {
	plain := func(b byte) bool { return b >= ' ' && b <= '~' && b != '%' }
	i := 0
	for i < len(message) && plain(message[i]) {
		i++
	}
	if i == len(message) {
		return message
	}
	if !utf8.ValidString(message) {
		var valid strings.Builder
		for _, r := range message { // one replacement for every byte that is none
			valid.WriteRune(r)
		}
		message = valid.String()
	}
	var out strings.Builder
	for i := range len(message) {
		if b := message[i]; plain(b) {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}
