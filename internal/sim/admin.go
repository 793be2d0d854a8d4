package sim

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// administrator changes users and roles, one change at a time, through a member of its
// choice: first what it takes to have permissions checked, then whatever comes to its
// mind. It calls as root, whom a certificate names.
type administrator struct {
	w       *world
	rand    *simenv.Rand
	current *talk
	made    int
	wakeAt  env.Instant
}

func newAdministrator(w *world) *administrator {
	return &administrator{w: w, rand: w.env.Rand("administrator")}
}

func (a *administrator) hangUp() {
	if a.current != nil {
		a.current.hangUp()
	}
}

func (a *administrator) due() env.Instant {
	switch {
	case a.current != nil:
		return a.current.due()
	case a.w.calm:
		return env.Never
	}
	return a.wakeAt
}

func (a *administrator) act() {
	if a.current == nil {
		a.wakeAt = a.w.env.Now().Add(around(a.rand, a.w.swarm.users.changes))
		if !a.w.ledger.rights.now.Enabled {
			a.wakeAt = a.w.env.Now().Add(around(a.rand, a.w.swarm.users.changes/8))
		}
		r := a.w.pick(a.rand)
		if r == nil || r.host == nil {
			return
		}
		a.current = newTalk(a.w, "the administrator", r, a.change)
	}
	if a.current.goOn() {
		a.current = nil
	}
}

// change makes one change.
func (a *administrator) change(t *talk) {
	w, services := a.w, t.replica.services
	who, later, err := services.Identify(&server.Credentials{Certificate: rights.Root}, false)
	if later || err != nil {
		w.fail("%v does not know root by his certificate: %v", t.replica, err)
		return
	}
	body := a.draw(services)
	w.trace.fold(eventCall, 1<<33, t.number, uint64(t.replica.member))
	w.trace.tell(w.env.Now(), "the administrator -> %v  %s", t.replica, changeText(body))
	result, err := t.await(func(call host.Call) { services.As(who).ChangeAuth(call, body) })
	if errors.Is(err, errHungUp) {
		return
	}
	w.trace.fold(eventReturn, 1<<33, t.number, uint64(result.Index), digestString(errorText(err)))
	w.trace.tell(w.env.Now(), "the administrator <- %v  %s: index %d, %v", t.replica, changeText(body), result.Index, err)
	w.check("the administrator", w.judgeChange(t, body, result))
}

// changeText tells a change; hashes are letters.
func changeText(body command.Body) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", body), "*command.")
	switch b := body.(type) {
	case *command.UserAdd:
		return fmt.Sprintf("%s %s %s", name, b.Name, b.Hash)
	case *command.UserPassword:
		return fmt.Sprintf("%s %s %s", name, b.Name, b.Hash)
	case *command.RoleGrant:
		return fmt.Sprintf("%s %s %d %q %q", name, b.Role, b.Type, b.Key, b.End)
	case *command.RoleRevoke:
		return fmt.Sprintf("%s %s %q %q", name, b.Role, b.Key, b.End)
	}
	return fmt.Sprintf("%s %+v", name, body)
}

// judgeChange holds the answer of a change against the ledger.
func (w *world) judgeChange(t *talk, body command.Body, result host.Result) error {
	who := rights.Caller{User: rights.Root, Issued: math.MaxUint64}
	switch {
	case result.Index != 0:
		_, err := w.ledger.answered(rights.Root, body, result)
		return err
	case result.Err == nil:
		return fmt.Errorf("%s was acknowledged, but not where", changeText(body))
	case refusedByRights(result.Err):
		if !w.ledger.refusedAt(result.Err, t.began, w.ledger.last(), func(t *rights.Table) error { return t.Admin(who) }) {
			return fmt.Errorf("%s is refused with %w, which is never so from %d on", changeText(body), result.Err, t.began)
		}
	}
	return nil
}

// The names and ranges are few, so that much concerns those who call.
var (
	roleNames = []string{"r0", "r1", "r2"}
	ranges    = []rights.Span{
		{Key: []byte("u"), End: []byte("v")}, {Key: []byte("u"), End: []byte("v")}, {Key: []byte("u0")}, {Key: []byte("u1"), End: []byte("u3")},
		{Key: []byte("u2"), End: []byte{0}}, {Key: []byte{0}, End: []byte{0}}, {Key: []byte("k"), End: []byte("s")}, {Key: []byte("l"), End: []byte("u1")},
	}
)

// draw decides what to change.
func (a *administrator) draw(m *server.Member) command.Body {
	now := a.w.ledger.rights.now
	root, known := now.Users[rights.Root]
	switch {
	case now.Enabled:
	case !known:
		return a.addUser(m, rights.Root)
	case !slices.Contains(root.Roles, rights.Root):
		return &command.UserGrantRole{User: rights.Root, Role: rights.Root}
	case now.From == 0: // not yet checked for the first time
		if b := a.prepare(m, now); b != nil {
			return b
		}
		return &command.AuthEnable{}
	case a.rand.OneIn(2):
		return &command.AuthEnable{}
	}
	return a.anything(m)
}

// prepare makes what people need at least; nil once it is there.
func (a *administrator) prepare(m *server.Member, now *rights.Table) command.Body {
	for i := range a.w.people {
		u, known := now.Users[personName(i)]
		role := roleNames[i%len(roleNames)]
		list, made := now.Roles[role]
		switch {
		case !known:
			return a.addUser(m, personName(i))
		case !made:
			return &command.RoleAdd{Name: role}
		case len(list) == 0:
			return &command.RoleGrant{Role: role, Given: true, Permission: command.Permission{Type: command.PermitReadWrite, Key: []byte("u"), End: []byte("v")}}
		case !slices.Contains(u.Roles, role):
			return &command.UserGrantRole{User: personName(i), Role: role}
		}
	}
	return nil
}

func (a *administrator) hash(m *server.Member) []byte {
	a.made++
	hash, err := m.HashPassword(passwordOf(a.made))
	a.w.check("the administrator", err)
	return hash
}

// passwordOf is the password that was set as the nth.
func passwordOf(n int) string { return fmt.Sprintf("%s%d", passwordMark, n) }

// passwordOf finds out what password a user has; empty is none.
func (a *administrator) passwordOf(user string) string {
	u, known := a.w.ledger.rights.now.Users[user]
	for n := range a.made {
		if hash, _ := (passwords{}).Hash(passwordOf(n + 1)); known && string(hash) == u.Hash {
			return passwordOf(n + 1)
		}
	}
	return ""
}

func (a *administrator) addUser(m *server.Member, name string) command.Body {
	return &command.UserAdd{Name: name, Hash: a.hash(m)}
}

// anything draws one of all changes, those more often that take and give what people
// have.
func (a *administrator) anything(m *server.Member) command.Body {
	user, role := personName(a.rand.Intn(len(a.w.people))), oneOf(a.rand, roleNames...)
	if a.rand.OneIn(20) {
		user = rights.Root
	}
	span := oneOf(a.rand, ranges...)
	switch n := a.rand.Intn(30); {
	case n < 8:
		kind := oneOf(a.rand, command.PermitRead, command.PermitWrite, command.PermitReadWrite, command.PermitReadWrite)
		return &command.RoleGrant{Role: role, Given: true, Permission: command.Permission{Type: kind, Key: span.Key, End: span.End}}
	case n < 11:
		if list := a.w.ledger.rights.now.Roles[role]; len(list) > 0 {
			p := oneOf(a.rand, list...)
			span = rights.Span{Key: p.Key, End: p.End}
		}
		return &command.RoleRevoke{Role: role, Key: span.Key, End: span.End}
	case n < 17:
		return &command.UserGrantRole{User: user, Role: role}
	case n < 20:
		return &command.UserRevokeRole{User: user, Role: role}
	case n < 22:
		return &command.RoleAdd{Name: role}
	case n < 23:
		return &command.RoleDelete{Name: role}
	case n < 26:
		return a.addUser(m, user)
	case n < 27:
		return &command.UserDelete{Name: user}
	case n < 29:
		return &command.UserPassword{Name: user, Hash: a.hash(m)}
	}
	return &command.AuthDisable{}
}
