// Package auth keeps the facts about users, roles and permissions, and judges by them
// what a caller asks for: by one function, Check, for every call there is.
//
// A Table never changes: a command makes a new one out of it, and readers keep the one
// of their view. Two looks that give the same pointer are therefore of the same facts.
//
// What is random or secret is not made here. Hashes of passwords come with the
// commands; of a token only a digest of its letters is told (Feed), and when it ends
// is a matter of each member's clock (server/token.go).
//
// Facts lie in rows of the group (docs/format/engine-rows.md).
package auth

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Root is the user that must be there before permissions are checked, and the role
// that may do everything.
const Root = "root"

// Table is the users, the roles, and whether permissions are checked.
type Table struct {
	enabled bool
	// revision counts the changes, from 1. Credentials that were given before the
	// revision from are void: permissions were not checked for a while then.
	revision, from uint64
	users          []*User // by name
	roles          []*Role // by name
}

// User is one user. It never changes.
type User struct {
	Name string
	// Hash is bcrypt's of the password; empty fits none.
	Hash []byte
	// NoPassword is for users who are known by certificates only.
	NoPassword bool
	// Roles are by name.
	Roles []string
	// Since is the auth revision with which the user was made or was given the password:
	// credentials that are older are void.
	Since uint64
	// grants is what the roles come to.
	grants grants
}

// Role is one role. It never changes.
type Role struct {
	Name string
	// Permissions are sorted by their ranges, which differ.
	Permissions []command.Permission
}

// Enabled says whether permissions are checked.
func (t *Table) Enabled() bool { return t.enabled }

// Revision is the auth revision.
func (t *Table) Revision() uint64 { return t.revision }

// Users lists the users by name, Roles the roles. The slices are shared and read-only.
func (t *Table) Users() []*User { return t.users }

// Roles lists the roles by name.
func (t *Table) Roles() []*Role { return t.roles }

// User finds a user; nil if there is none.
func (t *Table) User(name string) *User {
	at, known := t.findUser(name)
	if !known {
		return nil
	}
	return t.users[at]
}

// Role finds a role; nil if there is none.
func (t *Table) Role(name string) *Role {
	at, known := t.findRole(name)
	if !known {
		return nil
	}
	return t.roles[at]
}

func (t *Table) findUser(name string) (at int, known bool) {
	return slices.BinarySearchFunc(t.users, name, func(u *User, name string) int { return cmp.Compare(u.Name, name) })
}

func (t *Table) findRole(name string) (at int, known bool) {
	return slices.BinarySearchFunc(t.roles, name, func(r *Role, name string) int { return cmp.Compare(r.Name, name) })
}

// Has says whether the user holds a role.
func (u *User) Has(role string) bool {
	_, has := slices.BinarySearch(u.Roles, role)
	return has
}

// Valid says whether credentials that this user was given at an auth revision are so
// still. A nil user has none.
func (t *Table) Valid(u *User, issued uint64) bool {
	return u != nil && (issued >= u.Since && issued >= t.from || defect.On(defect.TokenOutlivesPassword))
}

// empty is the table of a new group.
func empty() *Table { return &Table{revision: 1} }

// Load reads the table of a group. Errors: ErrDamaged, *engine.CorruptionError,
// engine.ErrIterators.
func Load(group id.Group, db engine.Reader) (*Table, error) {
	t := empty()
	row, err := db.Get(keys.AppendMeta(nil, group, stateName), nil)
	switch {
	case errors.Is(err, engine.ErrNotFound): // nothing was ever changed
	case err != nil:
		return nil, err
	case !t.decodeState(row):
		return nil, fmt.Errorf("%w %s", ErrDamaged, stateName)
	}
	err = walk(group, db, roleFirst, roleEnd, func(name string, row []byte) bool {
		r, ok := decodeRole(name, row)
		t.roles = append(t.roles, r)
		return ok
	})
	if err != nil {
		return nil, err
	}
	err = walk(group, db, userFirst, userEnd, func(name string, row []byte) bool {
		u, ok := decodeUser(name, row)
		if ok {
			u.grants = t.grantsOf(u.Roles)
			t.users = append(t.users, u)
		}
		return ok
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// walk shows the rows whose names begin with first until one is not good.
func walk(group id.Group, db engine.Reader, first, end string, good func(name string, row []byte) bool) error {
	low := keys.AppendMeta(nil, group, first)
	it, err := db.Iter(low, keys.AppendMeta(nil, group, end))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.SeekGE(low); ok; ok = it.Next() {
		row, err := it.Value()
		if err != nil {
			return err
		}
		_, name, named := keys.DecodeMeta(it.Key())
		if !named || !bytes.HasPrefix(name, []byte(first)) || len(name) == len(first) || !good(string(name[len(first):]), bytes.Clone(row)) {
			return fmt.Errorf("%w %s", ErrDamaged, keys.Text(it.Key()))
		}
	}
	return it.Err()
}

// AppendTo appends the whole table in one form, for hashes; nothing for that of a new
// group.
func (t *Table) AppendTo(dst []byte) []byte {
	if t.revision == 1 && !t.enabled {
		return dst
	}
	dst = t.appendState(dst)
	for _, r := range t.roles {
		dst = appendRole(appendString(dst, r.Name), r)
	}
	for _, u := range t.users {
		dst = appendUser(appendString(dst, u.Name), u)
	}
	return dst
}
