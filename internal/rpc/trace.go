package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/kvorum/kvorum/internal/id"
)

// Tracer makes spans of calls. A span is made when its call has ended, of what the call
// knows by then: a call under way carries nothing for it but the moment of its result,
// and without a Tracer not even that. Whether a call is traced is decided at its end,
// too, so that calls which are not cost next to nothing.
//
// The methods are called on goroutines that answer calls, with a connection's lock held:
// they must not wait.
type Tracer interface {
	// Wants says whether a call is traced that came with this traceparent, or with none
	// (W3C Trace Context); it is asked once of each call.
	Wants(traceparent string) bool
	// Trace takes a call that is.
	Trace(TracedCall)
	// Applying is how long that turn of applying took which is pushing its results now.
	Applying() time.Duration
}

// TracedCall is a call that has ended.
type TracedCall struct {
	// Method is its full name, "/package.Service/Method"; Code and Message are its status.
	Method  string
	Stream  bool // of requests or answers
	Code    codes.Code
	Message string
	// Parent and State are the metadata traceparent and tracestate, if they came.
	Parent, State string
	// Begun is when its message was there, or its handler began; Ended when its answer was
	// made.
	Begun, Ended time.Time
	// Ready is when a hot call had its result: what it writes was applied, or what it reads
	// might be read. It is zero if there was none, and for a call with a goroutine.
	Ready time.Time
	// Wrote says that Ready is of a command, which lies at Index of the log, and
	// that the turn that applied it took Applying.
	Wrote    bool
	Index    id.Index
	Applying time.Duration
	Peer     *peer.Peer
	// RequestBytes is the size of the request; -1 if it is not known.
	RequestBytes int
}

// The metadata of W3C Trace Context.
const (
	traceParentKey = "traceparent"
	traceStateKey  = "tracestate"
)

// note keeps when the result of a hot call was pushed.
func (c *Call) note(t Tracer) {
	c.ready = c.conn.server.now()
	if c.result.Response != nil {
		c.applying = t.Applying()
	}
}

// trace has a hot call told that has ended. conn.mu is held.
func (c *conn) trace(t Tracer, call *Call, code codes.Code, message string) {
	parent, _ := call.headers.value(traceParentKey)
	if !t.Wants(parent) {
		return
	}
	now, ended := c.server.now(), time.Now()
	at := func(then int64) time.Time { return ended.Add(time.Duration(then - now)) }
	traced := TracedCall{
		Method: call.stream.method.name, Stream: call.stream.method.streams, Code: code, Message: message, Parent: parent,
		Begun: at(call.begun), Ended: ended, Peer: c.peer, RequestBytes: len(call.message.body),
	}
	traced.State, _ = call.headers.value(traceStateKey)
	// A result that comes only now, to a call that nobody waits for any more, is still
	// being written there.
	if !call.inFlight && call.ready != 0 {
		traced.Ready = at(call.ready)
		traced.Wrote, traced.Index, traced.Applying = call.result.Response != nil, call.result.Index, call.applying
	}
	t.Trace(traced)
}

// trace has a call told that had a goroutine.
func (s *Stats) trace(ctx context.Context, method string, begun time.Time, err error) {
	parent := incoming(ctx, traceParentKey)
	if !s.tracer.Wants(parent) {
		return
	}
	st := statusOf(err)
	from, _ := peer.FromContext(ctx)
	s.tracer.Trace(TracedCall{
		Method: method, Stream: s.methods[method].kind != UnaryKind, Code: st.Code(), Message: st.Message(), Parent: parent, State: incoming(ctx, traceStateKey),
		Begun: begun, Ended: time.Now(), Peer: from, RequestBytes: -1,
	})
}

// incoming is the first value of a call's metadata under a key, if any.
func incoming(ctx context.Context, key string) string {
	if v := metadata.ValueFromIncomingContext(ctx, key); len(v) > 0 {
		return v[0]
	}
	return ""
}
