package v3

import (
	"encoding/binary"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields walks the fields of one message of the wire. It knows what the messages
// of the KV service are made of, numbers and byte strings, passes over anything
// else whole, and is odd where it cannot: at bytes that do not parse, and at
// groups, which nothing sends. What is odd is for the generated code to judge.
type fields struct {
	rest []byte
	// tag is the field's number and type as the wire has them, number its value if
	// it is a number, bytes if it is a string: a part of the message.
	tag    uint64
	number uint64
	bytes  []byte
	odd    bool
}

// next moves to the next field that is a number or a string; false at the end,
// and at what is odd.
func (f *fields) next() bool {
	for len(f.rest) > 0 {
		tag, ok := f.varint()
		if num := tag >> 3; !ok || num < uint64(protowire.MinValidNumber) || num > uint64(protowire.MaxValidNumber) {
			f.odd = true
			return false
		}
		f.tag = tag
		switch protowire.Type(tag & 7) {
		case protowire.VarintType:
			f.number, ok = f.varint()
			f.odd = !ok
			return ok
		case protowire.BytesType:
			n, ok := f.varint()
			if !ok || n > uint64(len(f.rest)) {
				f.odd = true
				return false
			}
			f.bytes, f.rest = f.rest[:n:n], f.rest[n:]
			return true
		case protowire.Fixed64Type:
			ok = f.skip(8)
		case protowire.Fixed32Type:
			ok = f.skip(4)
		default:
			ok = false
		}
		if !ok {
			f.odd = true
			return false
		}
	}
	return false
}

func (f *fields) varint() (uint64, bool) {
	if len(f.rest) > 0 && f.rest[0] < 0x80 {
		v := uint64(f.rest[0])
		f.rest = f.rest[1:]
		return v, true
	}
	v, n := protowire.ConsumeVarint(f.rest)
	if n < 0 {
		return 0, false
	}
	f.rest = f.rest[n:]
	return v, true
}

func (f *fields) skip(n int) bool {
	if len(f.rest) < n {
		return false
	}
	f.rest = f.rest[n:]
	return true
}

// Tags of the wire: a field's number and its type in one.
func numbered(field uint64) uint64 { return field << 3 }
func stringed(field uint64) uint64 { return field<<3 | 2 }

// appendNumber appends a field that is a number; zero is left out.
func appendNumber[T ~int64 | ~uint64](dst []byte, field byte, v T) []byte {
	if v == 0 {
		return dst
	}
	return binary.AppendUvarint(append(dst, field<<3), uint64(v))
}

// appendYes appends a field that is true; false is left out.
func appendYes(dst []byte, field byte, v bool) []byte {
	if !v {
		return dst
	}
	return append(dst, field<<3, 1)
}

// appendString appends a field that is a byte string; an empty one is left out.
func appendString(dst []byte, field byte, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	return append(appendMessage(dst, field, len(b)), b...)
}

// appendMessage begins a field that is a message of so many bytes.
func appendMessage(dst []byte, field byte, size int) []byte {
	return binary.AppendUvarint(append(dst, field<<3|2), uint64(size))
}

// What the fields above weigh.

func sizeVarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func sizeNumber[T ~int64 | ~uint64](v T) int {
	if v == 0 {
		return 0
	}
	return 1 + sizeVarint(uint64(v))
}

func sizeYes(v bool) int {
	if v {
		return 2
	}
	return 0
}

func sizeString(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return sizeMessage(len(b))
}

func sizeMessage(size int) int { return 1 + sizeVarint(uint64(size)) + size }
