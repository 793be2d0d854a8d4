// Package gateway is the JSON door of the v3 API: POST requests on /v3/... whose
// bodies are the messages of gRPC as JSON, answered through a connection to the
// member's own gRPC services (spec/server-ops.md 6.2). Field names are those of the
// .proto files, bytes are base64, 64-bit numbers are texts, and what is zero is left
// out. A call with many answers sends one object on each line.
//
// The paths of the services that etcd's api module describes come from its generated
// code; those of locks and elections, whose messages are written by hand here, are
// in concurrency.go. websocket.go carries streams for browsers.
package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

// Prefix is where all paths of the gateway begin.
const Prefix = "/v3/"

// Options say how the gateway gets to the services.
type Options struct {
	// Dial connects to the member's gRPC server, within this process.
	Dial func(context.Context) (net.Conn, error)
	// MaxRequestBytes bounds a message as gRPC bounds it.
	MaxRequestBytes int
	// RefusesNamed says whether callers with a name in their certificate are to be
	// refused: it would not be the name that their calls are judged by.
	RefusesNamed func() bool
}

// mostJSON is what a request of so many bytes may take as JSON: base64 makes four of
// three, and names and numbers take their share.
func mostJSON(bytes int) int64 { return int64(bytes)*4/3 + 1<<20 }

// mostStream bounds all that is said on a stream of requests.
const mostStream = 256 << 20

// maxMessage lets answers of any size through.
const maxMessage = 1<<31 - 1

// Gateway is an http.Handler for paths that begin with Prefix.
type Gateway struct {
	opts Options
	conn *grpc.ClientConn
	mux  *runtime.ServeMux
}

// New makes a gateway. It connects with the first call. Close ends it.
func New(opts Options) (*Gateway, error) {
	conn, err := grpc.NewClient("passthrough:///member",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return opts.Dial(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry())
	if err != nil {
		return nil, err
	}
	g := &Gateway{opts: opts, conn: conn}
	g.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, codec()),
		runtime.WithErrorHandler(writeError),
		runtime.WithIncomingHeaderMatcher(metadataOf),
	)
	ctx := context.Background()
	for _, register := range []func() error{
		func() error { return gw.RegisterKVHandlerClient(ctx, g.mux, pb.NewKVClient(conn)) },
		func() error { return gw.RegisterWatchHandlerClient(ctx, g.mux, pb.NewWatchClient(conn)) },
		func() error { return gw.RegisterLeaseHandlerClient(ctx, g.mux, pb.NewLeaseClient(conn)) },
		func() error { return gw.RegisterClusterHandlerClient(ctx, g.mux, pb.NewClusterClient(conn)) },
		func() error { return gw.RegisterMaintenanceHandlerClient(ctx, g.mux, pb.NewMaintenanceClient(conn)) },
		func() error { return gw.RegisterAuthHandlerClient(ctx, g.mux, pb.NewAuthClient(conn)) },
		g.registerConcurrency,
	} {
		if err := register(); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return g, nil
}

// metadataOf is what a header becomes for the services: beside those that the library
// knows, the headers of W3C Trace Context, which have the same names in both worlds.
func metadataOf(header string) (key string, ok bool) {
	switch header {
	case "Traceparent", "Tracestate":
		return strings.ToLower(header), true
	}
	return runtime.DefaultHeaderMatcher(header)
}

// Close ends the connection and all calls on it.
func (g *Gateway) Close() error { return g.conn.Close() }

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if named(r) && g.opts.RefusesNamed() {
		http.Error(w, "CommonName of client sending a request against gateway will be ignored and not used as expected", http.StatusBadRequest)
		return
	}
	if isWebSocket(r) {
		g.serveWebSocket(w, r)
		return
	}
	g.serve(w, r)
}

// serve bounds what a caller may say, and lets it speak and listen at once.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	most := mostJSON(g.opts.MaxRequestBytes)
	if r.URL.Path == "/v3/watch" || r.URL.Path == "/v3/lease/keepalive" {
		most = mostStream
		// Without it the first answer would wait for the end of all requests. A writer
		// that cannot do so already does.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	r.Body = http.MaxBytesReader(w, r.Body, most)
	g.mux.ServeHTTP(w, r)
}

// named says whether a caller's certificate has a name.
func named(r *http.Request) bool {
	if r.TLS == nil || !strings.HasPrefix(r.URL.Path, Prefix) {
		return false
	}
	for _, chain := range r.TLS.VerifiedChains {
		if len(chain) > 0 {
			return chain[0].Subject.CommonName != ""
		}
	}
	return false
}

// compact is protobuf's JSON without the spaces that differ from build to build.
type compact struct{ runtime.JSONPb }

func codec() runtime.Marshaler {
	return &compact{runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
	}}
}

// Marshal is runtime.Marshaler's.
func (c *compact) Marshal(v any) ([]byte, error) {
	spaced, err := c.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(len(spaced))
	err = json.Compact(&b, spaced)
	return b.Bytes(), err
}

// failure is the body of an answer that says why there is none. Error is Message once
// more: clients that were written for etcd 3.5 and older look for the text there
// (decision 0033).
type failure struct {
	Code    uint32   `json:"code"`
	Message string   `json:"message"`
	Details []string `json:"details"`
	Error   string   `json:"error"`
}

// writeError answers with an error of gRPC and the HTTP status that belongs to it.
func writeError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	st := status.Convert(err)
	body, err := json.Marshal(failure{Code: uint32(st.Code()), Message: st.Message(), Details: []string{}, Error: st.Message()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, chunked := range []string{"Trailer", "Transfer-Encoding"} {
		w.Header().Del(chunked)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(runtime.HTTPStatusFromCode(st.Code()))
	_, _ = w.Write(body) // a caller that left early is not our concern
}
