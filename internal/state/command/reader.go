package command

import "encoding/binary"

// reader takes a body apart. The first failure stays; what is read after it is
// zero.
type reader struct {
	b     []byte
	err   string
	depth int
}

func (r *reader) fail(what string) {
	if r.err == "" {
		r.err = what
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("cut")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) flags(known byte) byte {
	f := r.byte()
	if f&^known != 0 {
		r.fail("unknown flag")
		return 0
	}
	return f
}

func (r *reader) uvarint() uint64 {
	v, rest, ok := uvarint(r.b)
	if !ok {
		r.fail("bad number")
		return 0
	}
	r.b = rest
	return v
}

// uvarint reads a number and refuses any but its shortest form.
func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// bytes returns a string of bytes that aliases the input; nil for an empty one.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("length beyond the end")
		return nil
	}
	if n == 0 {
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// count reads the length of a list whose items take at least least bytes each.
func (r *reader) count(least int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/least) {
		r.fail("list longer than its bytes")
		return 0
	}
	return int(n)
}

func (r *reader) strings() []string {
	n := r.count(leastString)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = string(r.bytes())
	}
	return list
}
