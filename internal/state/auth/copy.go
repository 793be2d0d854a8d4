package auth

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// ErrInvalid is wrapped by the error of users and roles that no command could have made.
var ErrInvalid = errors.New("invalid users or roles")

// Rows makes the rows of users and roles that come from elsewhere, with an auth
// revision, in no order. Credentials of an earlier auth revision are void, since it is
// not known when each user was given his password; those of the latest one are good if
// the members can tell that they gave them, as of signed tokens. Errors: ErrInvalid, what row returns.
func Rows(group id.Group, enabled bool, revision uint64, users []User, roles []Role, row func(key, row []byte) error) error {
	if revision <= 1 && !enabled && len(users) == 0 && len(roles) == 0 {
		return nil // as if nothing had ever changed
	}
	t := &Table{enabled: enabled, revision: max(revision, 1)}
	for _, r := range roles {
		slices.SortFunc(r.Permissions, func(a, b command.Permission) int { return compareRanges(&a, &b) })
		t.roles = append(t.roles, &r)
	}
	slices.SortFunc(t.roles, func(a, b *Role) int { return cmp.Compare(a.Name, b.Name) })
	for _, u := range users {
		u.Roles = slices.Compact(slices.Sorted(slices.Values(u.Roles)))
		u.Since, u.grants = t.revision, t.grantsOf(u.Roles)
		t.users = append(t.users, &u)
	}
	slices.SortFunc(t.users, func(a, b *User) int { return cmp.Compare(a.Name, b.Name) })
	t.from = t.revision
	set := func(name string, text []byte) error { return row(keys.AppendMeta(nil, group, name), text) }
	if err := set(stateName, t.appendState(nil)); err != nil {
		return err
	}
	for _, r := range t.roles {
		text := appendRole(nil, r)
		if _, ok := decodeRole(r.Name, text); !ok || r.Name == "" {
			return fmt.Errorf("%w: role %q", ErrInvalid, r.Name)
		}
		if err := set(roleFirst+r.Name, text); err != nil {
			return err
		}
	}
	for _, u := range t.users {
		text := appendUser(nil, u)
		if _, ok := decodeUser(u.Name, text); !ok || u.Name == "" {
			return fmt.Errorf("%w: user %q", ErrInvalid, u.Name)
		}
		if err := set(userFirst+u.Name, text); err != nil {
			return err
		}
	}
	return nil
}
