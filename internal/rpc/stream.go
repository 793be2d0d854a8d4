package rpc

import (
	"encoding/binary"
	"io"
	"net/http"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// stream is one stream of a connection, with a hot call or another. All of it is
// guarded by the connection's mu, but for what does not change.
type stream struct {
	id       uint32
	headers  *headerSet
	deadline time.Time
	method   *method
	call     *Call       // a hot call, or
	cold     *coldStream // one with a goroutine, or
	web      *webStream  // no call, or none of these: it is refused

	gone bool // not in the connection's table

	// What comes in.
	ended    bool  // the client has said all
	received int64 // bytes of data
	window   int   // what the client may still send
	message  inbound
	queued   int // bytes of messages that nobody has taken yet
	extra    int // part of conn.extra
	waits    bool
	stop     bool // what still comes is dropped

	// What goes out.
	sendWindow int64
	out        outbound
}

// inbound puts messages together.
type inbound struct {
	head    [messageHead]byte
	headLen int
	body    []byte
	missing int
	count   int // of whole messages
}

// messageHead is the length of what gRPC puts before each message: a flag and a length.
const messageHead = 5

// outbound is what a stream has to send, in this order.
type outbound struct {
	listed bool // in one of the connection's queues
	// headers are sent before anything else once begun is set; opened says that they
	// were.
	headers     metadata.MD
	encoding    string
	begun       bool
	opened      bool
	pieces      []piece
	first       int // pieces before it are sent
	bytes       int
	parked      int // of bytes: made for a hot call; part of conn.parked
	ending      *ending
	needsWindow bool // waits for the stream's window
}

// piece is a part of a message. Its owner is freed once it is sent.
type piece struct {
	bytes []byte
	owner interface{ Free() }
}

// ending is how a call ends.
type ending struct {
	status     *status.Status
	trailer    metadata.MD
	httpStatus int // 0 is 200
}

// openStream makes the stream of a new call, or refuses it. c.mu is held.
func (c *conn) openStream(id uint32, h *headerSet, shared, ended bool) {
	m := h.method
	var s *stream
	if m != nil && h.refused == nil && m.servedHot(h) {
		call := m.newCall(c)
		s = &call.stream
		s.call = call
		if !shared {
			call.own.copy(h)
			h = &call.own
		}
	} else {
		s = new(stream)
		if !shared {
			own := new(headerSet)
			own.copy(h)
			h = own
		}
	}
	s.id, s.headers, s.method, s.ended = id, h, m, ended
	s.window, s.sendWindow = firstWindow, c.freshWindow
	c.streams[id] = s
	if h.httpStatus == http.StatusUnsupportedMediaType {
		if web := c.server.web.Load(); web != nil {
			c.startWeb(s, web)
			return
		}
	}
	if h.refused != nil {
		// Told once the client has said all: what is no call may be no HTTP either.
		s.stop = true
		if ended {
			c.endRefused(s)
		}
		return
	}
	if h.timed {
		s.deadline = time.Now().Add(h.timeout)
		if !time.Now().Before(s.deadline) { // it was as good as nothing
			s.stop = true
			c.end(s, &ending{status: errExpired})
			return
		}
	}
	if h.timed && m != nil {
		c.watchDeadline(s.deadline)
	}
	switch {
	case s.call != nil:
	case m == nil || m.cold == nil:
		s.stop = true
		c.end(s, &ending{status: status.New(codes.Unimplemented, c.server.unknown(h.path))})
	default:
		c.startCold(s)
	}
}

// endRefused answers what is no call. Who has no gRPC may read why in the body.
func (c *conn) endRefused(s *stream) {
	if s.headers.httpStatus == http.StatusUnsupportedMediaType {
		s.out.begun = true
		s.out.pieces = append(s.out.pieces, piece{bytes: []byte(s.headers.refused.Message() + "\n")})
		s.out.bytes = len(s.out.pieces[0].bytes)
	}
	c.end(s, &ending{status: s.headers.refused, httpStatus: s.headers.httpStatus})
}

// watchDeadline has the deadline of a hot call looked at. c.mu is held.
func (c *conn) watchDeadline(at time.Time) {
	if due := at.Sub(c.server.epoch).Nanoseconds(); due < c.earliest {
		c.earliest = due
		c.server.clock.due(due)
	}
}

// takeData takes the payload of a DATA frame in. It returns a hot call to be begun.
// c.mu is held.
func (c *conn) takeData(s *stream, data []byte, end bool) *Call {
	s.received += int64(len(data))
	if s.headers.length >= 0 && (s.received > s.headers.length || end && s.received != s.headers.length) {
		c.reset(s, http2.ErrCodeProtocol)
		return nil
	}
	for len(data) > 0 && !s.stop {
		if s.web != nil {
			s.queued += len(data)
			s.web.put(data)
			break
		}
		data = c.takePiece(s, data)
	}
	if end {
		return c.takeEnd(s)
	}
	c.grant(s)
	return nil
}

// takePiece takes what belongs to the message that is on its way and returns the
// rest.
func (c *conn) takePiece(s *stream, data []byte) []byte {
	m := &s.message
	if m.headLen < messageHead {
		n := copy(m.head[m.headLen:], data)
		m.headLen += n
		data = data[n:]
		if m.headLen < messageHead {
			return nil
		}
		length := int64(binary.BigEndian.Uint32(m.head[1:]))
		if most := int64(c.server.mostReceived()); length > most {
			c.failReceive(s, status.Newf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", length, most).Err())
			return nil
		}
		if s.call != nil && m.count > 0 {
			c.failReceive(s, errManyMessages)
			return nil
		}
		m.missing = int(length)
	}
	n := min(m.missing, len(data))
	m.body = append(m.body, data[:n]...)
	if m.missing -= n; m.missing == 0 {
		m.count++
		m.headLen = 0
		c.giveBack(s)
		if s.cold != nil {
			s.queued += len(m.body) + messageHead
			s.cold.put(received{flag: m.head[0], body: m.body})
			m.body = nil
		}
	}
	return data[n:]
}

var (
	errManyMessages = status.Error(codes.Internal, "cardinality violation: received multiple request messages for non-client-streaming RPC")
	errNoMessage    = status.Error(codes.Internal, "cardinality violation: received no request message from non-client-streaming RPC")
	errHalfMessage  = status.Error(codes.Internal, io.ErrUnexpectedEOF.Error())
)

// takeEnd learns that the client has said all. c.mu is held.
func (c *conn) takeEnd(s *stream) *Call {
	s.ended = true
	if s.web != nil {
		s.web.fail(io.EOF)
		return nil
	}
	if s.stop {
		if s.headers.refused != nil {
			c.endRefused(s)
		}
		return nil
	}
	var err error
	if s.message.headLen > 0 {
		err = errHalfMessage
	}
	switch {
	case s.cold != nil:
		if err == nil {
			err = io.EOF
		}
		s.cold.fail(err)
		return nil
	case err == nil && s.message.count == 0:
		err = errNoMessage
	case err == nil:
		err = flagFault(s.message.head[0], s.headers.encoding, false)
	}
	if err != nil {
		c.failReceive(s, err)
		return nil
	}
	s.call.inFlight = true
	s.call.begun, s.call.counted = c.lastRead.Load(), true
	s.method.stats.plain.Add(1)
	return s.call
}

// failReceive ends what comes in on a stream with an error. c.mu is held.
func (c *conn) failReceive(s *stream, err error) {
	s.stop = true
	c.giveBack(s)
	if s.cold != nil {
		s.cold.fail(err)
		return
	}
	c.end(s, &ending{status: status.Convert(err)})
}

// flagFault says what is wrong with the flag before a message.
func flagFault(flag byte, encoding string, known bool) error {
	switch {
	case flag == 0:
		return nil
	case flag > 1:
		return status.Errorf(codes.Internal, "grpc: received unexpected payload format %d", flag)
	case encoding == "" || encoding == "identity":
		return status.Error(codes.Internal, "grpc: compressed flag set with identity or empty encoding")
	case !known:
		return status.Errorf(codes.Unimplemented, "grpc: Decompressor is not installed for grpc-encoding %q", encoding)
	}
	return nil
}

// dropOutput forgets what has not been sent.
func (s *stream) dropOutput(c *conn) {
	for _, p := range s.out.pieces[s.out.first:] {
		p.free()
	}
	c.unpark(s, s.out.parked)
	s.out.pieces, s.out.first, s.out.bytes = nil, 0, 0
}

func (p *piece) free() {
	if p.owner != nil {
		p.owner.Free()
	}
}

// streamQueue is a queue of streams.
type streamQueue struct {
	list  []*stream
	first int
}

func (q *streamQueue) len() int { return len(q.list) - q.first }

func (q *streamQueue) push(s *stream) { q.list = append(q.list, s) }

// next is what pop would return; there must be one.
func (q *streamQueue) next() *stream { return q.list[q.first] }

func (q *streamQueue) pop() *stream {
	s := q.list[q.first]
	q.list[q.first] = nil
	if q.first++; q.first == len(q.list) {
		q.list, q.first = q.list[:0], 0
	} else if q.first > 64 && q.first > len(q.list)/2 {
		q.list = append(q.list[:0], q.list[q.first:]...)
		q.first = 0
	}
	return s
}
