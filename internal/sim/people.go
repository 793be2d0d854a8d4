package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// What people are told, held against what they may know (docs/decisions/0030). Each
// answer shows the state of one index of the log. Whoever asked must be allowed by the
// users and roles of that index to be shown all of it, by the oracle, and the index must
// lie between the call and its answer; only what is read from one member as it is, and
// what needs credentials but no rights, may be older: as old as what that member had
// applied when it was asked. A refusal must be right at an index in the same span.

// judgeLogIn judges a token that was given for a password.
func (w *world) judgeLogIn(one token, user, password string) error {
	g, known := w.ledger.rights.given[one.digest]
	hash, _ := passwords{}.Hash(password)
	switch {
	case !known || g.user != user:
		return fmt.Errorf("is given a token that is not his: %+v", g)
	case g.password != string(hash):
		return fmt.Errorf("is given a token at index %d for a password that was not his then", g.index)
	}
	w.trace.mark(markToken)
	return nil
}

// judgeRefusedLogIn judges the refusal of one.
func (w *world) judgeRefusedLogIn(t *talk, user, password string, err error) error {
	hash, _ := passwords{}.Hash(password)
	for _, refusal := range []error{command.ErrAuthNotEnabled, command.ErrAuthFailed, command.ErrNoPasswordUser, command.ErrAuthOldRevision} {
		if errors.Is(err, refusal) && !w.ledger.refusedAt(refusal, t.began, w.ledger.last(), func(t *rights.Table) error {
			u, known := t.Users[user]
			switch {
			case !t.Enabled:
				return command.ErrAuthNotEnabled
			case !known || u.Hash != string(hash):
				return command.ErrAuthFailed
			}
			return nil
		}) {
			return fmt.Errorf("%q is refused with %w, which is never so from %d on", password, err, t.began)
		}
	}
	return nil
}

// judgeIdentity judges who somebody is taken for, by what the member has applied.
func (w *world) judgeIdentity(r *replica, c *server.Credentials, who *identity, err error) error {
	table := w.ledger.rightsAt(r.applied)
	want := who.shown.User
	if !table.Enabled {
		want = ""
	}
	if err == nil && who.User != want {
		return fmt.Errorf("is taken for %q at index %d, he is %q", who.User, r.applied, want)
	}
	if one := who.token; w.swarm.users.signed && one != nil && !one.forged && table.Revision < who.shown.Issued && !w.mayBeOver(one) {
		return fmt.Errorf("shows a token of revision %d, and is judged at index %d by revision %d", who.shown.Issued, r.applied, table.Revision)
	}
	if who.token == nil || !table.Enabled {
		return err
	}
	if w.swarm.users.signed {
		return w.judgeSigned(r, who, err)
	}
	g := w.ledger.rights.given[who.token.digest]
	_, known := table.Users[g.user]
	good := known && table.Good(who.shown)
	// A member forgets tokens when it starts again or is sent a state, and when they are
	// not used for a while by its clock.
	forgotten := g.index <= r.forgotten || w.env.Now() >= who.token.asked.Add(w.ledger.tenures.least(w.swarm.users.ttl))
	switch {
	case err == nil && !good:
		return fmt.Errorf("the token %s of %q, of revision %d, is taken at index %d: %v", c.Token, g.user, g.issued, r.applied, table)
	case errors.Is(err, command.ErrInvalidAuthToken) && good && !forgotten:
		return fmt.Errorf("the token %s of %q, of revision %d, is not taken at index %d: %v", c.Token, g.user, g.issued, r.applied, table)
	case err == nil:
		w.trace.mark(markTokenTaken)
		return nil
	case !errors.Is(err, command.ErrInvalidAuthToken):
		return err
	}
	return nil
}

// asked is a call on its way, with all that its answer is judged by.
type asked struct {
	p       *person
	t       *talk
	who     rights.Caller
	request any
	// call is what a read of the same keys by anybody is judged by.
	call call
	// low is the first index that the answer may be of.
	low id.Index
}

// begin begins a call. Who was identified as nobody, because permissions were not
// checked, is nobody.
func (p *person) begin(t *talk, who identity, request any) *asked {
	a := &asked{p: p, t: t, who: who.shown, request: request, low: p.w.ledger.last()}
	if who.User == "" {
		a.who = rights.Caller{}
	}
	a.call = call{
		name: fmt.Sprintf("%v.%d", p, t.number), replica: t.replica,
		mustSee: p.w.history.revision, compacted: p.w.history.compacted,
	}
	if isQuestion(request) && local(request) {
		a.low = min(a.low, t.replica.applied)
	}
	p.tell(t, "asks for %s", requestText(request))
	return a
}

func requestText(request any) string {
	if lease, ok := request.(id.Lease); ok {
		return fmt.Sprintf("the keys of lease %d", lease)
	}
	if body, ok := request.(command.Body); ok && aboutUsers(body) {
		return changeText(body)
	}
	return model.Text(request)
}

// barrier waits until the member has caught up.
func (a *asked) barrier() bool {
	_, err := a.t.await(a.t.replica.services.Barrier)
	if err != nil && !errors.Is(err, errHungUp) {
		a.p.tell(a.t, "is not answered: %v", err)
	}
	return err == nil
}

// judged judges a verdict on keys as of the index that the member has applied.
func (a *asked) judged(demand rights.Demand, err error) (refused bool, wrong error) {
	r, w := a.t.replica, a.p.w
	table := w.ledger.rightsAt(r.applied)
	want := table.Keys(a.who, demand)
	switch {
	case r.applied < a.low:
		return false, fmt.Errorf("%s is judged as of index %d, though %d was applied when it was asked", requestText(a.request), r.applied, a.low)
	case want == nil && !refusedByRights(err):
		return false, nil
	case want != nil && errors.Is(err, want):
		w.trace.mark(markDenied)
		return true, nil
	}
	return false, fmt.Errorf("%q asks for %s at index %d: it came to %v, the oracle says %v: %v", a.who.User, requestText(a.request), r.applied, err, want, table)
}

// looked judges the answer to a read.
func (a *asked) looked(response any, err error) {
	w := a.p.w
	a.p.tell(a.t, "reads: %s", answerText(response, err))
	refused, wrong := a.judged(rights.Of(a.request, w.ledger.oracle.Attached), err)
	if wrong != nil || refused {
		w.check(a.p, wrong)
		return
	}
	switch request := a.request.(type) {
	case *command.RangeRequest:
		w.check(a.p, w.judgeRead(&a.call, request, response, err))
	case *command.TxnRequest:
		w.check(a.p, w.judgeLook(&a.call, request, response, err))
	}
}

// piece judges a piece of a range, each by itself; it is false after the end. What is in
// it is judged when others read in pieces.
func (a *asked) piece(piece *command.RangeResponse, err error) bool {
	a.p.tell(a.t, "reads a piece: %s", answerText(piece, err))
	_, wrong := a.judged(rights.Of(a.request, nil), err)
	a.p.w.check(a.p, wrong)
	return err == nil && wrong == nil
}

// listed judges the list of a lease's keys, if the member knows of everything.
func (a *asked) listed(lease id.Lease, list [][]byte, err error) {
	w, r := a.p.w, a.t.replica
	a.p.tell(a.t, "is told the keys of lease %d: %q, %v", lease, list, err)
	if r.applied != w.ledger.last() {
		return
	}
	want := w.ledger.rightsAt(r.applied).LeaseRead(a.who, lease, w.ledger.oracle.Attached)
	got := w.ledger.oracle.Attached(lease)
	if !errors.Is(err, want) || (err == nil) != (want == nil) || err == nil && !slices.EqualFunc(list, got, slices.Equal[[]byte]) {
		w.check(a.p, fmt.Errorf("the keys of lease %d are %q, %v, by the oracle %q, %v", lease, list, err, got, want))
	}
}

// written judges the answer to a change. What was applied was judged by the ledger; here
// it is the answer, and what the credentials were worth when it was applied.
func (a *asked) written(result host.Result, err error) {
	if errors.Is(err, errHungUp) {
		return
	}
	w := a.p.w
	a.p.tell(a.t, "is answered at %d: %s", result.Index, answerText(result.Response, err))
	switch {
	case result.Index != 0:
		w.check(a.p, a.applied(result))
	case err == nil:
		w.fail("%v: %s was acknowledged, but not where", a.p, requestText(a.request))
	case refusedByRights(err):
		w.trace.mark(markDenied)
		if low := min(a.low, a.t.known); !w.ledger.refusedAt(err, low, w.ledger.last(), a.admission) ||
			errors.Is(err, command.ErrPermissionDenied) && !w.ledger.refusedAt(err, a.low, w.ledger.last(), a.admission) {
			w.fail("%v: %s of %q is refused with %v, which was never so from %d on", a.p, requestText(a.request), a.who.User, err, a.low)
		}
	}
}

// admission judges the request before it is proposed: what hangs on leases is left out.
func (a *asked) admission(t *rights.Table) error {
	none := func(id.Lease) [][]byte { return nil }
	switch r := a.request.(type) {
	case *command.LeaseGrant:
		return t.AnyUser(a.who)
	case *command.LeaseRevoke:
		return t.LeaseWrite(a.who, r.ID, none)
	}
	return t.Keys(a.who, rights.Of(a.request, none))
}

// applied judges the answer to a command that is in the log.
func (a *asked) applied(result host.Result) error {
	p, err := a.p.w.ledger.answered(a.who.User, a.request, result)
	if err != nil {
		return err
	}
	if errors.Is(p.err, command.ErrAuthOldRevision) {
		a.p.w.trace.mark(markOutdated)
	}
	_, grants := a.request.(*command.LeaseGrant)
	if result.Index <= a.low && !grants {
		return fmt.Errorf("%s was applied at %d, before it was asked for at %d", requestText(a.request), result.Index, a.low)
	}
	if p.rights.Enabled && !nothingDone(p.err) && !grants {
		if err := p.rights.Keys(a.who, rights.Of(a.request, func(id.Lease) [][]byte { return nil })); err != nil {
			return fmt.Errorf("%s of %q was applied at %d, which what he has shown does not allow: %w", requestText(a.request), a.who.User, result.Index, err)
		}
	}
	return nil
}
