package embed

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	kvhistory "github.com/kvorum/kvorum/internal/testkit/history"
	"github.com/kvorum/kvorum/internal/testkit/model"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// calls draws one call of each method, with what it asks for (spec 7.1). Those that would
// leave no member to go on with are drawn in a harmless form for whoever may make them.
var calls = map[string]func(w *walk, who rights.Caller) asking{
	pb.KV_Range_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return w.aboutKeys(func() any { return w.draws.Range(w.revision()) })
	},
	pb.KV_RangeStream_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return w.aboutKeys(func() any {
			r := w.draws.Range(w.revision())
			return &command.RangeRequest{Key: r.Key, End: r.End, Limit: max(r.Limit, 0), Serializable: r.Serializable}
		})
	},
	pb.KV_Put_FullMethodName:         func(w *walk, _ rights.Caller) asking { return w.aboutKeys(func() any { return w.put() }) },
	pb.KV_DeleteRange_FullMethodName: func(w *walk, _ rights.Caller) asking { return w.aboutKeys(func() any { return w.draws.DeleteRange() }) },
	pb.KV_Txn_FullMethodName:         func(w *walk, _ rights.Caller) asking { return w.aboutKeys(w.txn) },
	pb.KV_Compact_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return w.asRoot(&pb.CompactionRequest{Revision: int64(w.revision()) - 20})
	},
	pb.Watch_Watch_FullMethodName: func(w *walk, _ rights.Caller) asking {
		r := w.draws.Range(0)
		create := &pb.WatchCreateRequest{Key: r.Key, RangeEnd: r.End, PrevKv: w.r.IntN(2) == 0}
		return asking{
			request: &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}},
			judge:   func(who rights.Caller) error { return w.oracle.Keys(who, rights.Of(r, nil)) },
		}
	},

	pb.Lease_LeaseGrant_FullMethodName: func(w *walk, _ rights.Caller) asking { return w.grants() },
	pb.Lease_LeaseRevoke_FullMethodName: func(w *walk, _ rights.Caller) asking {
		lease := w.lease()
		a := w.writesLease(lease, &pb.LeaseRevokeRequest{ID: int64(lease)})
		a.done = func([]byte) {
			for i, l := range w.leases {
				if l == lease {
					w.leases = append(w.leases[:i:i], w.leases[i+1:]...)
					return
				}
			}
		}
		return a
	},
	pb.Lease_LeaseKeepAlive_FullMethodName: func(w *walk, _ rights.Caller) asking {
		lease := w.lease()
		return w.writesLease(lease, &pb.LeaseKeepAliveRequest{ID: int64(lease)})
	},
	pb.Lease_LeaseTimeToLive_FullMethodName: func(w *walk, _ rights.Caller) asking {
		lease := w.lease()
		if w.r.IntN(3) == 0 {
			return asking{request: &pb.LeaseTimeToLiveRequest{ID: int64(lease)}, judge: w.anyUser}
		}
		return asking{request: &pb.LeaseTimeToLiveRequest{ID: int64(lease), Keys: true}, judge: func(who rights.Caller) error {
			return w.oracle.LeaseRead(who, lease, w.attached)
		}}
	},
	pb.Lease_LeaseLeases_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return asking{request: &pb.LeaseLeasesRequest{}, judge: func(who rights.Caller) error {
			for _, lease := range w.leases {
				if err := w.oracle.LeaseRead(who, lease, w.attached); err != nil {
					return err
				}
			}
			return w.oracle.AnyUser(who)
		}}
	},

	pb.Cluster_MemberList_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return asking{request: &pb.MemberListRequest{Linearizable: w.r.IntN(2) == 0}, judge: w.anyUser}
	},
	pb.Cluster_MemberAdd_FullMethodName: func(w *walk, _ rights.Caller) asking { // of a URL that is taken
		return w.asRoot(&pb.MemberAddRequest{PeerURLs: w.m.member.Members()[0].PeerURLs, IsLearner: w.r.IntN(2) == 0})
	},
	pb.Cluster_MemberRemove_FullMethodName: func(w *walk, who rights.Caller) asking {
		return w.asRoot(&pb.MemberRemoveRequest{ID: w.self(who)})
	},
	pb.Cluster_MemberUpdate_FullMethodName: func(w *walk, who rights.Caller) asking {
		return w.asRoot(&pb.MemberUpdateRequest{ID: w.self(who), PeerURLs: []string{"http://127.0.0.1:1"}})
	},
	pb.Cluster_MemberPromote_FullMethodName: func(w *walk, who rights.Caller) asking {
		return w.asRoot(&pb.MemberPromoteRequest{ID: w.self(who)})
	},

	pb.Maintenance_Alarm_FullMethodName: func(w *walk, who rights.Caller) asking {
		if w.r.IntN(2) == 0 {
			return asking{request: &pb.AlarmRequest{Action: pb.AlarmRequest_GET}, judge: w.anyUser}
		}
		r := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 1}
		if w.harmless(who) && w.r.IntN(2) == 0 {
			r.Action = pb.AlarmRequest_ACTIVATE
		}
		return w.asRoot(r)
	},
	pb.Maintenance_Status_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return asking{request: &pb.StatusRequest{}, judge: w.anyUser}
	},
	pb.Maintenance_Defragment_FullMethodName: func(w *walk, _ rights.Caller) asking { return w.asRoot(&pb.DefragmentRequest{}) },
	pb.Maintenance_Hash_FullMethodName:       func(w *walk, _ rights.Caller) asking { return w.asRoot(&pb.HashRequest{}) },
	pb.Maintenance_HashKV_FullMethodName:     func(w *walk, _ rights.Caller) asking { return w.asRoot(&pb.HashKVRequest{}) },
	pb.Maintenance_Snapshot_FullMethodName:   func(w *walk, _ rights.Caller) asking { return w.asRoot(&pb.SnapshotRequest{}) },
	pb.Maintenance_MoveLeader_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return w.asRoot(&pb.MoveLeaderRequest{TargetID: 1})
	},
	pb.Maintenance_Downgrade_FullMethodName: func(w *walk, who rights.Caller) asking {
		action := pb.DowngradeRequest_DowngradeAction(w.r.IntN(3))
		if action == pb.DowngradeRequest_ENABLE && !w.harmless(who) {
			action = pb.DowngradeRequest_VALIDATE
		}
		return w.asRoot(&pb.DowngradeRequest{Action: action, Version: "3.6"})
	},

	pb.Auth_Authenticate_FullMethodName: func(w *walk, _ rights.Caller) asking {
		user := w.user()
		r := &pb.AuthenticateRequest{Name: user, Password: passwordOf(user)}
		if w.r.IntN(4) == 0 {
			r.Password = "another"
		}
		return asking{request: r, anybodys: true, done: func(answer []byte) { w.note(user, answer) }}
	},
	pb.Auth_AuthStatus_FullMethodName: func(*walk, rights.Caller) asking { return asking{request: &pb.AuthStatusRequest{}} },
	pb.Auth_AuthEnable_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return w.changes(&pb.AuthEnableRequest{}, &command.AuthEnable{})
	},
	pb.Auth_AuthDisable_FullMethodName: func(w *walk, _ rights.Caller) asking {
		return w.changes(&pb.AuthDisableRequest{}, &command.AuthDisable{})
	},
	pb.Auth_UserAdd_FullMethodName: func(w *walk, _ rights.Caller) asking {
		user := w.user()
		return w.changes(&pb.AuthUserAddRequest{Name: user, Password: passwordOf(user)}, &command.UserAdd{Name: user})
	},
	pb.Auth_UserGet_FullMethodName: func(w *walk, _ rights.Caller) asking {
		user := w.user()
		return asking{request: &pb.AuthUserGetRequest{Name: user}, judge: func(who rights.Caller) error {
			if err := w.oracle.Admin(who); who.User != user {
				return err
			}
			return nil
		}}
	},
	pb.Auth_UserList_FullMethodName: func(w *walk, _ rights.Caller) asking { return w.asRoot(&pb.AuthUserListRequest{}) },
	pb.Auth_UserDelete_FullMethodName: func(w *walk, who rights.Caller) asking {
		user := w.lasting(who, w.user())
		return w.changes(&pb.AuthUserDeleteRequest{Name: user}, &command.UserDelete{Name: user})
	},
	pb.Auth_UserChangePassword_FullMethodName: func(w *walk, _ rights.Caller) asking { // to the same: tokens end all the same
		user := w.user()
		return w.changes(&pb.AuthUserChangePasswordRequest{Name: user, Password: passwordOf(user)}, &command.UserPassword{Name: user})
	},
	pb.Auth_UserGrantRole_FullMethodName: func(w *walk, _ rights.Caller) asking {
		user, role := w.user(), w.role()
		if w.r.IntN(30) == 0 {
			role = rights.Root
		}
		return w.changes(&pb.AuthUserGrantRoleRequest{User: user, Role: role}, &command.UserGrantRole{User: user, Role: role})
	},
	pb.Auth_UserRevokeRole_FullMethodName: func(w *walk, _ rights.Caller) asking {
		user, role := w.user(), w.role()
		if w.r.IntN(2) == 0 {
			role = rights.Root
		}
		return w.changes(&pb.AuthUserRevokeRoleRequest{Name: user, Role: role}, &command.UserRevokeRole{User: user, Role: role})
	},
	pb.Auth_RoleAdd_FullMethodName: func(w *walk, _ rights.Caller) asking {
		role := w.role()
		return w.changes(&pb.AuthRoleAddRequest{Name: role}, &command.RoleAdd{Name: role})
	},
	pb.Auth_RoleGet_FullMethodName: func(w *walk, _ rights.Caller) asking {
		role := w.role()
		return asking{request: &pb.AuthRoleGetRequest{Role: role}, judge: func(who rights.Caller) error {
			for _, held := range w.oracle.Users[who.User].Roles {
				if held == role {
					return nil
				}
			}
			return w.oracle.Admin(who)
		}}
	},
	pb.Auth_RoleList_FullMethodName: func(w *walk, _ rights.Caller) asking { return w.asRoot(&pb.AuthRoleListRequest{}) },
	pb.Auth_RoleDelete_FullMethodName: func(w *walk, who rights.Caller) asking {
		role := w.lasting(who, w.role())
		return w.changes(&pb.AuthRoleDeleteRequest{Role: role}, &command.RoleDelete{Name: role})
	},
	pb.Auth_RoleGrantPermission_FullMethodName: func(w *walk, _ rights.Caller) asking {
		role, r := w.role(), w.draws.Range(0)
		if w.r.IntN(3) > 0 { // who has little is refused for more reasons
			r.End = nil
		}
		kind := w.kindOf(role)
		return w.changes(&pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{PermType: authpb.Permission_Type(kind), Key: r.Key, RangeEnd: r.End}},
			&command.RoleGrant{Role: role, Given: true, Permission: command.Permission{Type: kind, Key: r.Key, End: r.End}})
	},
	pb.Auth_RoleRevokePermission_FullMethodName: func(w *walk, _ rights.Caller) asking {
		role, r := w.role(), w.draws.Range(0)
		if list := w.oracle.Roles[role]; len(list) > 0 {
			one := list[w.r.IntN(len(list))]
			r.Key, r.End = one.Key, one.End
		}
		return w.changes(&pb.AuthRoleRevokePermissionRequest{Role: role, Key: r.Key, RangeEnd: r.End}, &command.RoleRevoke{Role: role, Key: r.Key, End: r.End})
	},

	concurrencypb.LockMethod: func(w *walk, who rights.Caller) asking {
		name, lease := w.line(), w.lineLease(who)
		return w.enters(name, lease, &concurrencypb.LockRequest{Name: name, Lease: int64(lease)})
	},
	concurrencypb.UnlockMethod: func(w *walk, _ rights.Caller) asking {
		key := w.key()
		return asking{request: modern(&concurrencypb.UnlockRequest{Key: key}), judge: w.touches(rights.Demand{Write: []rights.Span{{Key: key}}, Any: true})}
	},
	concurrencypb.CampaignMethod: func(w *walk, who rights.Caller) asking {
		name, lease := w.line(), w.lineLease(who)
		return w.enters(name, lease, &concurrencypb.CampaignRequest{Name: name, Lease: int64(lease), Value: []byte("me")})
	},
	concurrencypb.ProclaimMethod: func(w *walk, who rights.Caller) asking {
		put := &command.PutRequest{Key: w.key(), Lease: w.lineLease(who)}
		d := rights.Of(put, w.attached)
		d.Read = append(d.Read, rights.Span{Key: put.Key})
		return asking{request: modern(&concurrencypb.ProclaimRequest{Leader: &concurrencypb.LeaderKey{Key: put.Key, Lease: int64(put.Lease)}}), judge: w.touches(d)}
	},
	concurrencypb.ResignMethod: func(w *walk, _ rights.Caller) asking {
		own := []rights.Span{{Key: w.key()}}
		return asking{request: modern(&concurrencypb.ResignRequest{Leader: &concurrencypb.LeaderKey{Key: own[0].Key}}), judge: w.touches(rights.Demand{Read: own, Write: own, Any: true})}
	},
	concurrencypb.LeaderMethod:  func(w *walk, _ rights.Caller) asking { return w.looksAt(w.line()) },
	concurrencypb.ObserveMethod: func(w *walk, _ rights.Caller) asking { return w.looksAt(w.elected()) },

	"/" + healthpb.Health_ServiceDesc.ServiceName + "/Check": anybodys(&healthpb.HealthCheckRequest{}),
	"/" + healthpb.Health_ServiceDesc.ServiceName + "/List":  anybodys(&healthpb.HealthListRequest{}),
	"/" + healthpb.Health_ServiceDesc.ServiceName + "/Watch": anybodys(&healthpb.HealthCheckRequest{}),
}

// anybodys is a call that nobody is asked anything for.
func anybodys(request proto.Message) func(*walk, rights.Caller) asking {
	return func(*walk, rights.Caller) asking { return asking{request: request, anybodys: true} }
}

// modern makes a message of today's interface of a handwritten one.
func modern(m protoadapt.MessageV1) proto.Message { return protoadapt.MessageV2Of(m) }

func (w *walk) anyUser(who rights.Caller) error { return w.oracle.AnyUser(who) }

// asRoot asks for the role root.
func (w *walk) asRoot(request proto.Message) asking {
	return asking{request: request, judge: func(who rights.Caller) error { return w.oracle.Admin(who) }}
}

// changes is a change of users and roles.
func (w *walk) changes(request proto.Message, body command.Body) asking {
	a := w.asRoot(request)
	a.done = func([]byte) { w.obey(body) }
	return a
}

// touches asks for keys.
func (w *walk) touches(d rights.Demand) func(rights.Caller) error {
	return func(who rights.Caller) error { return w.oracle.Keys(who, d) }
}

// aboutKeys draws requests until one is of a good shape: who sends another one is told
// so, whoever he is.
func (w *walk) aboutKeys(draw func() any) asking {
	w.draws.Leases = w.leases
	request := draw()
	for model.Validate(request) != nil {
		request = draw()
	}
	return asking{request: kvhistory.Message(request, w.r.Uint64()), judge: func(who rights.Caller) error {
		return w.oracle.Keys(who, rights.Of(request, w.attached))
	}}
}

// put draws one that now and then joins a lease.
func (w *walk) put() *command.PutRequest {
	p := w.draws.Put()
	if !p.IgnoreLease && w.r.IntN(2) == 0 {
		p.Lease = w.lease()
	}
	return p
}

// txn draws any one, or one operation as deep as the check has to look for it.
func (w *walk) txn() any {
	if w.r.IntN(3) == 0 {
		return w.draws.Txn(w.revision())
	}
	op := command.Op{Put: w.put()}
	switch w.r.IntN(4) {
	case 0:
		op = command.Op{Range: w.draws.Range(w.revision())}
	case 1:
		op = command.Op{Delete: w.draws.DeleteRange()}
	}
	for range w.r.IntN(3) {
		op = command.Op{Txn: w.around(op)}
	}
	return w.around(op)
}

// around is a txn of one operation, in either branch.
func (w *walk) around(op command.Op) *command.TxnRequest {
	if w.r.IntN(2) == 0 {
		return &command.TxnRequest{Success: []command.Op{op}}
	}
	return &command.TxnRequest{Failure: []command.Op{op}}
}

// harmless says that whatever this caller asks as root he is refused.
func (w *walk) harmless(who rights.Caller) bool {
	return w.oracle.Enabled && w.oracle.Admin(who) != nil
}

// self is the member for those who may not touch it, another one for others.
func (w *walk) self(who rights.Caller) uint64 {
	if w.harmless(who) {
		return uint64(w.m.member.Members()[0].ID)
	}
	return 1
}

func (w *walk) revision() id.Revision { return w.m.member.Revision() }

// user and role draw names; root's own user stays as it is.
func (w *walk) user() string { return []string{"ann", "bob", "cleo"}[w.r.IntN(3)] }

func (w *walk) role() string { return fmt.Sprint("role", w.r.IntN(3)) }

// kindOf draws a permission of a role: the first is for those who only write, the second
// for those who only read.
func (w *walk) kindOf(role string) command.PermissionType {
	switch role {
	case "role0":
		return command.PermitWrite
	case "role1":
		return command.PermitRead
	}
	return command.PermissionType(w.r.IntN(3))
}

// lasting is mostly another name than the one that would be taken away: else there would
// soon be nobody with rights.
func (w *walk) lasting(who rights.Caller, name string) string {
	if !w.harmless(who) && w.r.IntN(5) > 0 {
		return "nothing"
	}
	return name
}

// lease draws one of a few leases, mostly one on which somebody else's key hangs, now and
// then one that is not there.
func (w *walk) lease() id.Lease {
	if len(w.leases) == 0 || w.r.IntN(8) == 0 {
		return 404
	}
	lease := w.leases[w.r.IntN(min(len(w.leases), 3))]
	if w.r.IntN(2) == 0 {
		w.byRoot(pb.KV_Put_FullMethodName, &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", w.r.IntN(8)), Lease: int64(lease)})
	}
	return lease
}

// lineLease draws one that is there, for a place in a line. Nobody, who is refused
// anyway, asks for one to be granted.
func (w *walk) lineLease(who rights.Caller) id.Lease {
	if w.oracle.Enabled && who.User == "" {
		return 0
	}
	if len(w.leases) == 0 {
		grant := w.grants()
		grant.done(w.byRoot(pb.Lease_LeaseGrant_FullMethodName, grant.request))
	}
	return w.leases[w.r.IntN(len(w.leases))]
}

// grants asks for a lease.
func (w *walk) grants() asking {
	return asking{request: &pb.LeaseGrantRequest{TTL: 100_000}, judge: w.anyUser, done: func(answer []byte) {
		var r pb.LeaseGrantResponse
		if err := proto.Unmarshal(answer, &r); err != nil {
			w.t.Fatal(err)
		}
		w.leases = append(w.leases, id.Lease(r.ID))
	}}
}

// writesLease ends or renews a lease.
func (w *walk) writesLease(lease id.Lease, request proto.Message) asking {
	return asking{request: request, judge: func(who rights.Caller) error { return w.oracle.LeaseWrite(who, lease, w.attached) }}
}

func (w *walk) key() []byte { return w.draws.DeleteRange().Key }

// line draws the name of a line in which nobody waits, among the keys that rights are
// about: no permission begins or ends inside it.
func (w *walk) line() []byte {
	w.lines++
	return fmt.Appendf(nil, "k%02d.%d", w.r.IntN(8), w.lines)
}

// enters asks for a place in a line: it looks at the line's keys and puts one of them.
func (w *walk) enters(name []byte, lease id.Lease, request protoadapt.MessageV1) asking {
	d := rights.Of(&command.PutRequest{Key: append(name[:len(name):len(name)], '/'), Lease: lease}, w.attached)
	d.Read = append(d.Read, lineSpan(name))
	return asking{request: modern(request), judge: w.touches(d)}
}

// elected is a line that has a leader.
func (w *walk) elected() []byte {
	name := w.line()
	w.byRoot(pb.KV_Put_FullMethodName, &pb.PutRequest{Key: append(name[:len(name):len(name)], "/0"...)})
	return name
}

func lineSpan(name []byte) rights.Span {
	n := len(name)
	return rights.Span{Key: append(name[:n:n], '/'), End: append(name[:n:n], '0')}
}

// looksAt asks who leads.
func (w *walk) looksAt(name []byte) asking {
	return asking{request: modern(&concurrencypb.LeaderRequest{Name: name}), judge: w.touches(rights.Demand{Read: []rights.Span{lineSpan(name)}, Any: true})}
}
