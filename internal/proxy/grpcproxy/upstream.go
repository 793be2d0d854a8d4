package grpcproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/internal/tlsfiles"
)

// Upstream says how the cluster is reached.
type Upstream struct {
	Endpoints []string
	// AutoSync is how often the endpoints are replaced by those that the members
	// publish; 0 is never.
	AutoSync                        time.Duration
	KeepAliveTime, KeepAliveTimeout time.Duration
	PermitWithoutStream             bool
	MaxSendBytes, MaxRecvBytes      int
	// TLS is nil for clear text. Endpoints that say http are in clear text all the same.
	TLS func() *tls.Config
}

// Connect makes the client. It does not wait for a member to answer.
func (u Upstream) Connect() (*clientv3.Client, error) {
	creds := insecure.NewCredentials()
	if u.TLS != nil {
		creds = freshTLS{credentials.NewTLS(u.TLS()), u.TLS}
	}
	return clientv3.New(clientv3.Config{
		Endpoints: u.Endpoints, AutoSyncInterval: u.AutoSync,
		DialKeepAliveTime: u.KeepAliveTime, DialKeepAliveTimeout: u.KeepAliveTimeout, PermitWithoutStream: u.PermitWithoutStream,
		MaxCallSendMsgSize: u.MaxSendBytes, MaxCallRecvMsgSize: u.MaxRecvBytes,
		Logger: zap.NewNop(), // what fails is told to whoever called
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(creds),
			grpc.WithConnectParams(grpc.ConnectParams{
				// A member that comes back is noticed within a second, however long it was away.
				Backoff:           backoff.Config{BaseDelay: brief, Multiplier: 1.6, Jitter: 0.2, MaxDelay: long},
				MinConnectTimeout: asking,
			}),
			grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(u.MaxSendBytes), grpc.MaxCallRecvMsgSize(u.MaxRecvBytes)),
		},
	})
}

// Secure says whether endpoints are to be spoken to in TLS: by their scheme, or if that
// says nothing, if there is anything to do it with.
func Secure(endpoints []string, files *tlsfiles.Files) bool {
	for _, e := range endpoints {
		switch scheme, _, has := strings.Cut(e, "://"); {
		case !has:
		case scheme == "https" || scheme == "unixs":
			return true
		default:
			return false
		}
	}
	return !files.Empty() || files.TrustedCAFile != "" || files.SkipVerify
}

// Nameless is the configuration of each next connection, with a certificate that must
// have no common name: the cluster would take the name for a user, and whoever calls
// without a token would be him.
func Nameless(files *tlsfiles.Files) (func() *tls.Config, error) {
	next, err := files.Client()
	if err != nil {
		return nil, err
	}
	check := func(cert *tls.Certificate) error {
		if name := cert.Leaf.Subject.CommonName; name != "" {
			return fmt.Errorf("cert has non empty Common Name (%s): %s", name, files.CertFile)
		}
		return nil
	}
	if get := next().GetClientCertificate; get != nil {
		cert, err := get(nil)
		if err == nil {
			err = check(cert)
		}
		if err != nil {
			return nil, err
		}
	}
	return func() *tls.Config {
		cfg := next()
		if get := cfg.GetClientCertificate; get != nil {
			cfg.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				cert, err := get(r)
				if err == nil {
					err = check(cert) // the file may have been replaced since
				}
				return cert, err
			}
		}
		return cfg
	}, nil
}

// freshTLS takes the files as they are at each handshake.
type freshTLS struct {
	credentials.TransportCredentials
	next func() *tls.Config
}

// ClientHandshake implements credentials.TransportCredentials.
func (f freshTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(f.next()).ClientHandshake(ctx, authority, raw)
}

// Clone implements credentials.TransportCredentials.
func (f freshTLS) Clone() credentials.TransportCredentials { return f }

// Patient is a connection on which calls wait for a moment where no member is connected:
// a cluster that is just coming back is not told of as one that is away. After that they
// fail as they would have at once. Calls that were sent are never sent again.
type Patient struct{ *grpc.ClientConn }

// reconnecting is how long they wait.
const reconnecting = 2 * time.Second

// Invoke implements grpc.ClientConnInterface.
func (p Patient) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	p.wait(ctx)
	return p.ClientConn.Invoke(ctx, method, in, out, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (p Patient) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	p.wait(ctx)
	return p.ClientConn.NewStream(ctx, desc, method, opts...)
}

func (p Patient) wait(ctx context.Context) {
	state := p.GetState()
	if state == connectivity.Ready {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reconnecting)
	defer cancel()
	for ; state != connectivity.Ready && state != connectivity.Shutdown; state = p.GetState() {
		if state == connectivity.Idle {
			p.Connect()
		}
		if !p.WaitForStateChange(ctx, state) {
			return
		}
	}
}
