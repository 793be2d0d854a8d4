package auth

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/kvorum/kvorum/internal/state/command"
)

// ErrDamaged is wrapped by the error of a row that is not what this package writes.
var ErrDamaged = errors.New("auth: damaged row")

const rowFormat = 1

// The rows are named so that they sort by the names of users and roles; '0' is the
// byte after '/'.
const (
	stateName = "auth"
	roleFirst = "role/"
	roleEnd   = "role0"
	userFirst = "user/"
	userEnd   = "user0"
)

// The values of the rows. Each decoder accepts exactly what its encoder writes.

func (t *Table) appendState(dst []byte) []byte {
	dst = append(dst, rowFormat, flag(t.enabled))
	return binary.AppendUvarint(binary.AppendUvarint(dst, t.revision), t.from)
}

func (t *Table) decodeState(row []byte) bool {
	r := newReader(row)
	t.enabled = r.flag()
	t.revision, t.from = r.number(), r.number()
	return r.whole() && t.revision > 0 && t.from <= t.revision
}

func appendUser(dst []byte, u *User) []byte {
	dst = append(dst, rowFormat, flag(u.NoPassword))
	dst = binary.AppendUvarint(dst, u.Since)
	dst = appendString(dst, string(u.Hash))
	dst = binary.AppendUvarint(dst, uint64(len(u.Roles)))
	for _, role := range u.Roles {
		dst = appendString(dst, role)
	}
	return dst
}

func decodeUser(name string, row []byte) (*User, bool) {
	r := newReader(row)
	u := &User{Name: name, NoPassword: r.flag(), Since: r.number(), Hash: r.bytes()}
	n := r.count(1)
	for i := range n {
		role := string(r.bytes())
		if i > 0 && role <= u.Roles[i-1] {
			return nil, false
		}
		u.Roles = append(u.Roles, role)
	}
	return u, r.whole()
}

func appendRole(dst []byte, r *Role) []byte {
	dst = binary.AppendUvarint(append(dst, rowFormat), uint64(len(r.Permissions)))
	for i := range r.Permissions {
		p := &r.Permissions[i]
		dst = binary.AppendVarint(dst, int64(p.Type))
		dst = appendString(appendString(dst, string(p.Key)), string(p.End))
	}
	return dst
}

// leastPermission is the least that a permission is encoded in.
const leastPermission = 3

func decodeRole(name string, row []byte) (*Role, bool) {
	r := newReader(row)
	role := &Role{Name: name}
	for i := range r.count(leastPermission) {
		p := command.Permission{Type: r.kind(), Key: r.bytes(), End: r.bytes()}
		if i > 0 && compareRanges(&role.Permissions[i-1], &p) >= 0 {
			return nil, false
		}
		role.Permissions = append(role.Permissions, p)
	}
	return role, r.whole()
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// reader takes a row apart. What is read after something bad is zero.
type reader struct {
	b   []byte
	bad bool
}

func newReader(row []byte) *reader {
	if len(row) == 0 || row[0] != rowFormat {
		return &reader{bad: true}
	}
	return &reader{b: row[1:]}
}

func (r *reader) whole() bool { return !r.bad && len(r.b) == 0 }

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) flag() bool {
	v := r.number()
	if v > 1 {
		r.fail()
	}
	return v == 1
}

func (r *reader) kind() command.PermissionType {
	u := r.number()
	v := int64(u>>1) ^ -int64(u&1)
	t := command.PermissionType(v)
	if int64(t) != v {
		r.fail()
	}
	return t
}

// bytes returns a copy; nil for an empty string.
func (r *reader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	if n == 0 {
		return nil
	}
	return slices.Clone(b)
}

// count reads the length of a list whose items take at least so many bytes each.
func (r *reader) count(least int) int {
	n := r.number()
	if n > uint64(len(r.b)/least) {
		r.fail()
		return 0
	}
	return int(n)
}
