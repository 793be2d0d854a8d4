package auth

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// To is where the rows of changed facts go.
type To struct {
	Group id.Group
	Batch engine.Batch
}

func (to To) set(name string, row []byte) {
	to.Batch.Set(keys.AppendMeta(nil, to.Group, name), row)
}

func (to To) remove(name string) {
	to.Batch.Delete(keys.AppendMeta(nil, to.Group, name))
}

// Each of the commands below returns the table as it is afterwards, which is t itself
// if nothing has changed, and puts the rows that differ into the batch. Who may give
// it was judged before. Every change is an auth revision of its own but for Enable
// (spec 7.2).

// Enable has permissions checked from now on. Errors: command.ErrRootMissing,
// command.ErrRootRoleMissing.
func (t *Table) Enable(to To) (*Table, error) {
	root := t.User(Root)
	switch {
	case t.enabled:
		return t, nil
	case root == nil:
		return t, command.ErrRootMissing
	case !root.grants.root:
		return t, command.ErrRootRoleMissing
	}
	next := *t
	next.enabled = true
	to.set(stateName, next.appendState(nil))
	return &next, nil
}

// Disable ends the checking of permissions, and all credentials that were given.
func (t *Table) Disable(to To) *Table {
	if !t.enabled {
		return t
	}
	next := *t
	next.enabled = false
	if next.from = t.revision + 1; defect.On(defect.TokenOutlivesDisable) {
		next.from = t.from
	}
	return next.changed(to)
}

// changed counts one change of a new table.
func (t *Table) changed(to To) *Table {
	t.revision++
	to.set(stateName, t.appendState(nil))
	return t
}

// Authenticate says whether a user may be given a token. Errors:
// command.ErrAuthNotEnabled, command.ErrAuthFailed, command.ErrNoPasswordUser;
// command.ErrAuthOldRevision if the password has changed since it was looked at.
func (t *Table) Authenticate(a *command.Authenticate) error {
	u := t.User(a.User)
	switch {
	case !t.enabled:
		return command.ErrAuthNotEnabled
	case u == nil:
		return command.ErrAuthFailed
	case u.NoPassword:
		return command.ErrNoPasswordUser
	case u.Since != a.Since && !defect.On(defect.PasswordRaced):
		return command.ErrAuthOldRevision
	}
	return nil
}

// AddUser makes a user. Errors: command.ErrUserEmpty, command.ErrUserExists.
func (t *Table) AddUser(to To, c *command.UserAdd) (*Table, error) {
	switch {
	case c.Name == "":
		return t, command.ErrUserEmpty
	case t.User(c.Name) != nil:
		return t, command.ErrUserExists
	}
	u := &User{Name: c.Name, NoPassword: c.NoPassword, Hash: bytes.Clone(c.Hash), Since: t.revision + 1}
	if u.NoPassword {
		u.Hash = nil
	}
	return t.withUser(to, u).changed(to), nil
}

// DeleteUser removes a user. Errors: command.ErrInvalidAuthMgmt for root while
// permissions are checked, command.ErrUserNotFound.
func (t *Table) DeleteUser(to To, c *command.UserDelete) (*Table, error) {
	if t.enabled && c.Name == Root {
		return t, command.ErrInvalidAuthMgmt
	}
	at, known := t.findUser(c.Name)
	if !known {
		return t, command.ErrUserNotFound
	}
	next := *t
	next.users = slices.Delete(slices.Clone(t.users), at, at+1)
	to.remove(userFirst + c.Name)
	return next.changed(to), nil
}

// SetPassword gives a user another password; one who has none keeps none. Errors:
// command.ErrUserNotFound.
func (t *Table) SetPassword(to To, c *command.UserPassword) (*Table, error) {
	u := t.User(c.Name)
	if u == nil {
		return t, command.ErrUserNotFound
	}
	other := *u
	other.Since = t.revision + 1
	if !u.NoPassword {
		other.Hash = bytes.Clone(c.Hash)
	}
	return t.withUser(to, &other).changed(to), nil
}

// GrantRole gives a user a role; one that the user has is no change. Errors:
// command.ErrUserNotFound, command.ErrRoleNotFound.
func (t *Table) GrantRole(to To, c *command.UserGrantRole) (*Table, error) {
	u := t.User(c.User)
	switch {
	case u == nil:
		return t, command.ErrUserNotFound
	case c.Role != Root && t.Role(c.Role) == nil:
		return t, command.ErrRoleNotFound
	}
	at, has := slices.BinarySearch(u.Roles, c.Role)
	if has {
		return t, nil
	}
	other := *u
	other.Roles = slices.Insert(slices.Clone(u.Roles), at, c.Role)
	other.grants = t.grantsOf(other.Roles)
	return t.withUser(to, &other).changed(to), nil
}

// RevokeRole takes a role from a user. Errors: command.ErrInvalidAuthMgmt for that of
// root while permissions are checked, command.ErrUserNotFound,
// command.ErrRoleNotGranted.
func (t *Table) RevokeRole(to To, c *command.UserRevokeRole) (*Table, error) {
	if t.enabled && c.User == Root && c.Role == Root {
		return t, command.ErrInvalidAuthMgmt
	}
	u := t.User(c.User)
	switch {
	case u == nil:
		return t, command.ErrUserNotFound
	case !u.Has(c.Role):
		return t, command.ErrRoleNotGranted
	}
	return t.withUser(to, t.without(u, c.Role)).changed(to), nil
}

// without returns a user who has lost a role.
func (t *Table) without(u *User, role string) *User {
	other := *u
	other.Roles = slices.DeleteFunc(slices.Clone(u.Roles), func(name string) bool { return name == role })
	other.grants = t.grantsOf(other.Roles)
	return &other
}

// AddRole makes a role. Errors: command.ErrRoleEmpty, command.ErrRoleExists.
func (t *Table) AddRole(to To, c *command.RoleAdd) (*Table, error) {
	switch {
	case c.Name == "":
		return t, command.ErrRoleEmpty
	case t.Role(c.Name) != nil:
		return t, command.ErrRoleExists
	}
	return t.withRole(to, &Role{Name: c.Name}).changed(to), nil
}

// DeleteRole removes a role and takes it from all users. Errors:
// command.ErrInvalidAuthMgmt for root while permissions are checked,
// command.ErrRoleNotFound.
func (t *Table) DeleteRole(to To, c *command.RoleDelete) (*Table, error) {
	if t.enabled && c.Name == Root {
		return t, command.ErrInvalidAuthMgmt
	}
	at, known := t.findRole(c.Name)
	if !known {
		return t, command.ErrRoleNotFound
	}
	next := *t
	next.roles = slices.Delete(slices.Clone(t.roles), at, at+1)
	to.remove(roleFirst + c.Name)
	next.users = slices.Clone(t.users)
	for i, u := range next.users {
		if u.Has(c.Name) {
			if next.users[i] = next.without(u, c.Name); defect.On(defect.RoleRowsForgotten) {
				continue
			}
			to.set(userFirst+u.Name, appendUser(nil, next.users[i]))
		}
	}
	return next.changed(to), nil
}

// GrantPermission gives a role a permission, in the place of one on the same range.
// Errors: command.ErrPermissionNotGiven, command.ErrInvalidAuthMgmt for a range that
// is none, command.ErrRoleNotFound.
func (t *Table) GrantPermission(to To, c *command.RoleGrant) (*Table, error) {
	role := t.Role(c.Role)
	switch {
	case !c.Given:
		return t, command.ErrPermissionNotGiven
	case len(c.Key) == 0 || backward(c.Key, c.End):
		return t, command.ErrInvalidAuthMgmt
	case role == nil:
		return t, command.ErrRoleNotFound
	}
	p := command.Permission{Type: c.Type, Key: bytes.Clone(c.Key), End: bytes.Clone(c.End)}
	list := slices.Clone(role.Permissions)
	at, has := findPermission(list, &p)
	if has {
		list[at] = p
	} else {
		list = slices.Insert(list, at, p)
	}
	return t.withPermissions(to, role, list).changed(to), nil
}

// RevokePermission takes from a role the permission on exactly a range. Errors:
// command.ErrRoleNotFound, command.ErrPermissionNotGranted.
func (t *Table) RevokePermission(to To, c *command.RoleRevoke) (*Table, error) {
	role := t.Role(c.Role)
	if role == nil {
		return t, command.ErrRoleNotFound
	}
	at, has := findPermission(role.Permissions, &command.Permission{Key: c.Key, End: c.End})
	if !has {
		return t, command.ErrPermissionNotGranted
	}
	return t.withPermissions(to, role, slices.Delete(slices.Clone(role.Permissions), at, at+1)).changed(to), nil
}

func findPermission(list []command.Permission, p *command.Permission) (at int, has bool) {
	return slices.BinarySearchFunc(list, p, func(a command.Permission, b *command.Permission) int { return compareRanges(&a, b) })
}

// withPermissions returns a table in which a role allows something else, and so do all
// who hold it.
func (t *Table) withPermissions(to To, role *Role, list []command.Permission) *Table {
	next := t.withRole(to, &Role{Name: role.Name, Permissions: list})
	next.users = slices.Clone(t.users)
	for i, u := range next.users {
		if u.Has(role.Name) && !defect.On(defect.RightsOfBefore) {
			other := *u
			other.grants = next.grantsOf(u.Roles)
			next.users[i] = &other
		}
	}
	return next
}

// withUser returns a new table with a user who is new or other than before.
func (t *Table) withUser(to To, u *User) *Table {
	to.set(userFirst+u.Name, appendUser(nil, u))
	next := *t
	at, known := t.findUser(u.Name)
	next.users = slices.Clone(t.users)
	if known {
		next.users[at] = u
	} else {
		next.users = slices.Insert(next.users, at, u)
	}
	return &next
}

// withRole is the same for a role.
func (t *Table) withRole(to To, r *Role) *Table {
	to.set(roleFirst+r.Name, appendRole(nil, r))
	next := *t
	at, known := t.findRole(r.Name)
	next.roles = slices.Clone(t.roles)
	if known {
		next.roles[at] = r
	} else {
		next.roles = slices.Insert(next.roles, at, r)
	}
	return &next
}
