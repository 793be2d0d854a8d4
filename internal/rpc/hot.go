package rpc

import (
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/kvorum/kvorum/internal/host"
)

// Hot serves a unary method without a goroutine, context, timer or channel per
// call in flight (rule 30). Compressed calls are served by what the description of
// the service says, if it was registered, too. A call is begun on the goroutine that reads its
// connection and answered on the one that writes it; between the two nothing
// waits for it. A Hot is called by many connections at once.
type Hot interface {
	// Begin starts a call. It runs on the connection's reader and must never wait:
	// everything else that came on this connection waits behind it. message is the
	// request, uncompressed; it stays as it is until the call has ended, and may be
	// aliased until then.
	//
	// Begin, or whoever it hands the call to as host.Completions, ends it by exactly
	// one Push or Refuse; both may happen before Begin returns. Then, and once it has
	// handed the call over, Begin does not touch it any more.
	Begin(call *Call, message []byte)
	// Answer appends the reply's message to dst and returns the longer slice, once a
	// result was pushed. It runs on the connection's writer and must be quick: a
	// point read from memory at most. An error (also result.Err, if that is to be
	// told) ends the call with status.FromError of it; what was appended is dropped.
	//
	// Returning ErrElsewhere, with dst as it was, leaves the call to a bounded pool: to
	// the Source of a LongHot, else to Answer once more, where call.Elsewhere is true
	// and it may take its time.
	Answer(dst []byte, call *Call, result host.Result) ([]byte, error)
}

// ErrElsewhere is returned by Hot.Answer on the writer's goroutine to be called
// again from the pool.
var ErrElsewhere = errors.New("rpc: to be answered elsewhere")

// Call is one hot call in flight. It is the host.Completions of what the call
// waits for. When the client resets the stream, its deadline passes or its
// connection is lost, the call is only detached: it stays charged to the
// connection until its one Push or Refuse, whose result is then dropped.
//
// Calls are used again for the same method: nobody may keep one after it ended.
type Call struct {
	// State belongs to the method's Hot and survives from call to call, so that a
	// decoded request needs no allocation. It is nil in a call never used before.
	// Whatever it must not keep alive, the Hot clears.
	State any

	stream
	own    headerSet // the headers, when they are not shared
	conn   *conn
	result host.Result
	err    error
	next   *Call // in a queue of the connection

	// reply is what Answer made in the pool, if replied; long is made by a Source.
	reply   []byte
	replied bool
	long    longReply
	// inFlight: begun, and its result was not taken yet, or with the pool. Guarded by
	// conn.mu.
	inFlight bool
	// begun is when, on the server's clock, and counted that its end is still to be
	// counted (Stats). Guarded by conn.mu.
	begun   int64
	counted bool
	// ready is when the result was pushed, on the server's clock, and applying how long
	// the turn took that applied it: noted if there is a Tracer.
	ready    int64
	applying time.Duration
}

// HotRegistrar takes hot methods; *Server is one, grpc-go's server is not.
type HotRegistrar interface {
	// RegisterHot serves the method "/package.Service/Method" by h, in place of what
	// its service's description says. It is called before Serve.
	RegisterHot(fullMethod string, h Hot)
	// RegisterHotStream is RegisterHot for a method whose client sends one message and
	// gets many: all replies are left to h's Source. Calls with metadata of the key
	// except are served by what the description says.
	RegisterHotStream(fullMethod string, h LongHot, except string)
}

// mostKept bounds the buffers that a call which is not in use keeps.
const mostKept = 64 << 10

// newCall returns a call that is not in use.
func (m *method) newCall(c *conn) *Call {
	call, _ := m.calls.Get().(*Call)
	if call == nil {
		call = new(Call)
	}
	call.conn = c
	return call
}

// free gives a call back that is out of the table and has ended. conn.mu is held.
func (c *Call) free() {
	c.long.close(&c.conn.server.budget)
	if c.out.listed || c.waits {
		return // still in a queue, and so not to be used again
	}
	body, fields, m, state, reply := c.message.body[:0], c.own.fields[:0], c.stream.method, c.State, c.reply[:0]
	if cap(body) > mostKept {
		body = nil
	}
	if cap(reply) > mostKept {
		reply = nil
	}
	*c = Call{State: state}
	c.message.body, c.own.fields, c.reply = body, fields, reply
	m.calls.Put(c)
}

// Push ends the call with the result that Hot.Answer is given. It never waits and
// may be called from any goroutine, also from Begin.
func (c *Call) Push(result host.Result) {
	c.result = result
	if t := c.conn.server.limits.Tracer; t != nil {
		c.note(t)
	}
	c.conn.ended(c)
}

// Refuse ends the call with an error, without Hot.Answer: the client sees
// status.FromError(err). It never waits and may be called from any goroutine, also
// from Begin.
func (c *Call) Refuse(err error) {
	c.err = err
	c.conn.ended(c)
}

// Metadata returns the first value that the client sent under a key in lower case,
// as it came: a value of a key that ends in "-bin" is still in base64. It copies
// nothing. The value may be kept.
func (c *Call) Metadata(key string) (value string, ok bool) {
	return c.headers.value(key)
}

// Deadline is when the client gives up, if it said so. The call is detached and
// answered with DeadlineExceeded then, a few ten milliseconds late at most.
func (c *Call) Deadline() (at time.Time, ok bool) {
	return c.deadline, !c.deadline.IsZero()
}

// Method is the full name of the method, "/package.Service/Method".
func (c *Call) Method() string { return c.stream.method.name }

// Elsewhere says that Answer is running in the pool.
func (c *Call) Elsewhere() bool { return c.replied }

// Last is a place of the call's connection for what a handler may want to find there at
// the next call: that of a moment ago is mostly of the same caller.
func (c *Call) Last() *atomic.Value { return &c.conn.last }

// Peer is the address of the client, and what TLS says of it.
func (c *Call) Peer() *peer.Peer { return c.conn.peer }
