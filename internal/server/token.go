package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Simple tokens: letters and the index of the command that gave them out. Every member
// learns of every token from the log, by a digest of its letters, and lets it live for
// a while after each use, by its own clock. They are in memory only: what was given out
// before a restart is learned again only if the log still has to be applied.

// tokenLetters is how many letters a token has: 91 bits.
const tokenLetters = 16

const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// mostTokens is how many a member remembers, 200 bytes each: beyond that those go that
// have not been used for longest, and their holders authenticate again.
const mostTokens = 1 << 20

// tokens are those that this member knows.
type tokens struct {
	feed *auth.Feed
	ttl  time.Duration

	mu sync.RWMutex
	// fresh are those that were given out or used since turned; the others of before then
	// are stale, and go with the next turn.
	fresh, stale map[command.TokenDigest]*token
	// turned is the env.Instant of the latest turn; it changes under the lock.
	turned atomic.Int64
}

// token is one token. It ends at until, of env.Instant, which each use moves.
type token struct {
	auth.Token
	until atomic.Int64
}

func (t *tokens) init(feed *auth.Feed, ttl time.Duration, now env.Instant) {
	t.feed, t.ttl = feed, ttl
	t.turned.Store(int64(now))
	t.fresh, t.stale = map[command.TokenDigest]*token{}, map[command.TokenDigest]*token{}
}

// follow takes in what was given out, and forgets what has ended long ago. It is to be
// called now and then.
func (t *tokens) follow(now env.Instant) {
	if !t.feed.More() && !t.due(now) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		given := t.feed.Next()
		if given == nil {
			break
		}
		for _, g := range given {
			one := &token{Token: g}
			one.until.Store(int64(now.Add(t.ttl)))
			t.keep(one, now)
		}
	}
	if t.due(now) {
		t.turn(now)
	}
}

// due says that a lifetime has passed since the latest turn.
func (t *tokens) due(now env.Instant) bool { return now.Sub(env.Instant(t.turned.Load())) >= t.ttl }

// keep puts a token among the fresh ones. The lock is held.
func (t *tokens) keep(one *token, now env.Instant) {
	if len(t.fresh) >= mostTokens/2 {
		t.turn(now)
	}
	t.fresh[one.Digest] = one
}

func (t *tokens) turn(now env.Instant) {
	t.stale, t.fresh = t.fresh, map[command.TokenDigest]*token{}
	t.turned.Store(int64(now))
}

// use finds a token that has not ended, and lets it live on; nil if there is none.
func (t *tokens) use(digest command.TokenDigest, index id.Index, now env.Instant) *token {
	t.mu.RLock()
	one, fresh := t.fresh[digest]
	if !fresh {
		one = t.stale[digest]
	}
	t.mu.RUnlock()
	if one == nil || one.Index != index || !one.use(now, t.ttl) {
		return nil
	}
	if !fresh {
		t.mu.Lock()
		t.keep(one, now)
		t.mu.Unlock()
	}
	return one
}

// use lets a token live on, unless it has ended. Its end is moved a thousandth of its
// lifetime further than it must be: those who show it at about the same time do not all
// write it down.
func (t *token) use(now env.Instant, ttl time.Duration) bool {
	until, least := env.Instant(t.until.Load()), now.Add(ttl)
	if now >= until {
		return false
	}
	if least > until {
		t.until.Store(int64(least.Add(ttl >> 10)))
	}
	return true
}

// recent is the token that was shown last on a connection, as it was found.
type recent struct {
	text string
	held *token
	// turned is that of the tokens when it was looked up: since then it is among the fresh.
	turned int64
}

// again is the token of the same text that was found on the connection before, if it is
// where it was: what most calls show costs no digest and no lock.
func (t *tokens) again(last *atomic.Value, text string, now env.Instant) (auth.Token, bool) {
	r, _ := last.Load().(*recent)
	if r == nil || subtle.ConstantTimeCompare([]byte(r.text), []byte(text)) != 1 || r.turned != t.turned.Load() || !r.held.use(now, t.ttl) {
		return auth.Token{}, false
	}
	return r.held.Token, true
}

// drawToken draws the letters of a token.
func drawToken(draws env.Rand) string {
	var letters [tokenLetters]byte
	for i := range letters {
		letters[i] = alphabet[draws.Int64N(int64(len(alphabet)))]
	}
	return string(letters[:])
}

func digestOf(letters string) command.TokenDigest { return sha256.Sum256([]byte(letters)) }

// fullToken is a token as its holder has it.
func fullToken(letters string, at id.Index) string {
	return letters + "." + strconv.FormatUint(uint64(at), 10)
}

// splitToken takes it apart.
func splitToken(text string) (letters string, at id.Index, ok bool) {
	letters, number, ok := strings.Cut(text, ".")
	if !ok || len(letters) != tokenLetters {
		return "", 0, false
	}
	index, err := strconv.ParseUint(number, 10, 64)
	return letters, id.Index(index), err == nil
}
