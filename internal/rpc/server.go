package rpc

import (
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// Body is a gRPC server: ours, or grpc-go's.
type Body interface {
	grpc.ServiceRegistrar
	// Serve takes connections until the listener or the server is closed.
	Serve(l net.Listener) error
	// GracefulStop takes no more calls and returns once those in flight have ended.
	GracefulStop()
	// Stop closes all connections; calls in flight are cut off.
	Stop()
	// Stats are the counts of its calls.
	Stats() *Stats
}

const (
	noLimit  = math.MaxUint32
	mostSent = math.MaxInt32
)

// Server serves gRPC on an HTTP/2 loop of its own: one goroutine reads a connection,
// one writes it. Methods registered as Hot run on these two; any other gets a
// goroutine for each call.
type Server struct {
	limits Limits
	unary  grpc.UnaryServerInterceptor
	stream grpc.StreamServerInterceptor
	web    atomic.Pointer[Web]
	epoch  time.Time // of the clock that deadlines and keepalive are kept by
	clock  clock
	stats  *Stats
	pool   pool
	budget budget

	// Fixed once Serve was called.
	methods  map[string]*method
	services map[string]bool

	mu        sync.Mutex
	changed   sync.Cond // conns or serving became fewer
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	serving   int // calls of Serve
	stopped   bool
	drained   bool
}

// method is one method: served hot, or by what its description says, or both.
type method struct {
	name string
	hot  Hot
	// long is hot, if its replies may be long.
	long LongHot
	// streams: all replies are left to the pool, as messages. A call that sends the
	// metadata notHot is served by the description.
	streams bool
	notHot  string
	calls   sync.Pool    // *Call
	stats   *methodStats // if it is served hot
	cold    *coldMethod
}

// servedHot says whether a call is served without a goroutine.
func (m *method) servedHot(h *headerSet) bool {
	if m.hot == nil || m.cold != nil && h.encoding != "" && h.encoding != "identity" {
		return false
	}
	if m.notHot == "" {
		return true
	}
	_, not := h.value(m.notHot)
	return !not
}

// coldMethod is a method as a service's description has it.
type coldMethod struct {
	impl   any
	unary  *grpc.MethodDesc
	stream *grpc.StreamDesc
}

func (m *coldMethod) streams() bool       { return m.stream != nil }
func (m *coldMethod) clientStreams() bool { return m.stream != nil && m.stream.ClientStreams }

// serve runs the handler with the checks before it.
func (m *coldMethod) serve(s *Server, cs *coldStream) error {
	if m.unary != nil {
		reply, err := m.unary.Handler(m.impl, cs.ctx, cs.RecvMsg, s.unary)
		if err != nil {
			return err
		}
		return cs.SendMsg(reply)
	}
	info := &grpc.StreamServerInfo{
		FullMethod: cs.stream.headers.path, IsClientStream: m.stream.ClientStreams, IsServerStream: m.stream.ServerStreams,
	}
	return s.stream(m.impl, cs, info, m.stream.Handler)
}

// NewServer makes a server with the checks that run before every method that is not
// hot. A check may be nil.
func NewServer(limits Limits, unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) *Server {
	if limits.PingMinimum <= 0 {
		limits.PingMinimum = 5 * time.Minute
	}
	if limits.PingInterval <= 0 {
		limits.PingInterval = 2 * time.Hour
	}
	if limits.PingTimeout <= 0 {
		limits.PingTimeout = 20 * time.Second
	}
	if limits.MaxConcurrentStreams == 0 {
		limits.MaxConcurrentStreams = noLimit
	}
	s := &Server{
		limits: limits, stats: newStats(limits), epoch: time.Now(),
		methods: map[string]*method{}, services: map[string]bool{},
		listeners: map[net.Listener]bool{}, conns: map[*conn]bool{},
	}
	s.unary, s.stream = s.stats.unary(unary), s.stats.stream(stream)
	s.changed.L = &s.mu
	s.pool.init(max(2, runtime.GOMAXPROCS(0)))
	s.budget.init(limits.AnswerBytes)
	s.clock.init(s.now, s.look)
	return s
}

// Stats are the counts of its calls.
func (s *Server) Stats() *Stats { return s.stats }

// now is the server's clock, in nanoseconds.
func (s *Server) now() int64 { return int64(time.Since(s.epoch)) }

// mostReceived is the largest message that is taken.
func (s *Server) mostReceived() int { return s.limits.MaxRequestBytes + grpcOverhead }

// RegisterService adds a service as its generated description has it. It is called
// before Serve.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if impl != nil && desc.HandlerType != nil {
		if want := reflect.TypeOf(desc.HandlerType).Elem(); !reflect.TypeOf(impl).Implements(want) {
			panic(fmt.Sprintf("rpc: %T is registered as %s but does not implement %v", impl, desc.ServiceName, want))
		}
	}
	if s.services[desc.ServiceName] {
		panic("rpc: " + desc.ServiceName + " is registered twice")
	}
	s.services[desc.ServiceName] = true
	s.stats.register(desc)
	for i := range desc.Methods {
		m := &desc.Methods[i]
		s.entry("/" + desc.ServiceName + "/" + m.MethodName).cold = &coldMethod{impl: impl, unary: m}
	}
	for i := range desc.Streams {
		m := &desc.Streams[i]
		s.entry("/" + desc.ServiceName + "/" + m.StreamName).cold = &coldMethod{impl: impl, stream: m}
	}
}

// RegisterHot serves a method by h; see HotRegistrar.
func (s *Server) RegisterHot(fullMethod string, h Hot) {
	m := s.entry(fullMethod)
	m.hot = h
	m.long, _ = h.(LongHot)
	m.stats = s.stats.add(fullMethod, UnaryKind)
}

// RegisterHotStream serves a method with many replies by h; see HotRegistrar.
func (s *Server) RegisterHotStream(fullMethod string, h LongHot, except string) {
	s.RegisterHot(fullMethod, h)
	m := s.entry(fullMethod)
	m.streams, m.notHot = true, except
	m.stats.kind = kindServerStream
}

func (s *Server) entry(name string) *method {
	if s.methods[name] == nil {
		s.methods[name] = &method{name: name}
	}
	return s.methods[name]
}

func (s *Server) lookup(path string) *method { return s.methods[path] }

// unknown says in grpc-go's words what is not known about a path.
func (s *Server) unknown(path string) string {
	rest, ok := strings.CutPrefix(path, "/")
	slash := strings.LastIndexByte(rest, '/')
	switch {
	case !ok || slash < 0:
		return fmt.Sprintf("malformed method name: %q", path)
	case !s.services[rest[:slash]]:
		return "unknown service " + rest[:slash]
	}
	return fmt.Sprintf("unknown method %s for service %s", rest[slash+1:], rest[:slash])
}

// Serve takes connections from l until it or the server is closed; then it returns
// nil, or grpc.ErrServerStopped if the server was stopped before.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		l.Close()
		return grpc.ErrServerStopped
	}
	s.listeners[l] = true
	s.serving++
	s.mu.Unlock()
	defer func() {
		l.Close()
		s.mu.Lock()
		delete(s.listeners, l)
		s.serving--
		s.changed.Broadcast()
		s.mu.Unlock()
	}()
	for pause := time.Duration(0); ; {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.start(nc)
			continue
		}
		s.mu.Lock()
		stopped := s.stopped
		s.mu.Unlock()
		if stopped {
			return nil
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		time.Sleep(pause)
	}
}

// start serves one connection.
func (s *Server) start(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped && !s.drained {
		nc.Close()
		return
	}
	s.conns[c] = true
	if s.drained {
		c.drain(drainText)
	}
	go func() {
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.changed.Broadcast()
		s.mu.Unlock()
	}()
	s.clock.due(s.now() + int64(s.limits.PingInterval))
}

// look sees to what is due on all connections.
func (s *Server) look() (next int64) {
	now := s.now()
	next = never
	s.mu.Lock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		next = min(next, c.expire(now), c.keepalive(now))
	}
	return next
}

const drainText = "graceful_stop"

// GracefulStop closes the listeners, tells every client to open no more calls, and
// returns once all connections are closed. Stop ends it early.
func (s *Server) GracefulStop() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.serving > 0 {
		s.changed.Wait()
	}
	s.drained = true
	for c := range s.conns {
		c.drain(drainText)
	}
	s.wait()
}

// Stop closes all listeners and connections. Calls are cut off, and their goroutines
// told so, but not waited for.
func (s *Server) Stop() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = false
	for c := range s.conns {
		c.mu.Lock()
		c.cut()
		c.mu.Unlock()
	}
	s.wait()
}

// wait waits for the end of all connections. s.mu is held.
func (s *Server) wait() {
	for s.serving > 0 || len(s.conns) > 0 {
		s.changed.Wait()
	}
	s.clock.stop()
}

// stop closes the listeners.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for l := range s.listeners {
		l.Close()
	}
}
