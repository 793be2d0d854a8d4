package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// rightsLedger is what was decided about users and roles: the oracle obeys each
// command about them once, and judges every command there is.
type rightsLedger struct {
	// first is the table before anything, now that after the last command.
	first, now *rights.Table
	// given are the tokens that were given out.
	given map[command.TokenDigest]given
}

// given is a token as the log has it: whose it is, and since when.
type given struct {
	user   string
	issued uint64
	index  id.Index
	// password is the hash that the user had then.
	password string
}

func newRightsLedger() rightsLedger {
	first := rights.New()
	return rightsLedger{first: first, now: first, given: map[command.TokenDigest]given{}}
}

// rightsAt is the table after an index.
func (l *ledger) rightsAt(index id.Index) *rights.Table {
	if d := l.at(index); d != nil {
		return d.rights
	}
	return l.rights.first
}

// refuses judges a command where it is applied, by all that was applied before.
func (l *ledger) refuses(cmd *command.Command) error {
	return l.rights.now.Command(cmd, l.oracle.Attached)
}

// administer has the oracle obey a command about users and roles, and judges the
// outcome. A token is noted with the password that it was given for.
func (l *ledger) administer(index id.Index, body command.Body, outcome command.Outcome) error {
	r := &l.rights
	next, want := r.now.Apply(body)
	if a, ok := body.(*command.Authenticate); ok && want == nil {
		r.given[a.Digest] = given{a.User, next.Revision, index, next.Users[a.User].Hash}
	}
	if !errors.Is(outcome.Err, want) || (outcome.Err == nil) != (want == nil) {
		return fmt.Errorf("%T %+v gave %v, the oracle %v: %v", body, body, outcome.Err, want, r.now)
	}
	if answer, ok := outcome.Response.(*command.AuthResponse); want == nil && (!ok || answer.Revision != l.oracle.Revision()) {
		return fmt.Errorf("%T is answered with %+v, the revision is %d", body, outcome.Response, l.oracle.Revision())
	}
	r.now = next
	return nil
}

// aboutUsers says whether a command is about users and roles.
func aboutUsers(body command.Body) bool {
	k := body.Kind()
	return k >= command.KindAuthEnable && k <= command.KindRoleRevoke
}

// passwordMark is in every password, so that one that got somewhere can be found.
const passwordMark = "secret-"

// tells says whether there is a password in what goes into the log.
func tells(data []byte) bool { return bytes.Contains(data, []byte(passwordMark)) }

// refusedByRights says whether an error is a judgement of who asks. Nothing has happened
// then.
func refusedByRights(err error) bool {
	for _, refusal := range []error{command.ErrUserEmpty, command.ErrPermissionDenied, command.ErrAuthOldRevision, command.ErrUserNotFound} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// judgeRights compares the users and roles that a member has with those of the oracle.
func (r *replica) judgeRights(index id.Index) error {
	table, want := r.state.View().Auth(), r.w.ledger.rightsAt(index)
	got := &rights.Table{
		Enabled: table.Enabled(), Revision: table.Revision(), From: want.From,
		Users: map[string]rights.User{}, Roles: map[string][]command.Permission{},
	}
	for _, u := range table.Users() {
		got.Users[u.Name] = rights.User{Hash: string(u.Hash), NoPassword: u.NoPassword, Roles: u.Roles, Since: u.Since}
	}
	for _, role := range table.Roles() {
		got.Roles[role.Name] = role.Permissions
	}
	if a, b := got.String(), want.String(); a != b {
		return fmt.Errorf("users and roles are not those of index %d:\n\tit has     %s\n\tthe oracle %s", index, a, b)
	}
	return nil
}

// master is in whose name those call who judge something else than rights: root, if
// there are users in this world, known by his certificate.
func (w *world) master() auth.Caller {
	if !w.swarm.users.some() {
		return auth.Caller{}
	}
	return auth.Caller{User: rights.Root, Issued: math.MaxUint64}
}

// signed puts the name of the master into a command's header, as the services do.
func (w *world) signed(r *replica, h command.Header) command.Header {
	if table := r.state.View().Auth(); w.swarm.users.some() && table.Enabled() {
		h.User, h.AuthRevision = rights.Root, table.Revision()
	}
	return h
}

// auth is how a member knows callers.
func (w *world) auth(r *replica) server.AuthOptions {
	if !w.swarm.users.some() {
		return server.AuthOptions{}
	}
	o := server.AuthOptions{Passwords: passwords{}, TokenTTL: w.swarm.users.ttl, Certificates: true}
	if w.swarm.users.signed {
		o.Signed = w.signer(r)
	}
	return o
}

// passwords are those of a world: no time is spent on them. It implements
// server.Passwords.
type passwords struct{}

func (passwords) Check(string) error { return nil }

// Hash implements server.Passwords.
func (passwords) Hash(password string) ([]byte, error) {
	sum := sha256.Sum256([]byte(password))
	return fmt.Appendf(nil, "%x", sum[:8]), nil
}

// Fits implements server.Passwords.
func (p passwords) Fits(_ context.Context, _ string, hash []byte, password string) (bool, error) {
	want, err := p.Hash(password)
	return bytes.Equal(hash, want), err
}

// refusedAt says whether a judgement is what it should have been at some index in a
// span. Judgements that are not about rights are nobody's here.
func (l *ledger) refusedAt(err error, low, high id.Index, judge func(*rights.Table) error) bool {
	var last *rights.Table
	for index := low; index <= high; index++ {
		table := l.rightsAt(index)
		if table == last {
			continue
		}
		if last = table; errors.Is(judge(table), err) {
			return true
		}
	}
	return false
}

// answered finds the command that a call without a name was answered for: at the index
// that its result names, of the same words, in the caller's name or, if permissions were
// not checked, in nobody's, and with the same answer.
func (l *ledger) answered(user string, request any, result host.Result) (placed, error) {
	others := ""
	for i := len(l.commands) - 1; i >= 0 && l.commands[i].index >= result.Index; i-- {
		p := l.commands[i]
		if p.index != result.Index || p.user != user && p.user != "" || p.name != "" || !sameRequest(p.request, request) {
			continue
		}
		if answerText(p.response, p.err) == answerText(result.Response, result.Err) {
			return p, nil
		}
		others += "\n\tin the log " + answerText(p.response, p.err)
	}
	return placed{}, fmt.Errorf("%s is answered at %d: %s%s", requestText(request), result.Index, answerText(result.Response, result.Err), others)
}

func sameRequest(a, b any) bool {
	if body, ok := a.(command.Body); ok && aboutUsers(body) {
		return fmt.Sprintf("%T %+v", a, a) == fmt.Sprintf("%T %+v", b, b)
	}
	return model.Text(a) == model.Text(b)
}
