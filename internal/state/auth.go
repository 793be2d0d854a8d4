package state

import (
	"math"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
)

// What each kind of command needs, for the table. The same functions judge at
// admission, View.Permit, and at apply, Machine.permit.

func permitAnybody(*auth.Check, command.Body) error { return nil }

func permitAnyUser(c *auth.Check, _ command.Body) error { return c.AnyUser() }

func permitAdmin(c *auth.Check, _ command.Body) error { return c.Admin() }

func permitPut(c *auth.Check, body command.Body) error { return c.Put(body.(*command.PutRequest)) }

func permitDelete(c *auth.Check, body command.Body) error {
	return c.Delete(body.(*command.DeleteRangeRequest))
}

func permitTxn(c *auth.Check, body command.Body) error { return c.Txn(body.(*command.TxnRequest)) }

func permitRevoke(c *auth.Check, body command.Body) error {
	return c.LeaseWrite(body.(*command.LeaseRevoke).ID)
}

// permit judges the command in hand under the auth revision that it carries (rule 18).
func (m *Machine) permit() error {
	permit := table[m.cmd.Kind].permit
	if permit == nil || !m.auth.Enabled() || m.cmd.Class == command.Duty || defect.On(defect.ApplyUnchecked) {
		return nil
	}
	m.check.Table = m.auth
	if defect.On(defect.RightsOfTheView) {
		m.check.Table = m.View().auth
	}
	m.check.Who = auth.Caller{User: m.cmd.User, Issued: m.cmd.AuthRevision}
	return permit(&m.check, m.cmd.Body)
}

// attached lists the keys of a lease with what the batch in hand has changed.
func (m *Machine) attached(lease id.Lease) ([][]byte, error) {
	list, err := m.leases.Keys(lease)
	return list, damagedLeases(err)
}

// authAction makes an action of a change of the table.
func authAction[B command.Body](change func(*auth.Table, auth.To, B) (*auth.Table, error)) action {
	return func(m *Machine, body command.Body) (any, error) {
		next, err := change(m.auth, auth.To{Group: m.group, Batch: m.batch}, body.(B))
		if err != nil {
			return nil, err
		}
		m.auth = next
		return m.authResponse(), nil
	}
}

func (m *Machine) authResponse() *command.AuthResponse {
	return &command.AuthResponse{Revision: m.store.State().Revision}
}

func enableAuth(t *auth.Table, to auth.To, _ *command.AuthEnable) (*auth.Table, error) {
	return t.Enable(to)
}

func disableAuth(t *auth.Table, to auth.To, _ *command.AuthDisable) (*auth.Table, error) {
	return t.Disable(to), nil
}

// authenticate gives a token out. Nothing of it is stored.
func authenticate(m *Machine, body command.Body) (any, error) {
	a := body.(*command.Authenticate)
	if err := m.auth.Authenticate(a); err != nil {
		return nil, err
	}
	m.tokens.Give(auth.Token{User: a.User, Digest: a.Digest, Revision: m.auth.Revision(), Index: m.entry})
	return m.authResponse(), nil
}

// FollowTokens returns the tokens that are given out, from when the machine was
// opened; a token is told before its command is acknowledged. It may be called once.
func (m *Machine) FollowTokens() *auth.Feed { return m.tokens.Follow() }

// Auth is the users and roles of the view. Equal pointers are equal facts.
func (v *View) Auth() *auth.Table { return v.auth }

// Permit judges a command of a client before it is proposed. What hangs on leases is
// left to the judgement at apply, which has the keys at hand.
func (v *View) Permit(who auth.Caller, body command.Body) error {
	permit := table[body.Kind()].permit
	switch {
	case !v.auth.Enabled():
		return nil
	case permit == nil: // no call of a client comes to this
		return command.ErrPermissionDenied
	}
	return permit(&auth.Check{Table: v.auth, Who: who}, body)
}

// Check judges what is only read. Keys of leases are as they are when it is asked.
func (v *View) Check(who auth.Caller) auth.Check {
	return auth.Check{Table: v.auth, Who: who, Keys: v.allLeaseKeys}
}

// allLeaseKeys lists the keys of a lease, as they are now.
func (v *View) allLeaseKeys(lease id.Lease) ([][]byte, error) {
	return v.LeaseKeys(lease, math.MaxInt)
}
