// Package credential tells whether what somebody shows is good: passwords by their
// bcrypt hashes, and signed tokens (JWT). It knows nothing of who may do what.
package credential

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"runtime"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// The costs that bcrypt takes, each twice as dear as the one before.
const (
	LeastCost   = bcrypt.MinCost
	MostCost    = bcrypt.MaxCost
	DefaultCost = bcrypt.DefaultCost
)

// mostKnown is how many users' passwords are known at a time: some 200 bytes each.
const mostKnown = 1 << 16

// Passwords judges passwords. bcrypt is slow on purpose (50 ms at the usual cost), so
// what it has found right is known from then on: for each user a MAC of the password
// and of the hash that it fits, under a key that is to lie where images of the memory
// (core dumps, swap) do not reach. Without that key a MAC says nothing; what else is in
// memory is the hash. A new password has a new hash, so nothing known goes stale.
//
// Wrong passwords always take bcrypt's time, and so do users that do not exist: nobody
// learns from the time that an answer takes, nor guesses any faster than before.
type Passwords struct {
	cost int
	key  []byte
	// turns bounds how many bcrypts run at once, below the number of cores: passwords are
	// guessed at nobody else's expense.
	turns chan struct{}
	decoy func() []byte

	mu sync.Mutex
	// fresh is what was learned since it was last moved to stale.
	fresh, stale map[string]fit
}

// fit is a password that fits a hash.
type fit struct {
	hash string
	mac  [sha256.Size]byte
}

// NewPasswords returns a judge that makes hashes of a cost; one that is out of range
// stands for DefaultCost. The key, of 32 random bytes, is the caller's to hide and must
// outlive it.
func NewPasswords(cost int, key []byte) *Passwords {
	if cost < LeastCost || cost > MostCost {
		cost = DefaultCost
	}
	p := &Passwords{
		cost: cost, key: key, turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
		fresh: map[string]fit{}, stale: map[string]fit{},
	}
	p.decoy = sync.OnceValue(func() []byte {
		hash, _ := p.Hash("nobody's") // its errors are about other passwords
		return hash
	})
	return p
}

// Hash makes the hash of a password. Errors: bcrypt's, for one of more than 72 bytes.
func (p *Passwords) Hash(password string) ([]byte, error) {
	return bcrypt.GenerateFromPassword([]byte(password), p.cost)
}

// Check says what is wrong with a password before anything is done with it: nil, or
// what Hash would say.
func (p *Passwords) Check(password string) error {
	if len(password) > 72 {
		return bcrypt.ErrPasswordTooLong
	}
	return nil
}

// Fits says whether a user's password fits a hash; an empty hash fits none, in no less
// time. It gives up with ctx. Errors: the context's.
func (p *Passwords) Fits(ctx context.Context, user string, hash []byte, password string) (bool, error) {
	mac := p.mac(user, hash, password)
	if len(hash) > 0 && p.knows(user, hash, &mac) {
		return true, nil
	}
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if len(hash) == 0 {
		_ = bcrypt.CompareHashAndPassword(p.decoy(), []byte(password))
		return false, nil
	}
	if p.knows(user, hash, &mac) { // another caller was before us
		return true, nil
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
		return false, nil
	}
	p.learn(user, fit{string(hash), mac})
	return true, nil
}

// mac is what is kept of a password: the hash, under the key, of such a hash of all
// parts. The key is in no buffer afterwards, as it would be with crypto/hmac.
func (p *Passwords) mac(user string, hash []byte, password string) [sha256.Size]byte {
	buf := make([]byte, 0, len(p.key)+len(user)+len(hash)+len(password)+3*8)
	buf = append(buf, p.key...)
	for _, part := range [...]string{user, string(hash), password} {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(len(part)))
		buf = append(buf, part...)
	}
	inner := sha256.Sum256(buf)
	clear(buf[len(p.key):])
	buf = append(buf[:len(p.key)], inner[:]...)
	sum := sha256.Sum256(buf)
	clear(buf)
	return sum
}

func (p *Passwords) knows(user string, hash []byte, mac *[sha256.Size]byte) bool {
	p.mu.Lock()
	known, ok := p.fresh[user]
	if !ok {
		if known, ok = p.stale[user]; ok && known.hash == string(hash) {
			p.keep(user, known)
		}
	}
	p.mu.Unlock()
	return ok && known.hash == string(hash) && subtle.ConstantTimeCompare(known.mac[:], mac[:]) == 1
}

func (p *Passwords) learn(user string, f fit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(user, f)
}

// keep notes a fit; half of what is known may be forgotten for it. The lock is held.
func (p *Passwords) keep(user string, f fit) {
	if len(p.fresh) >= mostKnown/2 {
		p.stale, p.fresh = p.fresh, map[string]fit{}
	}
	p.fresh[user] = f
}
