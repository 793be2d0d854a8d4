package print

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// AuthStatus says whether permissions are checked.
func (p *Printer) AuthStatus(r *clientv3.AuthStatusResponse) error {
	return p.write(answer{
		simple:   func(l *lines) { l.printf("Authentication Status: %v\nAuthRevision: %v\n", r.Enabled, r.AuthRevision) },
		json:     r,
		protobuf: (*pb.AuthStatusResponse)(r),
	})
}

// AuthChanged writes the answer to a change of users or roles: simple output is a
// sentence, fields are the header.
func (p *Printer) AuthChanged(sentence string, header *pb.ResponseHeader, json any, message proto.Message) error {
	return p.write(answer{
		simple:   func(l *lines) { l.printf("%s\n", sentence) },
		fields:   func(l *lines) { l.header(header) },
		json:     json,
		protobuf: message,
	})
}

// UserGet writes a user's roles.
func (p *Printer) UserGet(name string, r *clientv3.AuthUserGetResponse) error {
	return p.write(answer{
		simple: func(l *lines) {
			l.printf("User: %s\nRoles:", name)
			for _, role := range r.Roles {
				l.printf(" %s", role)
			}
			l.printf("\n")
		},
		json:     r,
		protobuf: (*pb.AuthUserGetResponse)(r),
	})
}

// UserList writes the names of the users, one on a line.
func (p *Printer) UserList(r *clientv3.AuthUserListResponse) error {
	return p.write(answer{
		simple:   func(l *lines) { l.names(r.Users) },
		json:     r,
		protobuf: (*pb.AuthUserListResponse)(r),
	})
}

// RoleList writes the names of the roles.
func (p *Printer) RoleList(r *clientv3.AuthRoleListResponse) error {
	return p.write(answer{
		simple: func(l *lines) { l.names(r.Roles) },
		fields: func(l *lines) {
			l.header(r.Header)
			l.printf(`"Roles" :`)
			for _, role := range r.Roles {
				l.printf(" %q", role)
			}
			l.printf("\n")
		},
		json:     r,
		protobuf: (*pb.AuthRoleListResponse)(r),
	})
}

// RoleGet writes what a role allows: what may be read, then what may be written.
func (p *Printer) RoleGet(name string, r *clientv3.AuthRoleGetResponse) error {
	return p.write(answer{
		simple: func(l *lines) {
			l.printf("Role %s\n", name)
			l.printf("KV Read:\n")
			l.permissions(r.Perm, authpb.Permission_READ)
			l.printf("KV Write:\n")
			l.permissions(r.Perm, authpb.Permission_WRITE)
		},
		fields: func(l *lines) {
			l.header(r.Header)
			for _, perm := range r.Perm {
				l.field("PermType", "%v", perm.PermType)
				l.field("Key", "%q", perm.Key)
				l.field("RangeEnd", "%q", perm.RangeEnd)
			}
		},
		json:     r,
		protobuf: (*pb.AuthRoleGetResponse)(r),
	})
}

// RoleRevokePermission says what a role does not allow any more.
func (p *Printer) RoleRevokePermission(role, key, end string, r *clientv3.AuthRoleRevokePermissionResponse) error {
	sentence := fmt.Sprintf("Permission of key %s is revoked from role %s", key, role)
	if end != "" {
		sentence = fmt.Sprintf("Permission of range %s is revoked from role %s", between(key, end), role)
	}
	return p.AuthChanged(sentence, r.Header, r, (*pb.AuthRoleRevokePermissionResponse)(r))
}

func (l *lines) names(list []string) {
	for _, name := range list {
		l.printf("%s\n", name)
	}
}

// permissions writes those of one kind or of both, one on a line.
func (l *lines) permissions(list []*authpb.Permission, kind authpb.Permission_Type) {
	for _, perm := range list {
		if perm.PermType != kind && perm.PermType != authpb.Permission_READWRITE {
			continue
		}
		key, end := string(perm.Key), string(perm.RangeEnd)
		if end == "" {
			l.printf("\t%s\n", key)
			continue
		}
		l.printf("\t%s", between(key, end))
		if key != "" && clientv3.GetPrefixRangeEnd(key) == end {
			l.printf(" (prefix %s)", key)
		}
		l.printf("\n")
	}
}

// between is a range as people read it. One without an end has no bracket either.
func between(key, end string) string {
	if end == "\x00" {
		return fmt.Sprintf("[%s, <open ended>", key)
	}
	return fmt.Sprintf("[%s, %s)", key, end)
}
