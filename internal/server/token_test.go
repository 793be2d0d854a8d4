package server

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/state/auth"
)

// A token lives for its time after each use, on the connection that showed it before as
// anywhere; what a connection remembers is worth nothing once the token has ended, or is
// shown with other letters.
func TestATokenOnItsConnection(t *testing.T) {
	const ttl = 100 * time.Second
	at := func(seconds int) env.Instant { return env.Instant(time.Duration(seconds) * time.Second) }
	given := auth.NewTokens()
	letters := "abcdefghijklmnop"
	given.Give(auth.Token{User: "ann", Digest: digestOf(letters), Revision: 7, Index: 3})
	given.Publish()
	var all tokens
	all.init(given.Follow(), ttl, at(0))
	all.follow(at(0))
	text := fullToken(letters, 3)
	var last atomic.Value
	again := func(text string, now env.Instant) bool {
		all.follow(now)
		one, ok := all.again(&last, text, now)
		if ok && (one.User != "ann" || one.Revision != 7) {
			t.Errorf("it is that of %+v", one)
		}
		return ok
	}
	found := func(now env.Instant) bool {
		all.follow(now)
		turned := all.turned.Load()
		one := all.use(digestOf(letters), 3, now)
		if one != nil {
			last.Store(&recent{text, one, turned})
		}
		return one != nil
	}
	if again(text, at(1)) {
		t.Error("it is known on a connection that has not seen it")
	}
	if !found(at(1)) || !again(text, at(50)) {
		t.Error("it is not known again")
	}
	if again(fullToken("abcdefghijklmnoq", 3), at(50)) || again(text+"0", at(50)) || again("", at(50)) {
		t.Error("other letters are taken for it")
	}
	// The tokens turn each lifetime: one that is only known by a connection would be
	// forgotten, and so is looked up again.
	if again(text, at(120)) || !found(at(120)) || !again(text, at(140)) {
		t.Error("a use on the connection did not keep it alive, or a turn passed it by")
	}
	for second := 150; second < 1000; second += 90 {
		if !again(text, at(second)) && !found(at(second)) {
			t.Fatalf("it ended at %d s, used every 90 s", second)
		}
	}
	if again(text, at(1100)) || found(at(1100)) {
		t.Error("it lives though nobody has used it")
	}
}
