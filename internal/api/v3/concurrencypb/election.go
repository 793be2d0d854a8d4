package concurrencypb

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// ElectionServer is the service v3electionpb.Election.
type ElectionServer interface {
	Campaign(context.Context, *CampaignRequest) (*CampaignResponse, error)
	Proclaim(context.Context, *ProclaimRequest) (*ProclaimResponse, error)
	Leader(context.Context, *LeaderRequest) (*LeaderResponse, error)
	Observe(*LeaderRequest, grpc.ServerStreamingServer[LeaderResponse]) error
	Resign(context.Context, *ResignRequest) (*ResignResponse, error)
}

// The full names of its methods.
const (
	ElectionService = "v3electionpb.Election"
	CampaignMethod  = "/" + ElectionService + "/Campaign"
	ProclaimMethod  = "/" + ElectionService + "/Proclaim"
	LeaderMethod    = "/" + ElectionService + "/Leader"
	ObserveMethod   = "/" + ElectionService + "/Observe"
	ResignMethod    = "/" + ElectionService + "/Resign"
)

var electionDesc = grpc.ServiceDesc{
	ServiceName: ElectionService, HandlerType: (*ElectionServer)(nil), Metadata: "v3election.proto",
	Methods: []grpc.MethodDesc{
		unary(ElectionService, "Campaign", ElectionServer.Campaign),
		unary(ElectionService, "Proclaim", ElectionServer.Proclaim),
		unary(ElectionService, "Leader", ElectionServer.Leader),
		unary(ElectionService, "Resign", ElectionServer.Resign),
	},
	Streams: []grpc.StreamDesc{{StreamName: "Observe", ServerStreams: true, Handler: observe}},
}

// observe serves a call of the one method with many answers.
func observe(server any, stream grpc.ServerStream) error {
	in := new(LeaderRequest)
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	to := &grpc.GenericServerStream[LeaderRequest, LeaderResponse]{ServerStream: stream}
	return server.(ElectionServer).Observe(in, to)
}

// RegisterElectionServer adds the service to a server.
func RegisterElectionServer(to grpc.ServiceRegistrar, s ElectionServer) {
	to.RegisterService(&electionDesc, s)
}

// LeaderKey is what a leader was elected with, and proves itself by. Rev is the
// revision in which Key was created.
type LeaderKey struct {
	Name  []byte `protobuf:"bytes,1,opt,name=name,proto3"`
	Key   []byte `protobuf:"bytes,2,opt,name=key,proto3"`
	Rev   int64  `protobuf:"varint,3,opt,name=rev,proto3"`
	Lease int64  `protobuf:"varint,4,opt,name=lease,proto3"`
}

// CampaignRequest stands for election under a name, with a value for others to read.
type CampaignRequest struct {
	Name  []byte `protobuf:"bytes,1,opt,name=name,proto3"`
	Lease int64  `protobuf:"varint,2,opt,name=lease,proto3"`
	Value []byte `protobuf:"bytes,3,opt,name=value,proto3"`
}

// CampaignResponse says that the caller was elected.
type CampaignResponse struct {
	Header *pb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Leader *LeaderKey         `protobuf:"bytes,2,opt,name=leader,proto3"`
}

// ProclaimRequest changes the leader's value.
type ProclaimRequest struct {
	Leader *LeaderKey `protobuf:"bytes,1,opt,name=leader,proto3"`
	Value  []byte     `protobuf:"bytes,2,opt,name=value,proto3"`
}

// ProclaimResponse answers it.
type ProclaimResponse struct {
	Header *pb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
}

// ResignRequest ends a leadership.
type ResignRequest struct {
	Leader *LeaderKey `protobuf:"bytes,1,opt,name=leader,proto3"`
}

// ResignResponse answers it.
type ResignResponse struct {
	Header *pb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
}

// LeaderRequest asks who leads under a name, once or until the caller leaves.
type LeaderRequest struct {
	Name []byte `protobuf:"bytes,1,opt,name=name,proto3"`
}

// LeaderResponse is the leader's key with its value.
type LeaderResponse struct {
	Header *pb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Kv     *mvccpb.KeyValue   `protobuf:"bytes,2,opt,name=kv,proto3"`
}

// What makes messages of them.

func (m *LeaderKey) Reset()                { *m = LeaderKey{} }
func (m *LeaderKey) String() string        { return text(m) }
func (*LeaderKey) ProtoMessage()           {}
func (*LeaderKey) XXX_MessageName() string { return "v3electionpb.LeaderKey" }

func (m *CampaignRequest) Reset()                { *m = CampaignRequest{} }
func (m *CampaignRequest) String() string        { return text(m) }
func (*CampaignRequest) ProtoMessage()           {}
func (*CampaignRequest) XXX_MessageName() string { return "v3electionpb.CampaignRequest" }

func (m *CampaignResponse) Reset()                { *m = CampaignResponse{} }
func (m *CampaignResponse) String() string        { return text(m) }
func (*CampaignResponse) ProtoMessage()           {}
func (*CampaignResponse) XXX_MessageName() string { return "v3electionpb.CampaignResponse" }

func (m *ProclaimRequest) Reset()                { *m = ProclaimRequest{} }
func (m *ProclaimRequest) String() string        { return text(m) }
func (*ProclaimRequest) ProtoMessage()           {}
func (*ProclaimRequest) XXX_MessageName() string { return "v3electionpb.ProclaimRequest" }

func (m *ProclaimResponse) Reset()                { *m = ProclaimResponse{} }
func (m *ProclaimResponse) String() string        { return text(m) }
func (*ProclaimResponse) ProtoMessage()           {}
func (*ProclaimResponse) XXX_MessageName() string { return "v3electionpb.ProclaimResponse" }

func (m *ResignRequest) Reset()                { *m = ResignRequest{} }
func (m *ResignRequest) String() string        { return text(m) }
func (*ResignRequest) ProtoMessage()           {}
func (*ResignRequest) XXX_MessageName() string { return "v3electionpb.ResignRequest" }

func (m *ResignResponse) Reset()                { *m = ResignResponse{} }
func (m *ResignResponse) String() string        { return text(m) }
func (*ResignResponse) ProtoMessage()           {}
func (*ResignResponse) XXX_MessageName() string { return "v3electionpb.ResignResponse" }

func (m *LeaderRequest) Reset()                { *m = LeaderRequest{} }
func (m *LeaderRequest) String() string        { return text(m) }
func (*LeaderRequest) ProtoMessage()           {}
func (*LeaderRequest) XXX_MessageName() string { return "v3electionpb.LeaderRequest" }

func (m *LeaderResponse) Reset()                { *m = LeaderResponse{} }
func (m *LeaderResponse) String() string        { return text(m) }
func (*LeaderResponse) ProtoMessage()           {}
func (*LeaderResponse) XXX_MessageName() string { return "v3electionpb.LeaderResponse" }
