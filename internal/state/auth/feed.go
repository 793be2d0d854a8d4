package auth

import (
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Token is what the state tells of a token that was given out: never the letters
// themselves. It is not kept by the state.
type Token struct {
	User   string
	Digest command.TokenDigest
	// Revision is the auth revision of that moment, Index that of the log.
	Revision uint64
	Index    id.Index
}

// Feed is one reader's place in the tokens given out, oldest first. The writer never
// waits for it.
type Feed struct{ at atomic.Pointer[page] }

// page is the tokens of one publication, and the way to the next one.
type page struct {
	tokens []Token
	next   atomic.Pointer[page]
}

// Tokens is the writer's side.
type Tokens struct {
	given []Token // by the batch in hand
	last  *page
	// first is the page before all that nobody has read; nil once it is taken.
	first atomic.Pointer[page]
}

// NewTokens begins.
func NewTokens() *Tokens {
	t := &Tokens{last: &page{}}
	t.first.Store(t.last)
	return t
}

// Give notes a token; it is told by the next Publish.
func (t *Tokens) Give(token Token) { t.given = append(t.given, token) }

// Publish tells what was given. It belongs to the applier, like Give.
func (t *Tokens) Publish() {
	if len(t.given) == 0 {
		return
	}
	next := &page{tokens: t.given}
	t.given = nil
	t.last.next.Store(next)
	t.last = next
}

// Follow returns the feed of all tokens. It may be called once, from any goroutine:
// until then they are kept.
func (t *Tokens) Follow() *Feed {
	first := t.first.Swap(nil)
	invariant.Check(first != nil, "the tokens are followed twice")
	f := &Feed{}
	f.at.Store(first)
	return f
}

// More says whether Next has something: two atomic loads. A feed belongs to one
// goroutine at a time, but for More.
func (f *Feed) More() bool { return f.at.Load().next.Load() != nil }

// Next takes the tokens of the next publication; nil if there is nothing new.
func (f *Feed) Next() []Token {
	next := f.at.Load().next.Load()
	if next == nil {
		return nil
	}
	f.at.Store(next)
	return next.tokens
}
