package rpc

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/kvorum/kvorum/internal/measure"
)

// Stats counts the calls of a server, whichever its body, from New on. A call counts
// as started where its handler would begin, that is once the one message of a unary
// method is there, and as handled when its result is told, or would have been if the
// client had not gone.
type Stats struct {
	limits SlowLimits
	tracer Tracer
	// methods is fixed once the server serves.
	methods map[string]*methodStats

	// Bytes on the connections of our own body. What readers write to memory is kept away
	// from what writers do, and both from what is only read: cache lines would be sent to
	// and fro for every call.
	_        [cacheLine]byte
	received atomic.Uint64
	_        [cacheLine]byte
	sent     atomic.Uint64
	_        [cacheLine]byte
}

// cacheLine is the size of one, or of the pair that is fetched together.
const cacheLine = 128

// SlowLimits say which unary calls are slow, and who is told.
type SlowLimits struct {
	// After is how long a unary call may take; 0 is for ever.
	After time.Duration
	// Told is told of those that took longer. It is called on the goroutine that
	// answers calls, and must not wait.
	Told func(SlowCall)
}

// SlowCall is a unary call that took long.
type SlowCall struct {
	Method string
	Took   time.Duration
	Code   codes.Code
	Peer   string
	// RequestBytes is the size of the request; -1 if it is not known.
	RequestBytes int
}

// UnaryKind is the type of methods with one request and one answer; the others follow.
const (
	UnaryKind        = "unary"
	kindClientStream = "client_stream"
	kindServerStream = "server_stream"
	kindBidiStream   = "bidi_stream"
)

// Bounds of durations that are shown: those of etcd's requests, ranges and backups,
// and those that every Prometheus library begins with. All are counted in one
// histogram.
var (
	RequestBounds  = measure.Doubling(int64(time.Millisecond), 14)
	RangeBounds    = measure.Doubling(int64(100*time.Microsecond), 20)
	BackupBounds   = measure.Doubling(int64(10*time.Millisecond), 17)
	HandlingBounds = inMilliseconds(5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
	allBounds      = merged(RequestBounds, RangeBounds, BackupBounds, HandlingBounds)
)

func inMilliseconds(list ...int64) []int64 {
	for i := range list {
		list[i] *= int64(time.Millisecond)
	}
	return list
}

func merged(lists ...[]int64) []int64 {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

// methodStats counts the calls of one method. What goes well in a hot call costs
// three additions: its messages are not counted apart.
type methodStats struct {
	kind         string
	took, failed *measure.Histogram

	// plain are hot calls begun with their one message; those that went well, and so
	// had one reply, are in took.
	_     [cacheLine]byte
	plain atomic.Uint64
	_     [cacheLine]byte

	// started, received and sent are of the other calls, and of what hot streams sent.
	started, received, sent atomic.Uint64
	handled                 [codes.Unauthenticated + 1]atomic.Uint64 // OK is counted for cold calls only
	// notReceived and notSent are messages of streams that failed, by no doing of the client's.
	notReceived, notSent atomic.Uint64
}

func newStats(limits Limits) *Stats {
	return &Stats{limits: limits.Slow, tracer: limits.Tracer, methods: map[string]*methodStats{}}
}

// add makes a method known, or finds it.
func (s *Stats) add(name, kind string) *methodStats {
	m := s.methods[name]
	if m == nil {
		m = &methodStats{kind: kind, took: measure.New(allBounds), failed: measure.New(allBounds)}
		s.methods[name] = m
	}
	return m
}

// register makes the methods of a service known.
func (s *Stats) register(desc *grpc.ServiceDesc) {
	for i := range desc.Methods {
		s.add("/"+desc.ServiceName+"/"+desc.Methods[i].MethodName, UnaryKind)
	}
	for i := range desc.Streams {
		d := &desc.Streams[i]
		s.add("/"+desc.ServiceName+"/"+d.StreamName, kindOf(d.ClientStreams, d.ServerStreams))
	}
}

func kindOf(client, server bool) string {
	switch {
	case client && server:
		return kindBidiStream
	case client:
		return kindClientStream
	case server:
		return kindServerStream
	}
	return UnaryKind
}

// ended counts the end of a call, but for its reply.
func (m *methodStats) ended(code codes.Code, took time.Duration) {
	m.handled[min(code, codes.Code(len(m.handled)-1))].Add(1)
	if code == codes.OK {
		m.took.Took(took)
	} else {
		m.failed.Took(took)
	}
}

// slow tells of a call if it was.
func (s *Stats) slow(name string, took time.Duration, code codes.Code, from *peer.Peer, bytes int) {
	if s.limits.After <= 0 || took <= s.limits.After || s.limits.Told == nil {
		return
	}
	call := SlowCall{Method: name, Took: took, Code: code, RequestBytes: bytes}
	if from != nil && from.Addr != nil {
		call.Peer = from.Addr.String()
	}
	s.limits.Told(call)
}

// unary counts the unary calls that are not hot.
func (s *Stats) unary(next grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		m := s.methods[info.FullMethod]
		m.started.Add(1)
		m.received.Add(1)
		begun := time.Now()
		if next == nil {
			resp, err = handler(ctx, req)
		} else {
			resp, err = next(ctx, req, info, handler)
		}
		took, code := time.Since(begun), statusOf(err).Code()
		m.ended(code, took)
		if err == nil {
			m.sent.Add(1)
		}
		from, _ := peer.FromContext(ctx)
		s.slow(info.FullMethod, took, code, from, -1)
		if s.tracer != nil {
			s.trace(ctx, info.FullMethod, begun, err)
		}
		return resp, err
	}
}

// stream counts the streams that are not hot.
func (s *Stats) stream(next grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, to grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		m := s.methods[info.FullMethod]
		m.started.Add(1)
		begun := time.Now()
		counted := &countedStream{ServerStream: to, m: m}
		if next == nil {
			err = handler(srv, counted)
		} else {
			err = next(srv, counted, info, handler)
		}
		m.ended(statusOf(err).Code(), time.Since(begun))
		if s.tracer != nil {
			s.trace(to.Context(), info.FullMethod, begun, err)
		}
		return err
	}
}

// countedStream counts messages.
type countedStream struct {
	grpc.ServerStream
	m *methodStats
}

// SendMsg is grpc.ServerStream's.
func (c *countedStream) SendMsg(m any) error {
	err := c.ServerStream.SendMsg(m)
	if err == nil {
		c.m.sent.Add(1)
	} else {
		c.failed(err, &c.m.notSent)
	}
	return err
}

// RecvMsg is grpc.ServerStream's.
func (c *countedStream) RecvMsg(m any) error {
	err := c.ServerStream.RecvMsg(m)
	if err == nil {
		c.m.received.Add(1)
	} else {
		c.failed(err, &c.m.notReceived)
	}
	return err
}

// failed counts a message that failed, unless the client has said all, gave up, or is gone.
func (c *countedStream) failed(err error, count *atomic.Uint64) {
	if err == io.EOF {
		return
	}
	switch statusOf(err).Code() {
	case codes.Canceled, codes.DeadlineExceeded:
		return
	case codes.Unavailable: // the connection is lost
		if c.Context().Err() != nil {
			return
		}
	}
	count.Add(1)
}

// MethodCount is what was counted of one method.
type MethodCount struct {
	// Service, Method and Type are as in the labels of grpc_server_*.
	Service, Method, Type   string
	Started, Received, Sent uint64
	// NotReceived and NotSent are messages of streams that failed, by no doing of the
	// client's: one too large, one that is none.
	NotReceived, NotSent uint64
	// Handled is by code; a code with no call is left out, but OK is there.
	Handled map[codes.Code]uint64
	// Took are the durations of calls that went well, Failed of the others.
	Took, Failed measure.Distribution
}

// Methods is what was counted so far, by name. A call under way may be counted in
// part.
func (s *Stats) Methods() []MethodCount {
	list := make([]MethodCount, 0, len(s.methods))
	for name, m := range s.methods {
		service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		c := MethodCount{Service: service, Method: method, Type: m.kind, Took: m.took.Read(), Failed: m.failed.Read(), Handled: map[codes.Code]uint64{},
			NotReceived: m.notReceived.Load(), NotSent: m.notSent.Load()}
		for code := range m.handled {
			if n := m.handled[code].Load(); n > 0 && code != int(codes.OK) {
				c.Handled[codes.Code(code)] = n
			}
		}
		// A call that went well is in took, hot or not; the cold ones are counted apart.
		well, cold := c.Took.Count(), m.handled[codes.OK].Load()
		c.Handled[codes.OK] = well
		plain := m.plain.Load()
		c.Started = plain + m.started.Load()
		c.Received = plain + m.received.Load()
		c.Sent = m.sent.Load()
		if m.kind == UnaryKind && well > cold {
			c.Sent += well - cold
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b MethodCount) int {
		return strings.Compare(a.Service+"/"+a.Method, b.Service+"/"+b.Method)
	})
	return list
}

// endHot counts the end of a hot call that was begun; what was counted is not counted
// again. now is on the server's clock, message what the client is told of an error.
// conn.mu is held.
func (c *conn) endHot(call *Call, code codes.Code, message string, now int64) {
	if !call.counted {
		return
	}
	call.counted = false
	m, took := call.stream.method, time.Duration(now-call.begun)
	if code == codes.OK {
		m.stats.took.Took(took)
	} else {
		m.stats.ended(code, took)
	}
	if !m.streams {
		c.server.stats.slow(m.name, took, code, c.peer, len(call.message.body))
	}
	if t := c.server.limits.Tracer; t != nil {
		c.trace(t, call, code, message)
	}
}

// Bytes are those of all connections since the beginning; grpc-go's body does not
// count them.
func (s *Stats) Bytes() (received, sent uint64) { return s.received.Load(), s.sent.Load() }
