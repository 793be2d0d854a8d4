package command

import (
	"encoding/binary"
	"errors"

	"github.com/kvorum/kvorum/internal/id"
)

// What users, roles and permissions refuse; the texts are etcd's (spec 1.3, 7).
var (
	ErrUserEmpty            = errors.New("etcdserver: user name is empty")
	ErrUserExists           = errors.New("etcdserver: user name already exists")
	ErrUserNotFound         = errors.New("etcdserver: user name not found")
	ErrRoleEmpty            = errors.New("etcdserver: role name is empty")
	ErrRoleExists           = errors.New("etcdserver: role name already exists")
	ErrRoleNotFound         = errors.New("etcdserver: role name not found")
	ErrRoleNotGranted       = errors.New("etcdserver: role is not granted to the user")
	ErrPermissionNotGranted = errors.New("etcdserver: permission is not granted to the role")
	ErrPermissionNotGiven   = errors.New("etcdserver: permission not given")
	ErrInvalidAuthMgmt      = errors.New("etcdserver: invalid auth management")
	ErrRootMissing          = errors.New("etcdserver: root user does not exist")
	ErrRootRoleMissing      = errors.New("etcdserver: root user does not have root role")
	ErrAuthNotEnabled       = errors.New("etcdserver: authentication is not enabled")
	ErrAuthFailed           = errors.New("etcdserver: authentication failed, invalid user ID or password")
	ErrNoPasswordUser       = errors.New("auth: authentication failed, password was given for no password user")
	ErrPermissionDenied     = errors.New("etcdserver: permission denied")
	ErrInvalidAuthToken     = errors.New("etcdserver: invalid auth token")
	ErrAuthOldRevision      = errors.New("etcdserver: revision of auth store is old")
)

// TokenDigestBytes is the size of what is stored of a token's letters.
const TokenDigestBytes = 32

// TokenDigest is the SHA-256 of the letters of a token: what the log and the other
// members are told of it, since nobody can use it.
type TokenDigest [TokenDigestBytes]byte

// PermissionType says what a permission allows. The numbers are those of the API; one
// that is unknown is kept and allows nothing.
type PermissionType int32

// The types of permissions.
const (
	PermitRead      PermissionType = 0
	PermitWrite     PermissionType = 1
	PermitReadWrite PermissionType = 2
)

// Permission allows something on a range of keys; Key and End are as in
// RangeRequest.
type Permission struct {
	Type     PermissionType
	Key, End []byte
}

// The changes of users, roles and their permissions, one for each call of the API.
type (
	// AuthEnable and AuthDisable switch the checking of permissions on and off.
	AuthEnable  struct{}
	AuthDisable struct{}
	// Authenticate notes the token of a user whose password was found right. Since is
	// the auth revision of the password that was looked at.
	Authenticate struct {
		User   string
		Since  uint64
		Digest TokenDigest
	}
	// UserAdd makes a user. Hash is bcrypt's of the password, made by the proposer: the
	// password itself never comes here. NoPassword is for users of certificates.
	UserAdd struct {
		Name       string
		Hash       []byte
		NoPassword bool
	}
	// UserDelete removes a user.
	UserDelete struct{ Name string }
	// UserPassword gives a user another password; an empty hash is none that fits.
	UserPassword struct {
		Name string
		Hash []byte
	}
	// UserGrantRole gives a user a role, UserRevokeRole takes it.
	UserGrantRole  struct{ User, Role string }
	UserRevokeRole struct{ User, Role string }
	// RoleAdd makes a role, RoleDelete removes it.
	RoleAdd    struct{ Name string }
	RoleDelete struct{ Name string }
	// RoleGrant gives a role a permission, in the place of one on the same range. Given
	// is false for a request without one, which is refused once it is known whose it is.
	RoleGrant struct {
		Role  string
		Given bool
		Permission
	}
	// RoleRevoke takes from a role the permission on exactly this range.
	RoleRevoke struct {
		Role     string
		Key, End []byte
	}
)

// AuthResponse answers each of them. Revision is the store's, for the header.
type AuthResponse struct{ Revision id.Revision }

// Kind of each body.
func (*AuthEnable) Kind() Kind     { return KindAuthEnable }
func (*AuthDisable) Kind() Kind    { return KindAuthDisable }
func (*Authenticate) Kind() Kind   { return KindAuthenticate }
func (*UserAdd) Kind() Kind        { return KindUserAdd }
func (*UserDelete) Kind() Kind     { return KindUserDelete }
func (*UserPassword) Kind() Kind   { return KindUserPassword }
func (*UserGrantRole) Kind() Kind  { return KindUserGrantRole }
func (*UserRevokeRole) Kind() Kind { return KindUserRevokeRole }
func (*RoleAdd) Kind() Kind        { return KindRoleAdd }
func (*RoleDelete) Kind() Kind     { return KindRoleDelete }
func (*RoleGrant) Kind() Kind      { return KindRoleGrant }
func (*RoleRevoke) Kind() Kind     { return KindRoleRevoke }

// Cost of each is 0: users are administered also when there is no space.
func (*AuthEnable) Cost() int64     { return 0 }
func (*AuthDisable) Cost() int64    { return 0 }
func (*Authenticate) Cost() int64   { return 0 }
func (*UserAdd) Cost() int64        { return 0 }
func (*UserDelete) Cost() int64     { return 0 }
func (*UserPassword) Cost() int64   { return 0 }
func (*UserGrantRole) Cost() int64  { return 0 }
func (*UserRevokeRole) Cost() int64 { return 0 }
func (*RoleAdd) Cost() int64        { return 0 }
func (*RoleDelete) Cost() int64     { return 0 }
func (*RoleGrant) Cost() int64      { return 0 }
func (*RoleRevoke) Cost() int64     { return 0 }

// An empty body is a byte of flags all the same, so that whatever cuts a command
// short is noticed.
func (*AuthEnable) appendTo(dst []byte) []byte  { return append(dst, 0) }
func (*AuthEnable) decode(r *reader)            { r.flags(0) }
func (*AuthDisable) appendTo(dst []byte) []byte { return append(dst, 0) }
func (*AuthDisable) decode(r *reader)           { r.flags(0) }

func (a *Authenticate) appendTo(dst []byte) []byte {
	dst = appendString(dst, a.User)
	dst = binary.AppendUvarint(dst, a.Since)
	return appendBytes(dst, a.Digest[:])
}

func (a *Authenticate) decode(r *reader) {
	a.User = string(r.bytes())
	a.Since = r.uvarint()
	digest := r.bytes()
	if len(digest) != len(a.Digest) {
		r.fail("digest of another size")
		return
	}
	copy(a.Digest[:], digest)
}

func (u *UserAdd) appendTo(dst []byte) []byte {
	dst = append(dst, flag(u.NoPassword, 1))
	return appendBytes(appendString(dst, u.Name), u.Hash)
}

func (u *UserAdd) decode(r *reader) {
	u.NoPassword = r.flags(1) != 0
	u.Name = string(r.bytes())
	u.Hash = r.bytes()
}

func (u *UserDelete) appendTo(dst []byte) []byte { return appendString(dst, u.Name) }
func (u *UserDelete) decode(r *reader)           { u.Name = string(r.bytes()) }

func (u *UserPassword) appendTo(dst []byte) []byte {
	return appendBytes(appendString(dst, u.Name), u.Hash)
}

func (u *UserPassword) decode(r *reader) {
	u.Name = string(r.bytes())
	u.Hash = r.bytes()
}

func (u *UserGrantRole) appendTo(dst []byte) []byte {
	return appendString(appendString(dst, u.User), u.Role)
}
func (u *UserGrantRole) decode(r *reader) { u.User, u.Role = string(r.bytes()), string(r.bytes()) }

func (u *UserRevokeRole) appendTo(dst []byte) []byte {
	return appendString(appendString(dst, u.User), u.Role)
}
func (u *UserRevokeRole) decode(r *reader) { u.User, u.Role = string(r.bytes()), string(r.bytes()) }

func (a *RoleAdd) appendTo(dst []byte) []byte    { return appendString(dst, a.Name) }
func (a *RoleAdd) decode(r *reader)              { a.Name = string(r.bytes()) }
func (d *RoleDelete) appendTo(dst []byte) []byte { return appendString(dst, d.Name) }
func (d *RoleDelete) decode(r *reader)           { d.Name = string(r.bytes()) }

func (g *RoleGrant) appendTo(dst []byte) []byte {
	dst = appendString(append(dst, flag(g.Given, 1)), g.Role)
	dst = binary.AppendVarint(dst, int64(g.Type))
	return appendBytes(appendBytes(dst, g.Key), g.End)
}

func (g *RoleGrant) decode(r *reader) {
	g.Given = r.flags(1) != 0
	g.Role = string(r.bytes())
	number := r.varint()
	if g.Type = PermissionType(number); int64(g.Type) != number {
		r.fail("type of a permission beyond 32 bits")
	}
	g.Key, g.End = r.bytes(), r.bytes()
}

func (k *RoleRevoke) appendTo(dst []byte) []byte {
	return appendBytes(appendBytes(appendString(dst, k.Role), k.Key), k.End)
}

func (k *RoleRevoke) decode(r *reader) {
	k.Role = string(r.bytes())
	k.Key, k.End = r.bytes(), r.bytes()
}
