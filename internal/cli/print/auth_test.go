package print

import (
	"maps"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func init() {
	maps.Copy(answers, map[string]func(*Printer) error{
		"auth-status": func(p *Printer) error {
			return p.AuthStatus(&clientv3.AuthStatusResponse{Header: header(), Enabled: true, AuthRevision: 9})
		},
		"user-add": func(p *Printer) error {
			r := &pb.AuthUserAddResponse{Header: header()}
			return p.AuthChanged("User ann created", r.Header, r, r)
		},
		"user-get": func(p *Printer) error {
			return p.UserGet("ann", &clientv3.AuthUserGetResponse{Header: header(), Roles: []string{"reader", "writer"}})
		},
		"user-list": func(p *Printer) error {
			return p.UserList(&clientv3.AuthUserListResponse{Header: header(), Users: []string{"ann", "root"}})
		},
		"role-list": func(p *Printer) error {
			return p.RoleList(&clientv3.AuthRoleListResponse{Header: header(), Roles: []string{"reader", "root"}})
		},
		"role-get": func(p *Printer) error {
			return p.RoleGet("reader", &clientv3.AuthRoleGetResponse{Header: header(), Perm: []*authpb.Permission{
				{PermType: authpb.Permission_READ, Key: []byte("a")},
				{PermType: authpb.Permission_WRITE, Key: []byte("b"), RangeEnd: []byte("d")},
				{PermType: authpb.Permission_READWRITE, Key: []byte("pre"), RangeEnd: []byte("prf")},
				{PermType: authpb.Permission_READWRITE, Key: []byte("z"), RangeEnd: []byte{0}},
				{PermType: authpb.Permission_READWRITE, RangeEnd: []byte{0}},
			}})
		},
		"role-revoke-permission": func(p *Printer) error {
			return p.RoleRevokePermission("reader", "a", "", &clientv3.AuthRoleRevokePermissionResponse{Header: header()})
		},
		"role-revoke-permission-range": func(p *Printer) error {
			return p.RoleRevokePermission("reader", "a", "\x00", &clientv3.AuthRoleRevokePermissionResponse{Header: header()})
		},
	})
}
