package osenv

import (
	crand "crypto/rand"
	"math/rand/v2"
	"sync"
)

// Rand is a ChaCha8 generator keyed by the operating system's randomness: fit
// for nonces and identifiers that nobody may guess. It is safe for concurrent
// use.
type Rand struct {
	mu    sync.Mutex
	draws *rand.Rand
}

// NewRand returns a generator with a key of its own.
func NewRand() *Rand {
	var key [32]byte
	crand.Read(key[:]) // never fails: the runtime ends the process instead
	return &Rand{draws: rand.New(rand.NewChaCha8(key))}
}

// Uint64 returns 64 random bits.
func (r *Rand) Uint64() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draws.Uint64()
}

// Int64N returns a number in [0, n), each equally likely. It panics if n is not
// positive.
func (r *Rand) Int64N(n int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draws.Int64N(n)
}
