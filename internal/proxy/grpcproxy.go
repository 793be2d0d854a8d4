package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/api/metrics"
	"github.com/kvorum/kvorum/internal/api/ops"
	"github.com/kvorum/kvorum/internal/proxy/grpcproxy"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/telemetry"
	"github.com/kvorum/kvorum/internal/tlsfiles"
)

// grpcProxyFlags are those of `etcd grpc-proxy start` (spec/server-ops.md 9).
type grpcProxyFlags struct {
	place
	metrics, dataDir             string
	advertise, prefix, namespace string
	ttl                          int64
	up                           grpcproxy.Upstream
	members, clients             tlsfiles.Files
	autoTLS                      bool
	years                        uint
	limits                       rpc.Limits
	ordering                     bool
	leasing                      string
	profiles, debug, logCalls    bool
}

func grpcProxyCommand(logs io.Writer) *cobra.Command {
	var f grpcProxyFlags
	return startCommand("grpc-proxy", "Answer for a cluster, and spare it what many clients ask for alike.", "Start the proxy.", f.register, func(ctx context.Context) error {
		level := slog.LevelInfo
		if f.debug {
			level = slog.LevelDebug
		}
		return f.run(ctx, telemetry.New(logs, time.Now, telemetry.JSON, level))
	})
}

// register declares the flags.
func (f *grpcProxyFlags) register(flags *pflag.FlagSet) {
	f.place.register(flags, &f.up.Endpoints)
	flags.StringVar(&f.metrics, "metrics-addr", "", "URL of a further listener for health and metrics")
	flags.StringVar(&f.dataDir, "data-dir", "default.proxy", "directory that --auto-tls keeps its certificate in")
	flags.DurationVar(&f.up.AutoSync, "endpoints-auto-sync-interval", 0, "how often the endpoints are replaced by those that the members publish; 0 is never")
	flags.DurationVar(&f.up.KeepAliveTime, "dial-keepalive-time", 0, "how long a connection to the cluster may be silent before a ping; 0 is no pings")
	flags.DurationVar(&f.up.KeepAliveTimeout, "dial-keepalive-timeout", 20*time.Second, "how long the answer to such a ping may take")
	flags.BoolVar(&f.up.PermitWithoutStream, "permit-without-stream", false, "send pings when no call is open, too")
	flags.IntVar(&f.up.MaxSendBytes, "max-send-bytes", 1536<<10, "largest message that is sent to the cluster, in bytes")
	flags.IntVar(&f.up.MaxRecvBytes, "max-recv-bytes", math.MaxInt32, "largest message that is taken from the cluster, in bytes")

	flags.StringVar(&f.advertise, "advertise-client-url", "127.0.0.1:23790", "address that clients reach the proxy at")
	flags.StringVar(&f.prefix, "resolver-prefix", "", "prefix of the keys under which proxies register")
	flags.Int64Var(&f.ttl, "resolver-ttl", 0, "time to live of a registration, in seconds")
	flags.StringVar(&f.namespace, "namespace", "", "prefix of all keys, which clients do not see")

	flags.StringVar(&f.members.CertFile, "cert", "", "certificate that is shown to the members; it must have no common name")
	flags.StringVar(&f.members.KeyFile, "key", "", "its key")
	flags.StringVar(&f.members.TrustedCAFile, "cacert", "", "CA file that certificates of members are checked with")
	flags.BoolVar(&f.members.SkipVerify, "insecure-skip-tls-verify", false, "do not check certificates of members (for tests only)")

	flags.StringVar(&f.clients.CertFile, "cert-file", "", "certificate that is shown to clients")
	flags.StringVar(&f.clients.KeyFile, "key-file", "", "its key")
	flags.StringVar(&f.clients.TrustedCAFile, "trusted-ca-file", "", "CA file that certificates of clients, demanded then, are checked with")
	flags.StringVar(&f.clients.CRLFile, "client-crl-file", "", "list of revoked certificates of clients")
	flags.StringSliceVar(&f.clients.CipherSuites, "listen-cipher-suites", nil, "cipher suites that clients may use")
	flags.StringVar(&f.clients.MinVersion, "tls-min-version", "TLS1.2", "lowest TLS version that clients may use")
	flags.StringVar(&f.clients.MaxVersion, "tls-max-version", "", "highest TLS version that clients may use")
	flags.BoolVar(&f.autoTLS, "auto-tls", false, "show clients a certificate of the proxy's own making")
	flags.UintVar(&f.years, "self-signed-cert-validity", 1, "how many years that is valid")

	flags.DurationVar(&f.limits.PingMinimum, "grpc-keepalive-min-time", 5*time.Second, "shortest time between two pings of a client")
	flags.DurationVar(&f.limits.PingInterval, "grpc-keepalive-interval", 2*time.Hour, "how long a client may be silent before it is pinged")
	flags.DurationVar(&f.limits.PingTimeout, "grpc-keepalive-timeout", 20*time.Second, "how long its answer may take")
	flags.Uint32Var(&f.limits.MaxConcurrentStreams, "max-concurrent-streams", math.MaxUint32, "calls that a client may have open at a time")
	flags.BoolVar(&f.ordering, "experimental-serializable-ordering", false, "have reads that are not linearizable never go back in revisions")
	flags.StringVar(&f.leasing, "experimental-leasing-prefix", "", "not supported")
	flags.BoolVar(&f.profiles, "enable-pprof", false, "serve profiles under /debug/pprof/")
	flags.BoolVar(&f.debug, "debug", false, "log more")
	flags.BoolVar(&f.logCalls, "experimental-enable-grpc-logging", false, "log every call")
}

// check refuses what does not fit together.
func (f *grpcProxyFlags) check() error {
	switch {
	case f.leasing != "":
		return errors.New("--experimental-leasing-prefix is not supported: with it, keys would be shown from memory to users whose rights nobody has asked for")
	case f.prefix != "" && f.ttl < 1:
		return fmt.Errorf("invalid resolver-ttl %d", f.ttl)
	case f.prefix == "" && f.ttl > 0:
		return fmt.Errorf("invalid resolver-prefix %q", f.prefix)
	case f.prefix != "" && f.advertise == "":
		return fmt.Errorf("invalid advertise-client-url %q", f.advertise)
	case f.up.MaxSendBytes <= 0 || f.up.MaxRecvBytes <= 0:
		return errors.New("--max-send-bytes and --max-recv-bytes must be above zero")
	case f.autoTLS && !f.clients.Empty():
		return errors.New("--auto-tls makes a certificate: --cert-file and --key-file must not be given")
	}
	return nil
}

// run serves until ctx ends.
func (f *grpcProxyFlags) run(ctx context.Context, log *slog.Logger) error {
	if err := f.check(); err != nil {
		return err
	}
	if err := f.find(ctx, log); err != nil {
		return err
	}
	f.members.Log, f.clients.Log = log, log
	if grpcproxy.Secure(f.up.Endpoints, &f.members) {
		var err error
		if f.up.TLS, err = grpcproxy.Nameless(&f.members); err != nil {
			return err
		}
	}
	secure, err := f.shown()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	client, err := f.up.Connect()
	if err != nil {
		l.Close()
		return err
	}
	defer client.Close()
	s := &proxyServer{flags: f, client: client, secure: secure, log: log}
	return s.serve(ctx, l)
}

// find replaces the endpoints by those that DNS lists, if it is to be asked.
func (f *grpcProxyFlags) find(ctx context.Context, log *slog.Logger) error {
	if f.srv == "" {
		return nil
	}
	found, err := f.discover(ctx, f.members.TrustedCAFile, log)
	if err != nil {
		return err
	}
	f.up.Endpoints = nil
	for _, e := range found {
		if e.Secure != found[0].Secure {
			return fmt.Errorf("%s lists endpoints of TLS and of clear text: leave out --insecure-discovery, or the records of one kind", f.srv)
		}
		scheme := "http://"
		if e.Secure {
			scheme, f.members.ServerName = "https://", f.srv
		}
		f.up.Endpoints = append(f.up.Endpoints, scheme+e.Address)
	}
	return nil
}

// shown is the TLS of the listener; nil is clear text.
func (f *grpcProxyFlags) shown() (*tls.Config, error) {
	files := f.clients
	if f.autoTLS {
		made, err := tlsfiles.SelfSigned(filepath.Join(f.dataDir, "fixtures", "proxy"), []string{f.listen}, f.years)
		if err != nil {
			return nil, err
		}
		files.CertFile, files.KeyFile = made.CertFile, made.KeyFile
	}
	if files.Empty() {
		if files.TrustedCAFile != "" || files.CRLFile != "" {
			return nil, errors.New("--trusted-ca-file and --client-crl-file need --cert-file and --key-file, or --auto-tls")
		}
		return nil, nil
	}
	return files.Server("h2", "http/1.1")
}

// proxyServer is the process of a proxy.
type proxyServer struct {
	flags  *grpcProxyFlags
	client *clientv3.Client
	secure *tls.Config
	log    *slog.Logger
	// registration ends with the context of serve.
	registration sync.WaitGroup
}

// serve opens the doors, and closes them when ctx ends or one of them breaks.
func (s *proxyServer) serve(ctx context.Context, l net.Listener) error {
	f := s.flags
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	proxy := grpcproxy.New(grpcproxy.Options{
		Upstream: grpcproxy.Patient{ClientConn: s.client.ActiveConnection()}, Namespace: f.namespace, Ordering: f.ordering, FragmentBytes: f.up.MaxSendBytes, Members: s.join(ctx),
	})
	limits := f.limits
	limits.MaxRequestBytes = f.up.MaxSendBytes
	calls := rpc.NewServer(limits, s.logUnary(), s.logStream())
	proxy.Register(calls)
	web := s.web(proxy, calls)
	calls.ServeWeb(rpc.Web{Handler: web, Log: s.log})
	var pages []*http.Server
	serve := func(what string, do func() error) {
		go func() {
			if err := do(); ctx.Err() == nil {
				stop(fmt.Errorf("listener failed: %s: %w", what, err))
			}
		}()
	}
	open := func(l net.Listener, secure *tls.Config, endpoint string) net.Listener {
		return tlsfiles.Listen(l, tlsfiles.Serving{TLS: secure, Plain: secure == nil, Endpoint: endpoint, Log: s.log})
	}
	page := func(l net.Listener, handler http.Handler) {
		p := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
		pages = append(pages, p)
		serve(l.Addr().String(), func() error { return p.Serve(l) })
	}
	h2, h1 := rpc.Split(open(l, s.secure, "client"))
	serve(l.Addr().String(), func() error { return calls.Serve(h2) })
	page(h1, web)
	if f.metrics != "" {
		further, secure, err := s.listenMetrics()
		if err != nil {
			stop(err)
		} else {
			page(open(further, secure, "metrics"), web)
		}
	}
	if ctx.Err() == nil {
		s.log.Info("ready to proxy client requests", "address", l.Addr().String(), "endpoints", f.up.Endpoints, "secure", s.secure != nil, "namespace", f.namespace)
	}
	<-ctx.Done()
	proxy.Close()
	hard := time.AfterFunc(time.Second, calls.Stop)
	defer hard.Stop()
	calls.GracefulStop()
	for _, p := range pages {
		p.Close()
	}
	s.registration.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// listenMetrics binds --metrics-addr.
func (s *proxyServer) listenMetrics() (net.Listener, *tls.Config, error) {
	at, err := url.Parse(s.flags.metrics)
	if err != nil {
		return nil, nil, fmt.Errorf("--metrics-addr: %w", err)
	}
	var secure *tls.Config
	switch at.Scheme {
	case "http":
	case "https":
		if secure = s.secure; secure == nil {
			return nil, nil, fmt.Errorf("--metrics-addr %s needs --cert-file and --key-file, or --auto-tls", s.flags.metrics)
		}
	default:
		return nil, nil, fmt.Errorf("--metrics-addr %q must be a URL of http or https", s.flags.metrics)
	}
	l, err := net.Listen("tcp", at.Host)
	return l, secure, err
}

// join registers the proxy, as far as it is to be; what it returns lists the members
// that clients are told of.
func (s *proxyServer) join(ctx context.Context) func() []*pb.Member {
	f := s.flags
	if f.advertise == "" {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		s.log.Warn("the host has no name", "error", err.Error())
	}
	r := &grpcproxy.Registry{Prefix: f.prefix, Address: f.advertise, Name: host, TTL: f.ttl, Log: s.log}
	if f.prefix != "" {
		inside := clientv3.NewCtxClient(ctx)
		inside.KV, inside.Watcher, inside.Lease = s.client.KV, s.client.Watcher, s.client.Lease
		if f.namespace != "" {
			inside.KV = namespace.NewKV(inside.KV, f.namespace)
			inside.Watcher = namespace.NewWatcher(inside.Watcher, f.namespace)
			inside.Lease = namespace.NewLease(inside.Lease, f.namespace)
		}
		s.registration.Go(func() { r.Run(ctx, inside) })
	}
	return r.Members
}

// web are the pages.
func (s *proxyServer) web(proxy *grpcproxy.Proxy, calls *rpc.Server) http.Handler {
	mux := http.NewServeMux()
	pages := grpcproxy.Web{
		Conn: s.client.ActiveConnection(), Endpoints: s.client.Endpoints, TLS: s.flags.up.TLS, Log: s.log,
		Own: metrics.Handler(proxy.Show, metrics.Calls(calls.Stats(), false)),
	}
	pages.Register(mux)
	if s.flags.profiles {
		ops.RegisterProfiles(mux)
	}
	return mux
}

// logUnary logs calls, if that is wanted.
func (s *proxyServer) logUnary() grpc.UnaryServerInterceptor {
	if !s.flags.logCalls {
		return nil
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		begun := time.Now()
		resp, err := next(ctx, req)
		s.logCall(ctx, info.FullMethod, begun, err)
		return resp, err
	}
}

func (s *proxyServer) logStream() grpc.StreamServerInterceptor {
	if !s.flags.logCalls {
		return nil
	}
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		begun := time.Now()
		err := next(srv, stream)
		s.logCall(stream.Context(), info.FullMethod, begun, err)
		return err
	}
}

func (s *proxyServer) logCall(ctx context.Context, method string, begun time.Time, err error) {
	from := ""
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		from = p.Addr.String()
	}
	s.log.Info("finished call", "method", method, "peer", from, "code", status.Code(err).String(), "took", time.Since(begun).String())
}
