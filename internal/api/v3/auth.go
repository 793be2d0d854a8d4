package v3

import (
	"context"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/server"
	users "github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
)

// auth is the Auth service (spec 7).
type auth struct {
	// Without Unimplemented the compiler asks for every method.
	pb.UnsafeAuthServer
	member *server.Member
}

// Authenticate gives a token for a name and a password.
func (a *auth) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	wait := func(start func(host.Call)) (host.Result, error) { return await(ctx, a.member, start) }
	token, err := a.member.Authenticate(ctx, wait, r.GetName(), r.GetPassword())
	if err != nil {
		return nil, toWire(err)
	}
	return &pb.AuthenticateResponse{Header: a.header(), Token: token}, nil
}

// AuthStatus says whether permissions are checked.
func (a *auth) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	if _, err := await(ctx, a.member, a.member.Barrier); err != nil {
		return nil, toWire(err)
	}
	enabled, revision := a.member.AuthStatus()
	return &pb.AuthStatusResponse{Header: a.header(), Enabled: enabled, AuthRevision: revision}, nil
}

// header is that of an answer that says nothing about keys.
func (a *auth) header() *pb.ResponseHeader { return header(a.member, a.member.Revision()) }

// change makes a change of users and roles, in the caller's name.
func (a *auth) change(ctx context.Context, body command.Body) (*pb.ResponseHeader, error) {
	as, err := session(ctx, a.member)
	if err != nil {
		return nil, toWire(err)
	}
	result, err := await(ctx, a.member, func(call host.Call) { as.ChangeAuth(call, body) })
	if err != nil {
		return nil, toWire(err)
	}
	return header(a.member, result.Response.(*command.AuthResponse).Revision), nil
}

// look is the services for a caller who wants to be told something, once everything is
// known that was changed before.
func (a *auth) look(ctx context.Context) (server.Session, error) {
	as, err := session(ctx, a.member)
	if err == nil {
		_, err = await(ctx, a.member, a.member.Barrier)
	}
	return as, err
}

// hash makes what is stored of a password, once it is certain that the caller may set it.
func (a *auth) hash(ctx context.Context, password string) ([]byte, error) {
	if err := a.member.CheckPassword(password); err != nil {
		return nil, err
	}
	as, err := session(ctx, a.member)
	if err == nil {
		_, err = await(ctx, a.member, as.AskAdmin)
	}
	if err != nil {
		return nil, err
	}
	return a.member.HashPassword(password)
}

func (a *auth) AuthEnable(ctx context.Context, _ *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	h, err := a.change(ctx, &command.AuthEnable{})
	return &pb.AuthEnableResponse{Header: h}, err
}

func (a *auth) AuthDisable(ctx context.Context, _ *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	h, err := a.change(ctx, &command.AuthDisable{})
	return &pb.AuthDisableResponse{Header: h}, err
}

func (a *auth) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	add := command.UserAdd{Name: r.GetName(), NoPassword: r.GetOptions().GetNoPassword()}
	if !add.NoPassword {
		var err error
		if add.Hash, err = a.hash(ctx, r.GetPassword()); err != nil {
			return nil, toWire(err)
		}
	}
	h, err := a.change(ctx, &add)
	return &pb.AuthUserAddResponse{Header: h}, err
}

// UserChangePassword with an empty password leaves a user who cannot log in.
func (a *auth) UserChangePassword(ctx context.Context, r *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	change := command.UserPassword{Name: r.GetName()}
	if r.GetPassword() != "" {
		var err error
		if change.Hash, err = a.hash(ctx, r.GetPassword()); err != nil {
			return nil, toWire(err)
		}
	}
	h, err := a.change(ctx, &change)
	return &pb.AuthUserChangePasswordResponse{Header: h}, err
}

func (a *auth) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	h, err := a.change(ctx, &command.UserDelete{Name: r.GetName()})
	return &pb.AuthUserDeleteResponse{Header: h}, err
}

func (a *auth) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	h, err := a.change(ctx, &command.UserGrantRole{User: r.GetUser(), Role: r.GetRole()})
	return &pb.AuthUserGrantRoleResponse{Header: h}, err
}

func (a *auth) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	h, err := a.change(ctx, &command.UserRevokeRole{User: r.GetName(), Role: r.GetRole()})
	return &pb.AuthUserRevokeRoleResponse{Header: h}, err
}

func (a *auth) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	h, err := a.change(ctx, &command.RoleAdd{Name: r.GetName()})
	return &pb.AuthRoleAddResponse{Header: h}, err
}

func (a *auth) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	h, err := a.change(ctx, &command.RoleDelete{Name: r.GetRole()})
	return &pb.AuthRoleDeleteResponse{Header: h}, err
}

func (a *auth) RoleGrantPermission(ctx context.Context, r *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	grant := command.RoleGrant{Role: r.GetName()}
	if p := r.GetPerm(); p != nil {
		grant.Given = true
		grant.Permission = command.Permission{Type: command.PermissionType(p.GetPermType()), Key: p.GetKey(), End: p.GetRangeEnd()}
	}
	h, err := a.change(ctx, &grant)
	return &pb.AuthRoleGrantPermissionResponse{Header: h}, err
}

func (a *auth) RoleRevokePermission(ctx context.Context, r *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	h, err := a.change(ctx, &command.RoleRevoke{Role: r.GetRole(), Key: r.GetKey(), End: r.GetRangeEnd()})
	return &pb.AuthRoleRevokePermissionResponse{Header: h}, err
}

func (a *auth) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	as, err := a.look(ctx)
	if err != nil {
		return nil, toWire(err)
	}
	user, err := as.User(r.GetName())
	if err != nil {
		return nil, toWire(err)
	}
	return &pb.AuthUserGetResponse{Header: a.header(), Roles: user.Roles}, nil
}

func (a *auth) UserList(ctx context.Context, _ *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	as, err := a.look(ctx)
	if err != nil {
		return nil, toWire(err)
	}
	list, err := as.Users()
	if err != nil {
		return nil, toWire(err)
	}
	resp := &pb.AuthUserListResponse{Header: a.header()}
	for _, u := range list {
		resp.Users = append(resp.Users, u.Name)
	}
	return resp, nil
}

// RoleGet tells of the role root that it may do everything, whatever it was granted.
func (a *auth) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	as, err := a.look(ctx)
	if err != nil {
		return nil, toWire(err)
	}
	role, err := as.Role(r.GetRole())
	if err != nil {
		return nil, toWire(err)
	}
	resp := &pb.AuthRoleGetResponse{Header: a.header()}
	if role.Name == users.Root {
		resp.Perm = []*authpb.Permission{{PermType: authpb.Permission_READWRITE, RangeEnd: []byte{0}}}
		return resp, nil
	}
	for i := range role.Permissions {
		p := &role.Permissions[i]
		resp.Perm = append(resp.Perm, &authpb.Permission{PermType: authpb.Permission_Type(p.Type), Key: p.Key, RangeEnd: p.End})
	}
	return resp, nil
}

func (a *auth) RoleList(ctx context.Context, _ *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	as, err := a.look(ctx)
	if err != nil {
		return nil, toWire(err)
	}
	roles, err := as.Roles()
	if err != nil {
		return nil, toWire(err)
	}
	resp := &pb.AuthRoleListResponse{Header: a.header()}
	for _, r := range roles {
		resp.Roles = append(resp.Roles, r.Name)
	}
	return resp, nil
}
