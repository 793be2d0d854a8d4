package sim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// person is a client who has to say who he is: by a token that some member gave him for
// his password, lately or long ago, by the name in a certificate, or not at all. He makes
// one call at a time, to any member, through the services as the doors do. Everything
// that he is told is held against what he may know (people.go).
type person struct {
	w       *world
	rand    *simenv.Rand
	id      int
	current *talk
	tokens  []token
	made    int
	// last is what the member of connected keeps of the token that he showed last.
	last      *atomic.Value
	connected *server.Member
	wakeAt    env.Instant
	// careful: he shows his latest token, and knows his password.
	careful bool
}

// token is one that a person has.
type token struct {
	text   string
	digest command.TokenDigest
	// asked is when it was asked for, in true time, had when it had come.
	asked, had env.Instant
	// forged: its holder has altered what it says.
	forged bool
}

// mostTokens is how many a person keeps: the older ones may be void.
const mostTokens = 3

func newPerson(w *world, n int) *person {
	return &person{w: w, rand: w.env.Rand(fmt.Sprintf("person %d", n)), id: n}
}

// personName is the name of a person's user.
func personName(n int) string { return []string{"ann", "bob", "cleo"}[n] }

func (p *person) String() string { return personName(p.id) }

func (p *person) hangUp() {
	if p.current != nil {
		p.current.hangUp()
	}
}

func (p *person) due() env.Instant {
	switch {
	case p.current != nil:
		return p.current.due()
	case p.w.calm:
		return env.Never
	}
	return p.wakeAt
}

func (p *person) act() {
	if p.current == nil {
		p.wakeAt = p.w.env.Now().Add(around(p.rand, p.w.swarm.users.pause))
		say := p.call
		if p.w.ledger.rights.now.Enabled && (len(p.tokens) == 0 || p.rand.OneIn(8)) {
			say = p.logIn
		}
		p.begins(p.w.pick(p.rand), say)
		return
	}
	if p.current.goOn() {
		p.current = nil
	}
}

// begins begins to talk with a member, if that is up.
func (p *person) begins(r *replica, say func(*talk)) {
	if r == nil || r.host == nil {
		return
	}
	p.current = newTalk(p.w, p.String(), r, say)
	if p.current.goOn() {
		p.current = nil
	}
}

// tell writes down what is said.
func (p *person) tell(t *talk, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p.w.trace.fold(eventReturn, 1<<34|uint64(p.id), t.number, uint64(t.replica.member), digestString(text))
	p.w.trace.tell(p.w.env.Now(), "%v and %v (%d): %s", p, t.replica, t.number, text)
}

// logIn asks for a token, mostly with the password that he has at the moment.
func (p *person) logIn(t *talk) {
	w, began := p.w, p.w.env.Now()
	password := w.admin.passwordOf(p.String())
	if password == "" || !p.careful && p.rand.OneIn(6) {
		password = passwordOf(1 + p.rand.Intn(w.admin.made+1))
	}
	p.tell(t, "logs in with %q", password)
	text, err := t.replica.services.Authenticate(context.Background(), t.await, p.String(), password)
	if errors.Is(err, errHungUp) {
		return
	}
	p.tell(t, "logs in: %s, %v", text, err)
	if err != nil {
		w.check(p, w.judgeRefusedLogIn(t, p.String(), password, err))
		return
	}
	letters, _, _ := strings.Cut(text, ".")
	one := token{text: text, digest: sha256.Sum256([]byte(letters)), asked: began, had: w.env.Now()}
	if w.swarm.users.signed {
		one.digest = sha256.Sum256([]byte(text))
		w.check(p, w.ledger.signedFor(one, p.String(), password, t.began))
	}
	w.check(p, w.judgeLogIn(one, p.String(), password))
	if p.tokens = append(p.tokens, one); len(p.tokens) > mostTokens {
		p.tokens = p.tokens[1:]
	}
}

// identity is who a person has turned out to be: as the member sees him, and what his
// credentials are worth by the ledger.
type identity struct {
	auth.Caller
	shown rights.Caller
	// token is what he showed, if it was one.
	token *token
}

// call identifies and asks for something.
func (p *person) call(t *talk) {
	who, ok := p.identify(t)
	if !ok {
		return
	}
	as := t.replica.services.As(who.Caller)
	switch n := p.rand.Intn(20); {
	case n < 8:
		p.read(t, as, who)
	case n < 9:
		p.pieces(t, as, who)
	case n < 11 && p.w.swarm.leases.some():
		p.lease(t, as, who)
	default:
		p.write(t, as, who)
	}
}

// identify shows credentials, and waits until the member knows them, as the doors do.
func (p *person) identify(t *talk) (who identity, ok bool) {
	var c server.Credentials
	switch n := p.rand.Intn(16); {
	case n == 0 && !p.careful: // nobody
	case n < 4 && !p.careful || len(p.tokens) == 0:
		c.Certificate = p.String()
		who.shown = rights.Caller{User: p.String(), Issued: math.MaxUint64}
	default:
		one := p.tokens[len(p.tokens)-1]
		if !p.careful && p.rand.OneIn(4) {
			one = p.tokens[p.rand.Intn(len(p.tokens))]
		}
		if p.w.swarm.users.signed && !p.careful && p.rand.OneIn(16) {
			one.text, one.forged = forge(one.text), true
		}
		g := p.w.ledger.rights.given[one.digest]
		c.Token, c.Shown, who.token, who.shown = one.text, true, &one, rights.Caller{User: g.user, Issued: g.issued}
	}
	if p.connected != t.replica.services {
		p.connected, p.last = t.replica.services, new(atomic.Value)
	}
	c.Last = p.last
	var later bool
	var err error
	if who.Caller, later, err = t.replica.services.Identify(&c, false); later {
		if _, err := t.await(t.replica.services.Barrier); err != nil {
			if !errors.Is(err, errHungUp) {
				p.tell(t, "is not known yet: %v", err)
			}
			return who, false
		}
		who.Caller, _, err = t.replica.services.Identify(&c, true)
	}
	p.tell(t, "shows {Token:%s Shown:%v Certificate:%s}: he is %+v, %v", c.Token, c.Shown, c.Certificate, who.Caller, err)
	p.w.check(p, p.w.judgeIdentity(t.replica, &c, &who, err))
	return who, err == nil
}

// read asks for keys, and reads as the member has them then.
func (p *person) read(t *talk, as server.Session, who identity) {
	request := p.question()
	l := p.begin(t, who, request)
	if !local(request) && !l.barrier() {
		return
	}
	var response any
	var err error
	switch r := request.(type) {
	case *command.RangeRequest:
		response, err = untyped(as.Range(r))
	case *command.TxnRequest:
		response, err = untyped(as.ReadTxn(r))
	}
	l.looked(response, err)
}

// pieces reads a range in pieces, and lets time pass between them.
func (p *person) pieces(t *talk, as server.Session, who identity) {
	request := p.ranges()
	request.Order, request.Target, request.Limit, request.CountOnly = 0, command.SortByKey, 0, false
	if request.ValidateStream() != nil {
		return
	}
	l := p.begin(t, who, request)
	if !local(request) && !l.barrier() {
		return
	}
	for stream, last := as.RangeStream(request), false; !last; {
		var piece *command.RangeResponse
		var err error
		if piece, last, err = stream.Next(); !l.piece(piece, err) || last {
			return
		}
		if !t.rest(time.Duration(p.rand.Int64N(int64(20 * time.Millisecond)))) {
			return
		}
	}
}

// write asks for a change of keys.
func (p *person) write(t *talk, as server.Session, who identity) {
	request := p.change()
	l := p.begin(t, who, request)
	l.written(t.await(func(call host.Call) {
		switch r := request.(type) {
		case *command.PutRequest:
			as.Put(call, r)
		case *command.DeleteRangeRequest:
			as.DeleteRange(call, r)
		case *command.TxnRequest:
			as.Txn(call, r)
		}
	}))
}

// lease grants or ends a lease, or asks for its keys.
func (p *person) lease(t *talk, as server.Session, who identity) {
	lease := p.leaseID()
	switch p.rand.Intn(3) {
	case 0:
		request := &command.LeaseGrant{ID: lease, TTL: 1 + p.rand.Int64N(2)}
		l := p.begin(t, who, request)
		l.written(t.await(func(call host.Call) { as.LeaseGrant(call, request) }))
	case 1:
		request := &command.LeaseRevoke{ID: lease}
		l := p.begin(t, who, request)
		l.written(t.await(func(call host.Call) { as.LeaseRevoke(call, lease) }))
	default:
		l := p.begin(t, who, lease)
		list, err := as.LeaseKeys(lease)
		l.listed(lease, list, err)
	}
}
