package auth

import (
	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Caller is who asks, as credentials have shown it. The zero value is nobody.
type Caller struct {
	User string
	// Issued is the auth revision at which the credentials were given: they are void once
	// the user is another one, or has another password, since.
	Issued uint64
}

// Keys lists the keys that hang on a lease; none if there is no such lease.
type Keys func(lease id.Lease) ([][]byte, error)

// Check is the one judgement of what one caller asks for (spec 7.1), for commands at
// admission and at apply, and for everything that is only read. Its methods are the
// kinds of demands there are; those about requests name everything that the request
// reads or writes, nested txns and both of their branches included. The errors of all:
// command.ErrUserEmpty without credentials, command.ErrPermissionDenied,
// command.ErrAuthOldRevision for credentials that are void by now,
// command.ErrUserNotFound (Admin), and those of Keys.
//
// Nothing is asked while permissions are not checked.
type Check struct {
	Table *Table
	Who   Caller
	// Strict is for commands: what is about keys must have been judged under this very
	// revision, Who.Issued, by whoever proposed it (rule 18).
	Strict bool
	// Keys is nil for a judgement that leaves them out, since another one follows.
	Keys Keys
}

// AnyUser asks for credentials only. A user whom a certificate or another cluster's
// token names need not exist.
func (c *Check) AnyUser() error {
	if c.Table.enabled && c.Who.User == "" && !defect.On(defect.MaintenanceForNobody) {
		return command.ErrUserEmpty
	}
	return nil
}

// Admin asks for the role root.
func (c *Check) Admin() error {
	if !c.Table.enabled || defect.On(defect.MaintenanceForNobody) {
		return nil
	}
	if c.Who.User == "" {
		return command.ErrUserEmpty
	}
	u := c.Table.User(c.Who.User)
	switch {
	case u == nil:
		return command.ErrUserNotFound
	case !c.Table.Valid(u, c.Who.Issued):
		return command.ErrAuthOldRevision
	case !u.grants.root:
		return command.ErrPermissionDenied
	}
	return nil
}

// Self asks for the user himself, or for the role root.
func (c *Check) Self(name string) error {
	err := c.Admin()
	if (err == command.ErrPermissionDenied || err == command.ErrUserNotFound) && c.Who.User == name {
		return nil
	}
	return err
}

// Holder asks for one who has a role, or for the role root.
func (c *Check) Holder(role string) error {
	err := c.Admin()
	if u := c.Table.User(c.Who.User); err == command.ErrPermissionDenied && u != nil && u.Has(role) {
		return nil
	}
	return err
}

// grants are those of the caller; nil are those of whoever may do everything.
func (c *Check) grants() (*grants, error) {
	if !c.Table.enabled {
		return nil, nil
	}
	if c.Who.User == "" {
		return nil, command.ErrUserEmpty
	}
	u, old := c.Table.User(c.Who.User), c.Who.Issued < c.Table.revision
	switch {
	case old && (u == nil || c.Strict && !defect.On(defect.OldRevisionObeyed)):
		return nil, command.ErrAuthOldRevision
	case u == nil:
		return nil, command.ErrPermissionDenied
	case !c.Table.Valid(u, c.Who.Issued):
		return nil, command.ErrAuthOldRevision
	case u.grants.root:
		return nil, nil
	}
	return &u.grants, nil
}

// Range asks to read a range, or to watch it.
func (c *Check) Range(key, end []byte) error {
	g, err := c.grants()
	if g == nil || err != nil {
		return err
	}
	return g.reads(key, end)
}

// Put asks for what a put does: it writes its key, reads it if it tells the former
// pair, and puts it where the keys of its lease are, which end with it.
func (c *Check) Put(p *command.PutRequest) error {
	g, err := c.grants()
	if g == nil || err != nil {
		return err
	}
	return c.put(g, p)
}

// Delete asks to delete a range, and to read it if it tells the former pairs.
func (c *Check) Delete(d *command.DeleteRangeRequest) error {
	g, err := c.grants()
	if g == nil || err != nil {
		return err
	}
	return g.deletes(d)
}

// Txn asks for whatever the txn may do, whichever branches are taken. One that asks
// for nothing is anybody's.
func (c *Check) Txn(t *command.TxnRequest) error {
	if !c.Table.enabled || asksNothing(t) {
		return nil
	}
	g, err := c.grants()
	if g == nil || err != nil {
		return err
	}
	return c.txn(g, t)
}

// LeaseWrite asks to end or to renew a lease: to write all keys that hang on it.
func (c *Check) LeaseWrite(lease id.Lease) error {
	return c.lease(lease, func(g *grants) spans { return g.write })
}

// LeaseRead asks to be told the keys of a lease.
func (c *Check) LeaseRead(lease id.Lease) error {
	return c.lease(lease, func(g *grants) spans { return g.read })
}

// lease is any user's without keys.
func (c *Check) lease(lease id.Lease, allowed func(*grants) spans) error {
	if err := c.AnyUser(); err != nil || !c.Table.enabled || c.Keys == nil {
		return err
	}
	if u := c.Table.User(c.Who.User); u != nil && u.grants.root && !c.Strict && c.Table.Valid(u, c.Who.Issued) {
		return nil
	}
	list, err := c.Keys(lease)
	if err != nil || len(list) == 0 || defect.On(defect.LeaseKeysUnchecked) {
		return err
	}
	g, err := c.grants()
	if g == nil || err != nil {
		return err
	}
	return coversAll(allowed(g), list)
}

func coversAll(allowed spans, list [][]byte) error {
	for _, key := range list {
		if !allowed.covers(key, nil) {
			return command.ErrPermissionDenied
		}
	}
	return nil
}

// asksNothing says whether a txn has neither compares nor operations, but perhaps txns
// of that kind.
func asksNothing(t *command.TxnRequest) bool {
	if len(t.Compares) > 0 {
		return false
	}
	for _, ops := range [...][]command.Op{t.Success, t.Failure} {
		for i := range ops {
			if ops[i].Txn == nil || !asksNothing(ops[i].Txn) {
				return false
			}
		}
	}
	return true
}

// txn is the recursion: compares, both branches, and what is nested in them.
func (c *Check) txn(g *grants, t *command.TxnRequest) error {
	if !defect.On(defect.ComparesUnchecked) {
		for i := range t.Compares {
			if err := g.reads(t.Compares[i].Key, t.Compares[i].End); err != nil {
				return err
			}
		}
	}
	if err := c.ops(g, t.Success); err != nil {
		return err
	}
	if defect.On(defect.FailureBranchUnchecked) {
		return nil
	}
	return c.ops(g, t.Failure)
}

func (c *Check) ops(g *grants, ops []command.Op) error {
	for i := range ops {
		if err := c.op(g, &ops[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Check) op(g *grants, op *command.Op) error {
	switch {
	case op.Range != nil:
		return g.reads(op.Range.Key, op.Range.End)
	case op.Put != nil:
		return c.putInTxn(g, op.Put)
	case op.Delete != nil:
		return g.deletes(op.Delete)
	case op.Txn != nil && !defect.On(defect.NestedTxnUnchecked):
		return c.txn(g, op.Txn)
	}
	return nil
}

// putInTxn is put; the mistakes are those that etcd made here.
func (c *Check) putInTxn(g *grants, p *command.PutRequest) error {
	if defect.On(defect.NestedPrevUnchecked) || defect.On(defect.NestedLeaseUnchecked) {
		less := *p
		if defect.On(defect.NestedPrevUnchecked) {
			less.PrevKV = false
		} else {
			less.Lease = 0
		}
		p = &less
	}
	return c.put(g, p)
}

func (c *Check) put(g *grants, p *command.PutRequest) error {
	if !g.write.covers(p.Key, nil) || p.PrevKV && !g.read.covers(p.Key, nil) {
		return command.ErrPermissionDenied
	}
	if p.Lease == 0 || c.Keys == nil || g.write.everything() {
		return nil
	}
	list, err := c.Keys(p.Lease)
	if err != nil {
		return err
	}
	return coversAll(g.write, list)
}

func (g *grants) reads(key, end []byte) error {
	if defect.On(defect.OpenEndForgotten) && openEnd(end) {
		end = nil
	}
	if !g.read.covers(key, end) {
		return command.ErrPermissionDenied
	}
	return nil
}

func (g *grants) deletes(d *command.DeleteRangeRequest) error {
	if !g.write.covers(d.Key, d.End) || d.PrevKV && !defect.On(defect.DeletePrevUnchecked) && !g.read.covers(d.Key, d.End) {
		return command.ErrPermissionDenied
	}
	return nil
}
