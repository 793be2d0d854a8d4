package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// What one client may have us keep.
const (
	// connWindow is what a connection may be sent before we have looked at it.
	connWindow = 1 << 20
	// mostControl bounds the answers to pings, settings and bad frames that the client
	// does not read: then its frames wait.
	mostControl = 64 << 10
	// mostAbandoned bounds the calls that a client has reset and that are still being
	// worked on: then its frames wait.
	mostAbandoned = 1000
	// mostExtra bounds what messages larger than a window may be sent beyond it.
	mostExtra = 32 << 20
	// mostParked bounds the answers to hot calls that wait for a window; the results of
	// further ones stay results. One that is larger is let through alone. connShare is
	// the bound when the server's budget is spent.
	mostParked = 4 << 20
	connShare  = 256 << 10
)

// conn is one HTTP/2 connection: a reader that never waits for a call, a writer
// that sends what has gathered in one go, and the streams between the two.
type conn struct {
	server *Server
	net    net.Conn
	peer   *peer.Peer
	last   atomic.Value // the handlers': Call.Last
	// ctx is the parent of every call's context.
	ctx    context.Context
	cancel context.CancelFunc

	in  reader // the reader's own
	enc encoder

	// lastRead is when bytes came last, in nanoseconds of the server's clock; wrote
	// says that headers or data were sent since the last ping of the client.
	lastRead atomic.Int64
	wrote    atomic.Bool
	wake     chan struct{} // one slot: the writer has something to do
	// answering is when the writer took the calls in hand; the writer's own, on the
	// server's clock.
	answering int64

	mu        sync.Mutex
	streams   map[uint32]*stream
	recent    recentStreams
	maxID     uint32    // the last stream that the client opened
	abandoned int       // calls begun that are no longer in streams
	room      sync.Cond // control was sent, or an abandoned call ended

	control  []byte // frames to be sent as they are
	done     *Call  // hot calls with a result, in order
	lastDone *Call
	active   streamQueue // streams that may have something to send
	starved  streamQueue // those that wait for the connection's window
	patient  streamQueue // and those whose answers go on when less is parked
	parked   int         // bytes of answers to hot calls that were made and not sent
	held     *Call       // hot calls done while too much was parked, in order
	lastHeld *Call
	asleep   bool // the writer waits for wake

	window      int64 // what may be sent on all streams together
	freshWindow int64 // and on each new one
	mostFrame   int   // largest payload that the client takes
	mostFields  uint32
	tableSize   uint32 // of the client's header table; for the encoder
	extra       int    // given beyond windows to messages that are on their way
	waiting     []*stream

	phase    phase
	earliest int64 // no deadline of a hot call is before; nanoseconds of the server's clock
	pinged   int64 // when keepalive sent its last ping; nanoseconds of the server's clock
	pool     poolShare
}

// phase is how far a connection is on its way to its end.
type phase uint8

const (
	open     phase = iota
	warned         // told to open no more streams; those on their way are served
	draining       // streams opened now are ignored
	closing        // what has gathered is sent, then it is closed
	dead
)

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server: s, net: nc, peer: &peer.Peer{Addr: nc.RemoteAddr(), LocalAddr: nc.LocalAddr()},
		wake: make(chan struct{}, 1), streams: map[uint32]*stream{},
		window: firstWindow, freshWindow: firstWindow, mostFrame: maxFrame, mostFields: 1<<32 - 1,
		tableSize: 4096, enc: encoder{limit: 4096}, earliest: never,
	}
	c.room.L = &c.mu
	if state, ok := tlsState(nc); ok {
		c.peer.AuthInfo = tlsInfo(state)
	}
	c.ctx, c.cancel = context.WithCancel(peer.NewContext(context.Background(), c.peer))
	c.in.init(c)
	settings := []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: maxFrame}}
	if s.limits.MaxConcurrentStreams != noLimit {
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: s.limits.MaxConcurrentStreams})
	}
	c.control = appendWindowUpdate(appendSettings(nil, settings...), 0, connWindow-firstWindow)
	c.lastRead.Store(s.now())
	return c
}

// tlsState returns what TLS agreed on with the client, if it was spoken.
func tlsState(nc net.Conn) (tls.ConnectionState, bool) {
	if p, ok := nc.(*peekedConn); ok {
		nc = p.Conn
	}
	if t, ok := nc.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return t.ConnectionState(), true
	}
	return tls.ConnectionState{}, false
}

// serve runs the connection until it is closed.
func (c *conn) serve() {
	written := make(chan struct{})
	go func() {
		c.writeLoop()
		close(written)
	}()
	c.readLoop()
	c.teardown()
	<-written
}

// wakeWriter has the writer look again. c.mu is held.
func (c *conn) wakeWriter() {
	if c.asleep {
		c.asleep = false
		c.wake <- struct{}{} // has room: asleep is set after the slot was emptied
	}
}

// teardown ends every call; nothing is read or written any more.
func (c *conn) teardown() {
	c.mu.Lock()
	c.phase = dead
	for _, s := range c.streams {
		c.remove(s)
	}
	c.active, c.starved, c.patient, c.waiting = streamQueue{}, streamQueue{}, streamQueue{}, nil
	c.wakeWriter()
	c.room.Broadcast()
	c.mu.Unlock()
	c.cancel()
	c.net.Close()
}

// cut closes the connection as it is; the reader, wherever it waits, ends the calls.
// c.mu is held.
func (c *conn) cut() {
	c.phase = max(c.phase, closing)
	c.room.Broadcast()
	c.wakeWriter()
	c.net.Close()
}

// ended takes the one result of a hot call, from whatever goroutine.
func (c *conn) ended(call *Call) {
	c.mu.Lock()
	if c.phase == dead { // nobody waits for it: the garbage collector has it
		c.mu.Unlock()
		return
	}
	c.enqueueDone(call)
	c.mu.Unlock()
}

func (c *conn) enqueueDone(call *Call) {
	call.next = nil
	if c.lastDone == nil {
		c.done = call
	} else {
		c.lastDone.next = call
	}
	c.lastDone = call
	c.wakeWriter()
}

// remove takes a stream out of the table: no frame is sent or taken on it any more,
// and s may be used again. c.mu is held.
func (c *conn) remove(s *stream) {
	if s.gone {
		return
	}
	s.gone = true
	if s.call != nil && s.call.counted { // nobody waits for it any more
		c.endHot(s.call, codes.Canceled, context.Canceled.Error(), c.server.now())
	}
	delete(c.streams, s.id)
	c.recent.add(s.id, false)
	c.giveBack(s)
	s.dropOutput(c)
	switch {
	case s.cold != nil:
		s.cold.end()
		if !s.cold.returned {
			c.abandoned++
		}
	case s.web != nil:
		s.web.end()
		if !s.web.returned {
			c.abandoned++
		}
	case s.call != nil && s.call.inFlight:
		c.abandoned++
	case s.call != nil:
		s.call.free()
	}
	if c.phase == draining && len(c.streams) == 0 {
		c.phase = closing
		c.wakeWriter()
	}
}

// abandonedEnded says that a call begun, whose stream is gone, has ended. c.mu is held.
func (c *conn) abandonedEnded() {
	c.abandoned--
	c.room.Signal()
}

// reset ends a stream with an error of HTTP/2. c.mu is held.
func (c *conn) reset(s *stream, code http2.ErrCode) {
	id := s.id
	c.remove(s)
	c.recent.add(id, true)
	c.control = appendReset(c.control, id, code)
	c.wakeWriter()
}

// goAway tells the client the last stream that is served. c.mu is held.
func (c *conn) goAway(last uint32, code http2.ErrCode, text string, next phase) {
	if c.phase >= closing {
		return
	}
	c.control = appendGoAway(c.control, last, code, text)
	c.phase = next
	if next == draining && len(c.streams) == 0 {
		c.phase = closing
	}
	c.wakeWriter()
}

// goAwayPing tells its answer from those to keepalive's pings, which are zero.
var goAwayPing = [8]byte{'g', 'o', ' ', 'a', 'w', 'a', 'y', '?'}

// drainTime is how long a client may take to answer that it has seen the first GOAWAY.
const drainTime = 5 * time.Second

// drain begins the graceful end: a warning, and once the client has seen it, the
// number of the last stream that is served. What it opened before is served.
func (c *conn) drain(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != open {
		return
	}
	c.goAway(mostWindow, http2.ErrCodeNo, text, warned)
	c.control = appendPing(c.control, 0, goAwayPing)
	c.in.drainText = text
	time.AfterFunc(drainTime, c.drained)
}

// drained is the second step of drain.
func (c *conn) drained() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == warned {
		c.goAway(c.maxID, http2.ErrCodeNo, c.in.drainText, draining)
	}
}

var errExpired = status.New(codes.DeadlineExceeded, context.DeadlineExceeded.Error())

// expire answers the calls without a goroutine whose deadline has passed and returns
// when the next one may.
func (c *conn) expire(now int64) (next int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now < c.earliest {
		return c.earliest
	}
	c.earliest = never
	for _, s := range c.streams {
		if s.deadline.IsZero() || s.out.ending != nil || s.cold != nil && s.cold.started {
			continue // a handler looks after its own
		}
		if at := s.deadline.Sub(c.server.epoch).Nanoseconds(); at > now {
			c.earliest = min(c.earliest, at)
			continue
		}
		s.stop = true
		if s.call != nil {
			c.endHot(s.call, codes.DeadlineExceeded, errExpired.Message(), now)
		}
		if s.call != nil && s.call.long.begun && !s.call.long.messages { // half a message cannot be ended
			c.reset(s, http2.ErrCodeCancel)
			continue
		}
		s.dropOutput(c)
		c.end(s, &ending{status: errExpired})
	}
	return c.earliest
}

// end ends a stream with a status, behind what it has still to send. c.mu is held.
func (c *conn) end(s *stream, how *ending) {
	if s.gone || s.out.ending != nil {
		return
	}
	s.out.ending = how
	c.activate(s)
}

// recentStreams remembers which streams are closed: those that we reset may still
// be sent frames that are on their way.
type recentStreams struct {
	ids   [32]uint32
	reset [32]bool
	next  int
}

func (r *recentStreams) add(id uint32, reset bool) {
	for i := range r.ids {
		if r.ids[i] == id {
			r.reset[i] = r.reset[i] || reset
			return
		}
	}
	r.ids[r.next], r.reset[r.next] = id, reset
	r.next = (r.next + 1) % len(r.ids)
}

// find says whether a stream closed a short while ago, and whether by our reset.
func (r *recentStreams) find(id uint32) (closed, reset bool) {
	for i := range r.ids {
		if r.ids[i] == id {
			return true, r.reset[i]
		}
	}
	return false, false
}
