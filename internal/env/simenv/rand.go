package simenv

import (
	"fmt"
	"math/bits"
)

// Rand is a seeded generator (SplitMix64). It is our own, so that a seed means
// the same world under every version of Go; it is not for secrets. It is not
// safe for concurrent use: everything that draws takes turns.
type Rand struct{ state uint64 }

// NewRand returns one stream of a seed. Streams of different names are
// independent: drawing more from one never moves another.
func NewRand(seed uint64, stream string) *Rand {
	return &Rand{state: mix(seed) ^ hashString(stream)}
}

// Uint64 returns the next 64 bits.
func (r *Rand) Uint64() uint64 {
	r.state += 0x9e3779b97f4a7c15
	return mix(r.state)
}

// Int64N returns a number in [0, n), each equally likely; n must be positive.
func (r *Rand) Int64N(n int64) int64 {
	require(n > 0, "Int64N(%d): the bound must be positive", n)
	bound := uint64(n)
	// The product of a draw and the bound is cut into bound slices of equal
	// width; the surplus at the low end of each is drawn again.
	high, low := bits.Mul64(r.Uint64(), bound)
	for surplus := -bound % bound; low < surplus; {
		high, low = bits.Mul64(r.Uint64(), bound)
	}
	return int64(high)
}

// Intn is Int64N for int.
func (r *Rand) Intn(n int) int { return int(r.Int64N(int64(n))) }

// OneIn is true once in n draws on average; never, without a draw, if n is not
// positive.
func (r *Rand) OneIn(n int64) bool { return n > 0 && r.Int64N(n) == 0 }

// mix is the finalizer of SplitMix64: it spreads every bit over all others.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashString is FNV-1a, spread by mix.
func hashString(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// require ends a simulation that uses this package wrongly. The panic is no
// invariant.Violation: that would accuse the product.
func require(ok bool, format string, args ...any) {
	if !ok {
		panic("simenv: " + fmt.Sprintf(format, args...))
	}
}
