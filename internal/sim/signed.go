package sim

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/credential"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// Signed tokens (credential.JWT, all members with one key). No member remembers them:
// what one says is good wherever it is shown, from the moment on at which it was given,
// until its time has passed by the calendar of who is asked. Calendars differ by the drift
// of clocks alone in these worlds.

// signer is what makes and reads tokens on a member.
func (w *world) signer(r *replica) server.Signed {
	key := func(string) ([]byte, error) { return []byte("the key of all members of this world"), nil }
	j, err := credential.NewJWT(credential.TokenOptions{JWT: true, Method: "HS256", PrivateKey: "key", TTL: w.swarm.users.ttl}, key, r.process.Clock)
	if err != nil {
		w.fail("%v: the key of tokens: %v", r, err)
	}
	return j
}

// claim is what a signed token says.
type claim struct {
	User     string `json:"username"`
	Revision uint64 `json:"revision"`
	End      int64  `json:"exp"`
}

// readClaim reads it, whatever the signature is.
func readClaim(text string) (c claim, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return c, fmt.Errorf("%q is no signed token", text)
	}
	said, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(said, &c)
}

// forge has a token speak for root; the signature stays.
func forge(text string) string {
	c, err := readClaim(text)
	if err != nil {
		return text
	}
	c.User = rights.Root
	said, _ := json.Marshal(c) // numbers and a name
	parts := strings.Split(text, ".")
	return parts[0] + "." + base64.RawURLEncoding.EncodeToString(said) + "." + parts[2]
}

// signedFor notes what a signed token was given for: by the password that its user had
// when the auth revision was the one that it says, some time since an index.
func (l *ledger) signedFor(one token, user, password string, since id.Index) error {
	c, err := readClaim(one.text)
	if err != nil {
		return err
	}
	hash, _ := passwords{}.Hash(password)
	if c.User == user {
		for index := since; index <= l.last(); index++ {
			t := l.rightsAt(index)
			if u, known := t.Users[user]; t.Enabled && t.Revision == c.Revision && known && u.Hash == string(hash) {
				l.rights.given[one.digest] = given{user: user, issued: c.Revision, index: index, password: u.Hash}
				return nil
			}
		}
	}
	return fmt.Errorf("is given a token that says %+v for a password that was not his under that revision, from index %d on", c, since)
}

// calendarsOff is how far apart two members' calendars may be: each by as much as its
// clock has gained or lost.
func (w *world) calendarsOff() time.Duration {
	return time.Duration(int64(w.env.Now()) / 1e6 * 2 * w.swarm.driftPPM)
}

// mayBeOver says whether a signed token may have ended: that is at a full second, by the
// calendar of who gave it.
func (w *world) mayBeOver(one *token) bool {
	return w.env.Now() >= one.asked.Add(w.swarm.users.ttl-time.Second-w.calendarsOff())
}

// judgeSigned judges what a member makes of a signed token, by what it has applied.
func (w *world) judgeSigned(r *replica, who *identity, err error) error {
	table, one, now := w.ledger.rightsAt(r.applied), who.token, w.env.Now()
	g := w.ledger.rights.given[one.digest]
	_, known := table.Users[g.user]
	void := known && !table.Good(rights.Caller{User: g.user, Issued: g.issued})
	ended, over := w.mayBeOver(one), now > one.had.Add(w.swarm.users.ttl+w.calendarsOff())
	switch {
	case err == nil && (one.forged || over || void):
		return fmt.Errorf("a token of %q of revision %d is taken at index %d: forged %v, asked for at %v, had at %v, void %v: %v", g.user, g.issued, r.applied, one.forged, one.asked, one.had, void, table)
	case err == nil:
		w.trace.mark(markSigned)
	case errors.Is(err, command.ErrInvalidAuthToken) && one.forged:
		w.trace.mark(markForged)
	case errors.Is(err, command.ErrInvalidAuthToken) && ended:
		w.trace.mark(markSignedOver)
	case errors.Is(err, command.ErrAuthOldRevision) && void:
	default:
		return fmt.Errorf("a token of %q of revision %d is not taken at index %d: %w; asked for at %v, had at %v: %v", g.user, g.issued, r.applied, err, one.asked, one.had, table)
	}
	return nil
}
