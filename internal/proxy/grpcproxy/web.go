package grpcproxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// Web is what a proxy serves in HTTP: /health and /metrics of the cluster behind it,
// /proxy/health and /proxy/metrics of its own.
type Web struct {
	Conn grpc.ClientConnInterface
	// Endpoints are the members as they are now.
	Endpoints func() []string
	// TLS is nil for clear text.
	TLS func() *tls.Config
	// Own are the proxy's metrics.
	Own http.Handler
	Log *slog.Logger
}

// asking bounds a question to the cluster on behalf of a page.
const asking = 5 * time.Second

// Register puts the pages on mux.
func (w *Web) Register(mux *http.ServeMux) {
	mux.HandleFunc("/health", w.health(w.reads))
	mux.HandleFunc("/proxy/health", w.health(func(ctx context.Context) error {
		if err := w.reads(ctx); err != nil {
			return err
		}
		return w.watches(ctx)
	}))
	mux.HandleFunc("/metrics", w.metrics)
	mux.Handle("/proxy/metrics", w.Own)
}

// health answers with what a check finds, in the form of the members' /health.
func (w *Web) health(check func(context.Context) error) http.HandlerFunc {
	return func(to http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			to.Header().Set("Allow", http.MethodGet)
			http.Error(to, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), asking)
		defer cancel()
		verdict := struct {
			Health string `json:"health"`
			Reason string `json:"reason"`
		}{Health: "true"}
		to.Header().Set("Content-Type", "application/json")
		if err := check(ctx); err != nil {
			verdict.Health, verdict.Reason = "false", err.Error()
			w.Log.Warn("serving "+r.URL.Path+": not healthy", "reason", verdict.Reason)
			to.WriteHeader(http.StatusServiceUnavailable)
		}
		if text, err := json.Marshal(verdict); err == nil {
			_, _ = to.Write(text) // whoever asked may be gone
		}
	}
}

// probed is a key that is asked for; it need not exist.
var probed = []byte("health")

// reads has the cluster answer a linearizable read. A refusal for want of rights is an
// answer: it has come through it all.
func (w *Web) reads(ctx context.Context) error {
	_, err := pb.NewKVClient(w.Conn).Range(ctx, &pb.RangeRequest{Key: probed})
	switch rpctypes.Error(err) {
	case rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty:
		return nil
	}
	if err != nil {
		return fmt.Errorf("RANGE ERROR:%w", err)
	}
	return nil
}

// watches has the cluster answer to a watch; refused or not.
func (w *Web) watches(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewWatchClient(w.Conn).Watch(ctx)
	if err == nil {
		err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: probed}}})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		return fmt.Errorf("WATCH ERROR:%w", err)
	}
	return nil
}

// metrics gives back those of a member that answers.
func (w *Web) metrics(to http.ResponseWriter, r *http.Request) {
	all := w.Endpoints()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	transport := &http.Transport{DisableKeepAlives: true}
	scheme := "http://"
	if w.TLS != nil {
		transport.TLSClientConfig, scheme = w.TLS(), "https://"
	}
	client := &http.Client{Transport: transport, Timeout: asking}
	var last error
	for _, endpoint := range all {
		if !strings.Contains(endpoint, "://") {
			endpoint = scheme + endpoint
		}
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/metrics", nil)
		if err == nil {
			var resp *http.Response
			if resp, err = client.Do(req); err == nil {
				defer resp.Body.Close()
				to.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
				to.WriteHeader(resp.StatusCode)
				_, _ = io.Copy(to, resp.Body) // whoever asked may be gone
				return
			}
		}
		last = err
	}
	http.Error(to, fmt.Sprintf("no member answers: %v", last), http.StatusBadGateway)
}
