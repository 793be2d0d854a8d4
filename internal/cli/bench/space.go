package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// Space is the keys that a measurement works on: the numbers from 0 to Keys-1,
// in decimal, padded to KeyBytes, so that any run of them is one range. Values
// are random bytes, which no store can compress.
type Space struct {
	Keys       int `json:"keys"`
	KeyBytes   int `json:"key_bytes"`
	ValueBytes int `json:"value_bytes"`
}

func (s Space) check() error {
	if s.Keys < 1 {
		return fmt.Errorf("a key space needs at least one key, not %d", s.Keys)
	}
	if need := len(strconv.Itoa(s.Keys)); s.KeyBytes < need {
		return fmt.Errorf("%d keys need at least %d bytes each, not %d", s.Keys, need, s.KeyBytes)
	}
	if s.ValueBytes < 0 {
		return fmt.Errorf("a value cannot have %d bytes", s.ValueBytes)
	}
	return nil
}

// key is the i-th key; key(Keys) ends a range of them all.
func (s Space) key(i int) []byte { return fmt.Appendf(nil, "%0*d", s.KeyBytes, i) }

// source draws keys and bytes for one client. Equal seeds and clients draw
// equally.
type source struct {
	*rand.Rand
	stream *rand.ChaCha8
}

func newSource(seed uint64, client int) source {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(client))
	stream := rand.NewChaCha8(key)
	return source{Rand: rand.New(stream), stream: stream}
}

// fill makes all of b random.
func (s source) fill(b []byte) { _, _ = s.stream.Read(b) }

// shuffled is the i-th of a fixed order of all keys that is neither ascending
// nor random to compute: steps of a size that shares no divisor with Keys.
func (s Space) shuffled(i int) int {
	step := s.Keys*5/8 | 1
	for gcd(step, s.Keys) != 1 {
		step += 2
	}
	return int(uint64(i) * uint64(step) % uint64(s.Keys))
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
