package embed

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/kvorum/kvorum/internal/api/gateway"
	"github.com/kvorum/kvorum/internal/api/ops"
)

// insideBytes is what may wait on the way between the gateway and the services.
const insideBytes = 256 << 10

// clientWeb is what is served in HTTP to clients: the operators' pages, profiles if
// they are wanted, and the gateway, to whoever may come.
func (s *Server) clientWeb(metrics http.Handler) (http.Handler, error) {
	mux := http.NewServeMux()
	s.ops.Register(mux)
	mux.Handle("/metrics", metrics)
	if s.cfg.EnablePprof || s.cfg.LogLevel == "debug" {
		ops.RegisterProfiles(mux)
	}
	if s.lately != nil {
		s.lately.Register(mux)
	}
	if s.cfg.EnableGRPCGateway {
		if err := s.openGateway(); err != nil {
			return nil, err
		}
		mux.Handle(gateway.Prefix, s.gateway)
	}
	return ops.Guard(ops.Access{Origins: s.cfg.CORS, Hosts: s.cfg.HostWhitelist, Log: s.log}, mux), nil
}

// metricsWeb is what the ports for metrics serve.
func (s *Server) metricsWeb(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics)
	s.ops.RegisterHealth(mux)
	return mux
}

// openGateway connects the gateway with the services, without a socket between.
func (s *Server) openGateway() (err error) {
	inside := bufconn.Listen(insideBytes)
	s.goServe(inside, func() error { return s.grpc.Serve(inside) })
	s.gateway, err = gateway.New(gateway.Options{
		Dial:            func(ctx context.Context) (net.Conn, error) { return inside.DialContext(ctx) },
		MaxRequestBytes: int(s.cfg.MaxRequestBytes),
		RefusesNamed:    func() bool { return s.cfg.ClientTLS.ClientCertAuth && s.member.AuthEnabled() },
	})
	return err
}

// serveHTTP serves one listener.
func (s *Server) serveHTTP(bound net.Listener, handler http.Handler) {
	web := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.https = append(s.https, web)
	s.goServe(bound, func() error { return web.Serve(bound) })
}
