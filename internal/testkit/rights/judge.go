package rights

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Caller is who asks.
type Caller struct {
	// User is empty for nobody.
	User string
	// Issued is the auth revision at which his credentials were given; of a command it is
	// the one that it was judged under before.
	Issued uint64
	// Strict is for commands: what is about keys must have been judged under this revision.
	Strict bool
}

// Leases lists the keys that hang on a lease.
type Leases func(id.Lease) [][]byte

// Good says whether what a caller has shown is worth anything: somebody has it, and if
// there is a user of that name, it was given to that very user, for the password that he
// has, since permissions were last not checked.
func (t *Table) Good(who Caller) bool {
	u, known := t.Users[who.User]
	return who.User != "" && (!known || who.Issued >= u.Since && who.Issued >= t.From)
}

// AnyUser judges what asks for credentials only.
func (t *Table) AnyUser(who Caller) error {
	if t.Enabled && who.User == "" {
		return command.ErrUserEmpty
	}
	return nil
}

// Admin judges what asks for the role root.
func (t *Table) Admin(who Caller) error {
	u, known := t.Users[who.User]
	switch {
	case !t.Enabled:
		return nil
	case who.User == "":
		return command.ErrUserEmpty
	case !known:
		return command.ErrUserNotFound
	case !t.Good(who):
		return command.ErrAuthOldRevision
	case !slices.Contains(u.Roles, Root):
		return command.ErrPermissionDenied
	}
	return nil
}

// Demand is what a request touches: a list.
type Demand struct {
	Read, Write []Span
	// Any: it asks for something.
	Any bool
}

// Span is a range of keys as on the wire (spec 1.6).
type Span struct{ Key, End []byte }

// Of lists what a request about keys touches, whatever of it would be done.
func Of(request any, leases Leases) (d Demand) {
	d.add(request, leases)
	return d
}

func (d *Demand) add(request any, leases Leases) {
	switch r := request.(type) {
	case *command.RangeRequest:
		d.Any = true
		d.Read = append(d.Read, Span{r.Key, r.End})
	case *command.DeleteRangeRequest:
		d.Any = true
		d.Write = append(d.Write, Span{r.Key, r.End})
		if r.PrevKV {
			d.Read = append(d.Read, Span{r.Key, r.End})
		}
	case *command.PutRequest:
		d.Any = true
		d.Write = append(d.Write, Span{Key: r.Key})
		if r.PrevKV {
			d.Read = append(d.Read, Span{Key: r.Key})
		}
		if r.Lease != 0 {
			d.Write = append(d.Write, keysOf(r.Lease, leases)...)
		}
	case *command.TxnRequest:
		for _, c := range r.Compares {
			d.Any = true
			d.Read = append(d.Read, Span{c.Key, c.End})
		}
		for _, op := range slices.Concat(r.Success, r.Failure) {
			switch {
			case op.Range != nil:
				d.add(op.Range, leases)
			case op.Put != nil:
				d.add(op.Put, leases)
			case op.Delete != nil:
				d.add(op.Delete, leases)
			case op.Txn != nil:
				d.add(op.Txn, leases)
			}
		}
	}
}

func keysOf(lease id.Lease, leases Leases) (list []Span) {
	for _, key := range leases(lease) {
		list = append(list, Span{Key: key})
	}
	return list
}

// LeaseWrite judges who wants to end or to renew a lease, LeaseRead who wants to be told
// its keys.
func (t *Table) LeaseWrite(who Caller, lease id.Lease, leases Leases) error {
	list := keysOf(lease, leases)
	return t.lease(who, Demand{Write: list, Any: len(list) > 0})
}

// LeaseRead judges who wants to be told the keys of a lease.
func (t *Table) LeaseRead(who Caller, lease id.Lease, leases Leases) error {
	list := keysOf(lease, leases)
	return t.lease(who, Demand{Read: list, Any: len(list) > 0})
}

func (t *Table) lease(who Caller, d Demand) error {
	if err := t.AnyUser(who); err != nil {
		return err
	}
	return t.Keys(who, d)
}

// Keys judges what is about keys.
func (t *Table) Keys(who Caller, d Demand) error {
	if !t.Enabled || !d.Any {
		return nil
	}
	if who.User == "" {
		return command.ErrUserEmpty
	}
	u, known := t.Users[who.User]
	old := who.Issued < t.Revision
	switch {
	case old && (who.Strict || !known):
		return command.ErrAuthOldRevision
	case !known:
		return command.ErrPermissionDenied
	case !t.Good(who):
		return command.ErrAuthOldRevision
	case slices.Contains(u.Roles, Root):
		return nil
	}
	points := t.points(d)
	if !t.allowed(u, command.PermitRead, points, d.Read) || !t.allowed(u, command.PermitWrite, points, d.Write) {
		return command.ErrPermissionDenied
	}
	return nil
}

// points are all strings at which something begins or ends, sorted; see the package's
// comment.
func (t *Table) points(d Demand) (points [][]byte) {
	add := func(key, end []byte) {
		points = append(points, key, append(bytes.Clone(key), 0))
		if len(end) > 0 && !openEnd(end) {
			points = append(points, end)
		}
	}
	for _, list := range t.Roles {
		for _, p := range list {
			add(p.Key, p.End)
		}
	}
	for _, s := range slices.Concat(d.Read, d.Write) {
		add(s.Key, s.End)
	}
	slices.SortFunc(points, bytes.Compare)
	return slices.CompactFunc(points, bytes.Equal)
}

// allowed says whether a user may do one thing with everything on a list.
func (t *Table) allowed(u User, kind command.PermissionType, points [][]byte, list []Span) bool {
	may := map[string]bool{}
	for _, role := range u.Roles {
		for _, p := range t.Roles[role] {
			for _, k := range points {
				if (p.Type == kind || p.Type == command.PermitReadWrite) && inside(k, p.Key, p.End) {
					may[string(k)] = true
				}
			}
		}
	}
	for _, s := range list {
		if backward(s.Key, s.End) {
			if !reachesOver(may, points, s) {
				return false
			}
			continue
		}
		for _, k := range points {
			if inside(k, s.Key, s.End) && !may[string(k)] {
				return false
			}
		}
	}
	return true
}

// inside says whether a key is in a range, as spec 1.6 has it.
func inside(k, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(k, key)
	case openEnd(end):
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

// reachesOver judges a range that holds no key as etcd does: all from somewhere before
// its end up to its key is allowed.
func reachesOver(may map[string]bool, points [][]byte, s Span) bool {
	for _, k := range slices.Backward(points) {
		switch {
		case bytes.Compare(k, s.Key) > 0:
		case !may[string(k)]:
			return false
		case bytes.Compare(k, s.End) < 0:
			return true
		}
	}
	return false
}

// Command judges a command where it is applied: by whose name and revision it carries.
func (t *Table) Command(c *command.Command, leases Leases) error {
	if !t.Enabled || c.Class == command.Duty {
		return nil
	}
	who := Caller{User: c.User, Issued: c.AuthRevision, Strict: true}
	switch b := c.Body.(type) {
	case *command.PutRequest, *command.DeleteRangeRequest, *command.TxnRequest:
		return t.Keys(who, Of(b, leases))
	case *command.LeaseGrant:
		return t.AnyUser(who)
	case *command.LeaseRevoke:
		return t.LeaseWrite(who, b.ID, leases)
	case *command.CompactRequest, *command.MemberUpdate, *command.AlarmRaise, *command.AlarmDisarm, *command.DowngradeEnable, *command.DowngradeCancel,
		*command.AuthEnable, *command.AuthDisable, *command.UserAdd, *command.UserDelete, *command.UserPassword,
		*command.UserGrantRole, *command.UserRevokeRole, *command.RoleAdd, *command.RoleDelete, *command.RoleGrant, *command.RoleRevoke:
		return t.Admin(who)
	}
	return nil // a member's own, or anybody's
}
