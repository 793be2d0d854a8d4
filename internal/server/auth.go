package server

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Who calls, and the Auth service (spec 7). What callers may do is in session.go and,
// as facts, in package state/auth.

// AuthOptions are how this member knows callers.
type AuthOptions struct {
	// Passwords judges passwords; without one nobody can be added or authenticate.
	Passwords Passwords
	// Signed makes and reads tokens that need no memory; nil is for simple tokens.
	Signed Signed
	// TokenTTL is how long a simple token lives after its last use.
	TokenTTL time.Duration
	// Certificates takes the name in a client's certificate for his user's, if he sends
	// no token.
	Certificates bool
}

// Passwords is what is asked about passwords; the body is credential.Passwords.
type Passwords interface {
	// Check says what is wrong with a password at first sight.
	Check(password string) error
	// Hash takes its time, and so does Fits.
	Hash(password string) ([]byte, error)
	Fits(ctx context.Context, user string, hash []byte, password string) (bool, error)
}

// Signed makes and reads signed tokens; the body is credential.JWT.
type Signed interface {
	Sign(user string, revision uint64) (string, error)
	Read(token string) (user string, revision uint64, ok bool)
}

// Credentials are what a caller shows.
type Credentials struct {
	// Token is what he sent as one, if Shown.
	Token string
	Shown bool
	// Certificate is the common name in his certificate, if that was verified.
	Certificate string
	// Last is where Identify finds, and leaves, the token that was shown last on the
	// caller's connection to this member; nil if he has none.
	Last *atomic.Value
}

// AuthEnabled says whether permissions are checked, by what this member has applied:
// two loads.
func (m *Member) AuthEnabled() bool { return m.opts.State.View().Auth().Enabled() }

// Identify says who calls: nobody for one who shows nothing. While permissions are not
// checked everybody is nobody, whatever he shows. later says that the token may have
// been given out after what this member has applied: it is to be asked again, with
// caughtUp, after a Barrier. Errors: command.ErrInvalidAuthToken,
// command.ErrAuthOldRevision for a signed token that a change of its user has voided.
func (m *Member) Identify(c *Credentials, caughtUp bool) (who auth.Caller, later bool, err error) {
	table := m.opts.State.View().Auth()
	if c.Shown {
		who, later, err = m.holder(table, strings.TrimPrefix(c.Token, "Bearer "), c.Last, caughtUp)
		if err == nil || later || !defect.On(defect.BadTokenForgiven) {
			return who, later, err
		}
	}
	if m.opts.Auth.Certificates && c.Certificate != "" && table.Enabled() {
		return auth.Caller{User: c.Certificate, Issued: math.MaxUint64}, false, nil
	}
	return auth.Caller{}, false, nil
}

// holder is whose a token is.
func (m *Member) holder(table *auth.Table, token string, last *atomic.Value, caughtUp bool) (who auth.Caller, later bool, err error) {
	if signed := m.opts.Auth.Signed; signed != nil {
		return signedHolder(table, signed, token, caughtUp)
	}
	if last != nil && table.Enabled() {
		now := m.opts.Clock.Now()
		m.tokens.follow(now)
		held, again := m.tokens.again(last, token, now)
		if again && table.Valid(table.User(held.User), held.Revision) {
			return auth.Caller{User: held.User, Issued: held.Revision}, false, nil
		}
	}
	letters, at, ok := splitToken(token)
	if ok && at > m.opts.Group.Applied() && !caughtUp && !defect.On(defect.TokenTooEarly) {
		// Whoever was given it may know more than this member: who he is, and also
		// that permissions are checked by now.
		return auth.Caller{}, true, nil
	}
	if !table.Enabled() {
		return auth.Caller{}, false, nil
	}
	if !ok {
		return auth.Caller{}, false, command.ErrInvalidAuthToken
	}
	now := m.opts.Clock.Now()
	m.tokens.follow(now)
	turned := m.tokens.turned.Load()
	held := m.tokens.use(digestOf(letters), at, now)
	if held == nil {
		return auth.Caller{}, false, command.ErrInvalidAuthToken
	}
	table = m.opts.State.View().Auth() // at least that of the token
	user := table.User(held.User)
	if !table.Valid(user, held.Revision) && (user != nil || !defect.On(defect.TokenOfNobody)) {
		return auth.Caller{}, false, command.ErrInvalidAuthToken
	}
	if last != nil {
		last.Store(&recent{token, held, turned})
	}
	return auth.Caller{User: held.User, Issued: held.Revision}, false, nil
}

// signedHolder is whose a signed token is; no member is behind it. One of a later auth
// revision than this member has applied says, as an index does, that somebody knows more.
func signedHolder(table *auth.Table, signed Signed, token string, caughtUp bool) (who auth.Caller, later bool, err error) {
	user, revision, ok := signed.Read(token)
	if ok && revision > table.Revision() && !caughtUp && !defect.On(defect.SignedTooEarly) {
		return auth.Caller{}, true, nil
	}
	if !table.Enabled() {
		return auth.Caller{}, false, nil
	}
	if !ok {
		return auth.Caller{}, false, command.ErrInvalidAuthToken
	}
	if u := table.User(user); u != nil && !table.Valid(u, revision) {
		return auth.Caller{}, false, command.ErrAuthOldRevision
	}
	return auth.Caller{User: user, Issued: revision}, false, nil
}

// Authenticate gives a token for a name and a password. It waits, also for the time
// that a password takes. await starts a call and waits for its result. Errors:
// command.ErrAuthNotEnabled, command.ErrAuthFailed, command.ErrNoPasswordUser, those of
// the key that signs, the context's, the host's.
func (m *Member) Authenticate(ctx context.Context, await func(start func(host.Call)) (host.Result, error), name, password string) (string, error) {
	for {
		// What was changed by now, here or elsewhere, counts.
		if _, err := await(m.Barrier); err != nil {
			return "", err
		}
		table := m.opts.State.View().Auth()
		if !table.Enabled() {
			return "", command.ErrAuthNotEnabled
		}
		user, err := m.login(ctx, table, name, password)
		if err != nil {
			return "", err
		}
		if signed := m.opts.Auth.Signed; signed != nil {
			return signed.Sign(name, issued(table))
		}
		letters := drawToken(m.opts.Rand)
		give := command.Authenticate{User: name, Since: user.Since, Digest: digestOf(letters)}
		result, err := await(func(call host.Call) { m.propose(call, nil, 0, &give) })
		if errors.Is(err, command.ErrAuthOldRevision) {
			continue // another password was set meanwhile
		}
		if err != nil {
			return "", err
		}
		return fullToken(letters, result.Index), nil
	}
}

// issued is the auth revision that a signed token is given under: what is changed after
// it voids the token, what was changed before does not.
func issued(table *auth.Table) uint64 {
	if defect.On(defect.SignedBefore) {
		return table.Revision() - 1
	}
	return table.Revision()
}

// login finds the user whom name and password are of. Who does not exist and whose
// password is wrong are told the same, after the same time.
func (m *Member) login(ctx context.Context, table *auth.Table, name, password string) (*auth.User, error) {
	user := table.User(name)
	var hash []byte
	switch {
	case user != nil && user.NoPassword:
		return nil, command.ErrNoPasswordUser
	case user != nil:
		hash = user.Hash
	}
	fits, err := m.opts.Auth.Passwords.Fits(ctx, name, hash, password)
	if err != nil {
		return nil, err
	}
	if !fits {
		return nil, command.ErrAuthFailed
	}
	return user, nil
}

// AskAdmin ends a call well if the caller has the role root: for what takes time before
// anything can be proposed. Errors: those of the judgement, the host's.
func (s Session) AskAdmin(call host.Call) {
	s.permitted(call, s.admin, func() { s.m.end(call, nil) })
}

// CheckPassword says what is wrong with a password that somebody wants to set.
func (m *Member) CheckPassword(password string) error { return m.opts.Auth.Passwords.Check(password) }

// HashPassword makes what is stored of a password: what goes into the log never has
// the password itself. It takes its time. Errors: the hash's.
func (m *Member) HashPassword(password string) ([]byte, error) {
	hash, err := m.opts.Auth.Passwords.Hash(password)
	if defect.On(defect.PasswordInCommand) {
		hash = append(hash, password...)
	}
	return hash, err
}

// ChangeAuth changes users, roles or what is checked. Results: *command.AuthResponse.
// Errors: those of the state (auth.Table), of the judgement, the host's.
func (s Session) ChangeAuth(call host.Call, change command.Body) {
	s.propose(call, nil, 0, change)
}

// User tells about a user: to himself, and to root. Errors: command.ErrUserNotFound,
// those of the judgement.
func (s Session) User(name string) (user *auth.User, err error) {
	err = s.read(func(c *auth.Check) error { return c.Self(name) }, func(v *state.View) error {
		if user = v.Auth().User(name); user == nil {
			return command.ErrUserNotFound
		}
		return nil
	})
	return user, err
}

// Role tells about a role: to those who hold it, and to root. Errors:
// command.ErrRoleNotFound, those of the judgement.
func (s Session) Role(name string) (role *auth.Role, err error) {
	err = s.read(func(c *auth.Check) error { return c.Holder(name) }, func(v *state.View) error {
		if role = v.Auth().Role(name); role == nil {
			return command.ErrRoleNotFound
		}
		return nil
	})
	return role, err
}

// Users and Roles list them by name, for root. Errors: those of the judgement.
func (s Session) Users() (list []*auth.User, err error) {
	err = s.read((*auth.Check).Admin, func(v *state.View) error { list = v.Auth().Users(); return nil })
	return list, err
}

// Roles lists the roles by name, for root. Errors: those of the judgement.
func (s Session) Roles() (list []*auth.Role, err error) {
	err = s.read((*auth.Check).Admin, func(v *state.View) error { list = v.Auth().Roles(); return nil })
	return list, err
}

// AuthStatus says whether permissions are checked, and the auth revision.
func (m *Member) AuthStatus() (enabled bool, revision uint64) {
	table := m.opts.State.View().Auth()
	return table.Enabled(), table.Revision()
}

// AnyUser and Admin judge calls that are not about keys, by what this member has
// applied: they work without a leader.
func (s Session) AnyUser() error {
	check := s.m.opts.State.View().Check(s.who)
	return check.AnyUser()
}

// Admin asks for the role root.
func (s Session) Admin() error { return s.admin(s.m.opts.State.View()) }
