package rpc

import (
	"crypto/tls"
	"math"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // compressed messages are taken, and answered in kind (spec 1.1)
	"google.golang.org/grpc/keepalive"
)

// Limits of the gRPC server, as the flags of the same names set them.
type Limits struct {
	// MaxRequestBytes is the largest command; messages may be grpcOverhead larger
	// (spec/v3-api.md 1.5).
	MaxRequestBytes      int
	MaxConcurrentStreams uint32
	// PingMinimum, PingInterval and PingTimeout are grpc-keepalive-*.
	PingMinimum, PingInterval, PingTimeout time.Duration
	// AnswerBytes bounds the answers in flight, made and not sent yet, of all
	// connections together (default 32 MB). grpc-go's server does not know it.
	AnswerBytes int
	// Slow says which unary calls are told as slow.
	Slow SlowLimits
	// Tracer, when set, makes spans of calls.
	Tracer Tracer
	// GRPCGo has New make grpc-go's server instead of ours.
	GRPCGo bool
}

// New makes the server that limits asks for, with the checks that run before every
// method.
func New(limits Limits, unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) Body {
	if limits.GRPCGo {
		return NewGRPCGo(limits, unary, stream)
	}
	return NewServer(limits, unary, stream)
}

// grpcOverhead is what a message may be larger than the largest command, so that
// the sender of a command a little too large reads etcd's own refusal.
const grpcOverhead = 512 << 10

// streamWorkers goroutines serve calls one after the other; calls beyond as many
// at once get a goroutine of their own.
const streamWorkers = 1024

// NewGRPCGo makes grpc-go's server, with the checks that run before every method: the
// body that ours is compared with, and can be replaced by.
func NewGRPCGo(limits Limits, unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) *GRPCGo {
	stats := newStats(limits)
	return &GRPCGo{stats: stats, Server: grpc.NewServer(
		grpc.MaxRecvMsgSize(limits.MaxRequestBytes+grpcOverhead),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.Creds(shaken{insecure.NewCredentials()}),
		grpc.ConnectionTimeout(sniff),
		grpc.MaxConcurrentStreams(limits.MaxConcurrentStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: limits.PingMinimum}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: limits.PingInterval, Timeout: limits.PingTimeout}),
		// A put waits for a sync with a grown stack: goroutines that stay keep theirs.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.UnaryInterceptor(stats.unary(unary)),
		grpc.StreamInterceptor(stats.stream(stream)),
	)}
}

// shaken are the credentials of connections whose handshake is behind them: what a
// client's certificate says is told as it is by our own server.
type shaken struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (s shaken) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if state, ok := tlsState(nc); ok {
		return nc, tlsInfo(state), nil
	}
	return s.TransportCredentials.ServerHandshake(nc)
}

// Clone implements credentials.TransportCredentials.
func (s shaken) Clone() credentials.TransportCredentials { return s }

func tlsInfo(state tls.ConnectionState) credentials.TLSInfo {
	return credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
}

// GRPCGo is grpc-go's server with our counts.
type GRPCGo struct {
	*grpc.Server
	stats *Stats
}

// RegisterService adds a service; it is called before Serve.
func (g *GRPCGo) RegisterService(desc *grpc.ServiceDesc, impl any) {
	g.stats.register(desc)
	g.Server.RegisterService(desc, impl)
}

// Stats are the counts of its calls.
func (g *GRPCGo) Stats() *Stats { return g.stats }
