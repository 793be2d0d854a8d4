package keys

import "bytes"

// OrderName names this order in the engine's files. A store written under
// another name is refused; the order behind a name never changes.
const OrderName = "kvorum.v1"

// Split is the length of a key's prefix. Any bytes may be given: what is no key
// of ours is all prefix, so that Compare is total.
func Split(key []byte) int {
	n := len(key)
	if n >= SuffixBytes && key[n-1] == SuffixBytes {
		return n - SuffixBytes
	}
	return n
}

// Valid says whether bytes have the shape that every key and bound has: a prefix
// that ends in 0, and no suffix or one of 13 bytes.
func Valid(key []byte) bool {
	n := Split(key)
	return n > 0 && key[n-1] == 0
}

// Compare orders keys and bounds: by prefix, then by suffix.
func Compare(a, b []byte) int {
	na, nb := Split(a), Split(b)
	if c := bytes.Compare(a[:na], b[:nb]); c != 0 {
		return c
	}
	return bytes.Compare(a[na:], b[nb:])
}

// Equal says whether two keys are the same. Equal bytes split alike, and
// different ones differ in prefix or suffix, so the bytes decide.
func Equal(a, b []byte) bool { return bytes.Equal(a, b) }

// CompareSuffixes orders what Split cuts off.
func CompareSuffixes(a, b []byte) int { return bytes.Compare(a, b) }

// Abbreviate maps a key to eight bytes such that a smaller number means a
// smaller key; equal numbers say nothing.
func Abbreviate(key []byte) uint64 {
	var v uint64
	n := Split(key)
	for i := range 8 {
		v <<= 8
		if i < n {
			v |= uint64(key[i])
		}
	}
	return v
}

// AppendSeparator appends a short key k with a <= k < b, for a < b.
func AppendSeparator(dst, a, b []byte) []byte {
	pa, pb := a[:Split(a)], b[:Split(b)]
	i := 0
	for i < len(pa) && i < len(pb) && pa[i] == pb[i] {
		i++
	}
	if i >= len(pa) || i >= len(pb) || pa[i] >= pb[i] {
		return append(dst, a...)
	}
	// Raising one byte of a's prefix makes a greater key; raising the first that
	// differs must not reach b, raising a later one cannot.
	if pa[i]+1 < pb[i] {
		return appendRaised(dst, a, pa, i)
	}
	for i++; i < len(pa); i++ {
		if pa[i] != 0xff {
			return appendRaised(dst, a, pa, i)
		}
	}
	return append(dst, a...)
}

// AppendSuccessor appends a short key k with a <= k.
func AppendSuccessor(dst, a []byte) []byte {
	if len(a) == 0 {
		return append(dst, 0)
	}
	p := a[:Split(a)]
	for i := range p {
		if p[i] != 0xff {
			return appendRaised(dst, a, p, i)
		}
	}
	return append(dst, a...)
}

// appendRaised appends the prefix up to byte i, that byte raised by one, and an
// empty suffix; or a itself where that is not shorter.
func appendRaised(dst, a, prefix []byte, i int) []byte {
	if i+2 >= len(a) {
		return append(dst, a...)
	}
	dst = append(dst, prefix[:i+1]...)
	dst[len(dst)-1]++
	return append(dst, 0)
}

// AppendImmediateSuccessor appends the smallest prefix greater than the prefix
// a. Prefixes end in 0, so nothing lies between p and p followed by 0.
func AppendImmediateSuccessor(dst, prefix []byte) []byte {
	return append(append(dst, prefix...), 0)
}
