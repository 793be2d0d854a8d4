package concurrencypb

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// LockServer is the service v3lockpb.Lock.
type LockServer interface {
	Lock(context.Context, *LockRequest) (*LockResponse, error)
	Unlock(context.Context, *UnlockRequest) (*UnlockResponse, error)
}

// The full names of its methods.
const (
	LockService  = "v3lockpb.Lock"
	LockMethod   = "/" + LockService + "/Lock"
	UnlockMethod = "/" + LockService + "/Unlock"
)

var lockDesc = grpc.ServiceDesc{
	ServiceName: LockService, HandlerType: (*LockServer)(nil), Metadata: "v3lock.proto",
	Methods: []grpc.MethodDesc{
		unary(LockService, "Lock", LockServer.Lock),
		unary(LockService, "Unlock", LockServer.Unlock),
	},
}

// RegisterLockServer adds the service to a server.
func RegisterLockServer(to grpc.ServiceRegistrar, s LockServer) { to.RegisterService(&lockDesc, s) }

// LockRequest asks for the lock of a name, to be held as long as a lease lasts.
type LockRequest struct {
	Name  []byte `protobuf:"bytes,1,opt,name=name,proto3"`
	Lease int64  `protobuf:"varint,2,opt,name=lease,proto3"`
}

// LockResponse names the key that exists as long as the lock is held.
type LockResponse struct {
	Header *pb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Key    []byte             `protobuf:"bytes,2,opt,name=key,proto3"`
}

// UnlockRequest gives a lock up by its key.
type UnlockRequest struct {
	Key []byte `protobuf:"bytes,1,opt,name=key,proto3"`
}

// UnlockResponse answers it.
type UnlockResponse struct {
	Header *pb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
}

// What makes messages of them.

func (m *LockRequest) Reset()                { *m = LockRequest{} }
func (m *LockRequest) String() string        { return text(m) }
func (*LockRequest) ProtoMessage()           {}
func (*LockRequest) XXX_MessageName() string { return "v3lockpb.LockRequest" }

func (m *LockResponse) Reset()                { *m = LockResponse{} }
func (m *LockResponse) String() string        { return text(m) }
func (*LockResponse) ProtoMessage()           {}
func (*LockResponse) XXX_MessageName() string { return "v3lockpb.LockResponse" }

func (m *UnlockRequest) Reset()                { *m = UnlockRequest{} }
func (m *UnlockRequest) String() string        { return text(m) }
func (*UnlockRequest) ProtoMessage()           {}
func (*UnlockRequest) XXX_MessageName() string { return "v3lockpb.UnlockRequest" }

func (m *UnlockResponse) Reset()                { *m = UnlockResponse{} }
func (m *UnlockResponse) String() string        { return text(m) }
func (*UnlockResponse) ProtoMessage()           {}
func (*UnlockResponse) XXX_MessageName() string { return "v3lockpb.UnlockResponse" }
