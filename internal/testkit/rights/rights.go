// Package rights is the oracle of users, roles and permissions: spec/v3-api.md
// section 7 written so that a reader can see that it is right. Permissions are sets of
// keys, written out. It knows no unions of ranges and no recursion over branches that
// are taken or not: it lists what a request touches and looks each key up.
//
// Keys are byte strings, of which there are too many to list. But every range that is
// looked at, a permission's or a request's, begins and ends at one of a few points: the
// bounds themselves and, for a single key, the string next to it. A range that holds one
// string between two neighbouring points holds all of them, so the points stand for all
// keys.
//
// It shares nothing with the product but the commands and the refusals.
package rights

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/internal/state/command"
)

// Root is the user that must be there before permissions are checked, and the role
// that may do everything.
const Root = "root"

// Table is the users and roles at one moment. Apply returns another one; nobody else
// changes it.
type Table struct {
	Enabled bool
	// Revision counts the changes, from 1. From is the revision of the latest change that
	// has voided all credentials.
	Revision, From uint64
	Users          map[string]User
	Roles          map[string][]command.Permission
}

// User is one user. Credentials that were given before the revision Since are void.
type User struct {
	Hash       string
	NoPassword bool
	Roles      []string // by name
	Since      uint64
}

// New is the table of a new group.
func New() *Table {
	return &Table{Revision: 1, Users: map[string]User{}, Roles: map[string][]command.Permission{}}
}

// String tells the whole table on one line.
func (t *Table) String() string {
	text := fmt.Sprintf("enabled %v, revision %d, credentials from %d", t.Enabled, t.Revision, t.From)
	for _, name := range slices.Sorted(maps.Keys(t.Roles)) {
		text += fmt.Sprintf("; role %q", name)
		for _, p := range t.Roles[name] {
			text += fmt.Sprintf(" %d[%q %q]", p.Type, p.Key, p.End)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Users)) {
		u := t.Users[name]
		text += fmt.Sprintf("; user %q since %d, no password %v, hash %x: %s", name, u.Since, u.NoPassword, u.Hash, strings.Join(u.Roles, ","))
	}
	return text
}

// Apply returns the table after a command, which is t itself if it changes nothing or
// is refused. Who may give it is not asked here. A command about something else is no
// change.
func (t *Table) Apply(body command.Body) (*Table, error) {
	next := &Table{Enabled: t.Enabled, Revision: t.Revision + 1, From: t.From, Users: maps.Clone(t.Users), Roles: maps.Clone(t.Roles)}
	changed, err := false, error(nil)
	switch b := body.(type) {
	case *command.AuthEnable:
		return t.enable()
	case *command.AuthDisable:
		changed = t.Enabled
		next.Enabled, next.From = false, next.Revision
	case *command.Authenticate:
		return t, t.authenticate(b)
	case *command.UserAdd:
		changed, err = next.addUser(b)
	case *command.UserDelete:
		changed, err = next.deleteUser(b)
	case *command.UserPassword:
		changed, err = next.setPassword(b)
	case *command.UserGrantRole:
		changed, err = next.grantRole(b)
	case *command.UserRevokeRole:
		changed, err = next.revokeRole(b)
	case *command.RoleAdd:
		changed, err = next.addRole(b)
	case *command.RoleDelete:
		changed, err = next.deleteRole(b)
	case *command.RoleGrant:
		changed, err = next.grantPermission(b)
	case *command.RoleRevoke:
		changed, err = next.revokePermission(b)
	}
	if !changed {
		return t, err
	}
	return next, nil
}

func (t *Table) enable() (*Table, error) {
	root, known := t.Users[Root]
	switch {
	case t.Enabled:
		return t, nil
	case !known:
		return t, command.ErrRootMissing
	case !slices.Contains(root.Roles, Root):
		return t, command.ErrRootRoleMissing
	}
	next := *t
	next.Enabled = true
	return &next, nil
}

func (t *Table) authenticate(b *command.Authenticate) error {
	u, known := t.Users[b.User]
	switch {
	case !t.Enabled:
		return command.ErrAuthNotEnabled
	case !known:
		return command.ErrAuthFailed
	case u.NoPassword:
		return command.ErrNoPasswordUser
	case u.Since != b.Since:
		return command.ErrAuthOldRevision
	}
	return nil
}

// What follows changes a copy of the table, whose revision is that of the change.

func (t *Table) addUser(b *command.UserAdd) (bool, error) {
	if b.Name == "" {
		return false, command.ErrUserEmpty
	}
	if _, known := t.Users[b.Name]; known {
		return false, command.ErrUserExists
	}
	u := User{NoPassword: b.NoPassword, Since: t.Revision}
	if !b.NoPassword {
		u.Hash = string(b.Hash)
	}
	t.Users[b.Name] = u
	return true, nil
}

func (t *Table) deleteUser(b *command.UserDelete) (bool, error) {
	if t.Enabled && b.Name == Root {
		return false, command.ErrInvalidAuthMgmt
	}
	if _, known := t.Users[b.Name]; !known {
		return false, command.ErrUserNotFound
	}
	delete(t.Users, b.Name)
	return true, nil
}

func (t *Table) setPassword(b *command.UserPassword) (bool, error) {
	u, known := t.Users[b.Name]
	if !known {
		return false, command.ErrUserNotFound
	}
	if u.Since = t.Revision; !u.NoPassword {
		u.Hash = string(b.Hash)
	}
	t.Users[b.Name] = u
	return true, nil
}

func (t *Table) grantRole(b *command.UserGrantRole) (bool, error) {
	u, known := t.Users[b.User]
	if !known {
		return false, command.ErrUserNotFound
	}
	if _, made := t.Roles[b.Role]; !made && b.Role != Root {
		return false, command.ErrRoleNotFound
	}
	if slices.Contains(u.Roles, b.Role) {
		return false, nil
	}
	u.Roles = slices.Sorted(slices.Values(append(slices.Clone(u.Roles), b.Role)))
	t.Users[b.User] = u
	return true, nil
}

func (t *Table) revokeRole(b *command.UserRevokeRole) (bool, error) {
	if t.Enabled && b.User == Root && b.Role == Root {
		return false, command.ErrInvalidAuthMgmt
	}
	u, known := t.Users[b.User]
	switch {
	case !known:
		return false, command.ErrUserNotFound
	case !slices.Contains(u.Roles, b.Role):
		return false, command.ErrRoleNotGranted
	}
	t.take(b.User, b.Role)
	return true, nil
}

// take takes a role from a user.
func (t *Table) take(user, role string) {
	u := t.Users[user]
	u.Roles = slices.DeleteFunc(slices.Clone(u.Roles), func(name string) bool { return name == role })
	t.Users[user] = u
}

func (t *Table) addRole(b *command.RoleAdd) (bool, error) {
	if b.Name == "" {
		return false, command.ErrRoleEmpty
	}
	if _, made := t.Roles[b.Name]; made {
		return false, command.ErrRoleExists
	}
	t.Roles[b.Name] = nil
	return true, nil
}

func (t *Table) deleteRole(b *command.RoleDelete) (bool, error) {
	if t.Enabled && b.Name == Root {
		return false, command.ErrInvalidAuthMgmt
	}
	if _, made := t.Roles[b.Name]; !made {
		return false, command.ErrRoleNotFound
	}
	delete(t.Roles, b.Name)
	for name := range t.Users {
		t.take(name, b.Name)
	}
	return true, nil
}

func (t *Table) grantPermission(b *command.RoleGrant) (bool, error) {
	list, made := t.Roles[b.Role]
	switch {
	case !b.Given:
		return false, command.ErrPermissionNotGiven
	case len(b.Key) == 0 || backward(b.Key, b.End):
		return false, command.ErrInvalidAuthMgmt
	case !made:
		return false, command.ErrRoleNotFound
	}
	list = append(without(list, b.Key, b.End), b.Permission)
	slices.SortFunc(list, func(a, b command.Permission) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return bytes.Compare(a.End, b.End)
	})
	t.Roles[b.Role] = list
	return true, nil
}

func (t *Table) revokePermission(b *command.RoleRevoke) (bool, error) {
	list, made := t.Roles[b.Role]
	if !made {
		return false, command.ErrRoleNotFound
	}
	if t.Roles[b.Role] = without(list, b.Key, b.End); len(t.Roles[b.Role]) == len(list) {
		return false, command.ErrPermissionNotGranted
	}
	return true, nil
}

// without is a list less the permission on exactly a range.
func without(list []command.Permission, key, end []byte) []command.Permission {
	return slices.DeleteFunc(slices.Clone(list), func(p command.Permission) bool {
		return bytes.Equal(p.Key, key) && bytes.Equal(p.End, end)
	})
}

// openEnd says whether a range goes on to the last key, backward whether it holds none.
func openEnd(end []byte) bool { return len(end) == 1 && end[0] == 0 }

func backward(key, end []byte) bool {
	return len(end) > 0 && !openEnd(end) && bytes.Compare(end, key) <= 0
}
