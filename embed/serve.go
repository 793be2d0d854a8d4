package embed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/internal/api/ops"
	v3 "github.com/kvorum/kvorum/internal/api/v3"
	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/rpc"
)

// listeners are the bound ports of a member.
type listeners struct {
	clients, peers, metrics, clientHTTP []*port
}

// port is one address; URLs of either scheme may share it.
type port struct {
	net.Listener
	plain, secure bool
}

// listen binds every port, or none.
func listen(cfg *Config) (_ *listeners, err error) {
	l := &listeners{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, kind := range []struct {
		urls config.URLs
		to   *[]*port
	}{
		{cfg.ListenPeerURLs, &l.peers},
		{cfg.ListenClientURLs, &l.clients},
		{cfg.ListenClientHTTPURLs, &l.clientHTTP},
		{cfg.ListenMetricsURLs, &l.metrics},
	} {
		shared := map[string]*port{}
		for i := range kind.urls {
			network, address := kind.urls.Place(i)
			if shared[address] == nil {
				bound, err := bind(cfg, network, address)
				if err != nil {
					return nil, err
				}
				shared[address] = &port{Listener: bound}
				*kind.to = append(*kind.to, shared[address])
			}
			if kind.urls[i : i+1].Secure() {
				shared[address].secure = true
			} else {
				shared[address].plain = true
			}
		}
	}
	return l, nil
}

func (l *listeners) all() []*port {
	var all []*port
	for _, some := range [][]*port{l.clients, l.peers, l.metrics, l.clientHTTP} {
		all = append(all, some...)
	}
	return all
}

func (l *listeners) close() {
	for _, bound := range l.all() {
		bound.Close() // one that a server closed before says so again
	}
}

// servePeers opens the peer port: our own frames, and HTTP/1.1 for those who are
// not members yet.
func (s *Server) servePeers() {
	web := http.NewServeMux()
	ops.RegisterPeer(web, operator{s}, operator{s})
	for _, bound := range s.listeners.peers {
		s.serveHTTP(s.peers.Divert(bound), web)
	}
}

// otherServer is the variable that has grpc-go's server take the place of ours when it
// says "grpc-go": to tell whose fault something is.
const otherServer = "KVORUM_RPC"

// serve opens the doors. It returns once every port is being served.
func (s *Server) serve() error {
	s.grpc = rpc.New(rpc.Limits{
		MaxRequestBytes:      int(s.cfg.MaxRequestBytes),
		MaxConcurrentStreams: s.cfg.MaxConcurrentStreams,
		PingMinimum:          s.cfg.GRPCKeepAliveMinTime,
		PingInterval:         s.cfg.GRPCKeepAliveInterval,
		PingTimeout:          s.cfg.GRPCKeepAliveTimeout,
		Slow:                 rpc.SlowLimits{After: s.cfg.WarningUnaryRequestDuration, Told: s.slowCall},
		Tracer:               s.callTracer(),
		GRPCGo:               os.Getenv(otherServer) == "grpc-go",
	}, v3.PermitUnary(s.member), v3.PermitStream(s.member, s.cfg.ElectionTimeout))
	v3.Register(s.grpc, s.member)
	s.ops = ops.New(operator{s}, s.log)
	numbers := s.metricsHandler()
	web, err := s.clientWeb(numbers)
	if err != nil {
		return err
	}
	if both, ok := s.grpc.(*rpc.Server); ok && len(s.listeners.clientHTTP) == 0 {
		both.ServeWeb(rpc.Web{Handler: web, Log: s.log})
	}
	for _, bound := range s.listeners.clients {
		if len(s.listeners.clientHTTP) > 0 { // HTTP has listeners of its own
			s.goServe(bound, func() error { return s.grpc.Serve(bound) })
			continue
		}
		h2, h1 := rpc.Split(bound)
		s.goServe(bound, func() error { return s.grpc.Serve(h2) })
		s.serveHTTP(h1, web)
	}
	for _, bound := range s.listeners.clientHTTP {
		s.serveHTTP(bound, web)
	}
	metrics := s.metricsWeb(numbers)
	for _, bound := range s.listeners.metrics {
		s.serveHTTP(bound, metrics)
	}
	for _, bound := range s.listeners.clients {
		if bound.plain {
			s.log.Info("serving client traffic insecurely; this is strongly discouraged!", "traffic", "grpc+http", "address", bound.Addr().String())
		}
		if bound.secure {
			s.log.Info("serving client traffic securely", "traffic", "grpc+http", "address", bound.Addr().String())
		}
	}
	s.log.Info("ready to serve client requests")
	return nil
}

// goServe runs one server; a listener that breaks while the member runs is fatal.
func (s *Server) goServe(bound net.Listener, serve func() error) {
	go func() {
		err := serve()
		if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
			s.fail(fmt.Errorf("listener failed: %s: %w", bound.Addr(), err))
		}
	}()
}

// stopServing lets open calls end for a while and then cuts them off.
func (s *Server) stopServing() {
	var wg sync.WaitGroup
	if s.grpc != nil {
		wg.Go(func() {
			hard := time.AfterFunc(drain, s.grpc.Stop)
			s.member.EndWatches()
			s.grpc.GracefulStop()
			hard.Stop()
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	for _, web := range s.https {
		wg.Go(func() {
			if web.Shutdown(ctx) != nil {
				web.Close()
			}
		})
	}
	wg.Wait()
	if s.gateway != nil {
		s.gateway.Close() // its calls have ended with the services
	}
}
