package rpc

import (
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// writeSize is about how much one write sends.
const writeSize = 128 << 10

// keptBuffer is the largest buffer that a connection keeps while it has nothing to
// send. Who has more than that to send takes one of pooledBuffer bytes, which a write
// and its last frame fit into, and gives it back.
const (
	keptBuffer   = 16 << 10
	pooledBuffer = writeSize + 2*maxFrame
)

// writeBuffer is a buffer of the pool that nobody writes with.
type writeBuffer struct{ bytes []byte }

var writeBuffers = sync.Pool{New: func() any { return &writeBuffer{make([]byte, 0, pooledBuffer)} }}

// writeLoop sends what gathers until the connection is over.
func (c *conn) writeLoop() {
	var buf []byte
	for {
		var calls *Call
		var over bool
		buf, calls, over = c.gather(buf[:0])
		if calls != nil {
			c.answering = c.server.now()
		}
		for calls != nil {
			call := calls
			calls, call.next = call.next, nil
			buf = c.answer(buf, call)
			if len(buf) >= writeSize && !c.send(&buf) {
				return
			}
		}
		buf = c.flush(buf)
		if len(buf) > 0 && !c.send(&buf) {
			return
		}
		if over {
			c.shut()
			return
		}
	}
}

// send writes what was made so far.
func (c *conn) send(buf *[]byte) bool {
	n, err := c.net.Write(*buf)
	c.server.stats.sent.Add(uint64(n))
	*buf = (*buf)[:0]
	if cap(*buf) > 4*writeSize {
		*buf = nil
	}
	if err != nil {
		c.mu.Lock()
		c.cut()
		c.mu.Unlock()
		return false
	}
	return true
}

// shut says that nothing more comes; the reader waits a little for the client to
// close its side.
func (c *conn) shut() {
	if half, ok := unwrapped(c.net).(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		c.net.SetReadDeadline(time.Now().Add(lingering))
		return
	}
	c.net.Close()
}

func unwrapped(nc net.Conn) net.Conn {
	if p, ok := nc.(*peekedConn); ok {
		return p.Conn
	}
	return nc
}

// gather waits until there is something to send. It takes the control frames and the
// hot calls that are done. over says that nothing comes after these.
func (c *conn) gather(buf []byte) (_ []byte, calls *Call, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if cap(buf) < pooledBuffer && c.active.len() > 0 && max(c.parked, c.active.next().out.bytes) > keptBuffer {
			buf = writeBuffers.Get().(*writeBuffer).bytes
		}
		if len(c.control) > 0 {
			if len(c.control) > mostControl {
				c.room.Signal()
			}
			buf = append(buf, c.control...)
			c.control = c.control[:0]
		}
		calls, c.done, c.lastDone = c.done, nil, nil
		over = c.phase >= closing
		if len(buf) > 0 || calls != nil || c.active.len() > 0 || over {
			if c.enc.limit != c.tableSize {
				c.enc.resize(c.tableSize)
			}
			return buf, calls, over
		}
		c.asleep = true
		c.mu.Unlock()
		if cap(buf) > keptBuffer {
			if cap(buf) == pooledBuffer {
				writeBuffers.Put(&writeBuffer{buf})
			}
			buf = nil
		}
		<-c.wake
		// Whoever woke us has more to say: the others on this connection, too.
		runtime.Gosched()
		c.mu.Lock()
	}
}

// answer appends the answer to a hot call that is done, or what of it may be sent.
func (c *conn) answer(buf []byte, call *Call) []byte {
	c.mu.Lock()
	if !c.answerable(call) {
		c.mu.Unlock()
		return buf
	}
	elsewhere := call.stream.method.streams
	if call.err == nil && c.mustHold(call) {
		if elsewhere = call.stream.method.long != nil; !elsewhere {
			c.hold(call)
			c.mu.Unlock()
			return buf
		}
	}
	c.mu.Unlock()
	switch {
	case call.err != nil:
		c.refuse(call, call.err)
		return buf
	case elsewhere: // where answers are made as the client takes them
		c.server.pool.add(c, call)
		return buf
	}
	start, saved := len(buf), c.enc
	buf = appendFrameHead(buf, 0, 0, 0, 0)
	buf = c.enc.headers(buf, 200, call.headers.subtype)
	buf = appendBlock(buf, start, call.id, false, c.mostFrame)
	at := len(buf)
	buf = append(buf, make([]byte, frameHead+messageHead)...)
	var err error
	if call.replied {
		if len(call.reply) <= c.mostFrame {
			buf = append(buf, call.reply...)
		}
	} else {
		var longer []byte
		if longer, err = call.stream.method.hot.Answer(buf, call, call.result); err == nil {
			buf = longer
		}
	}
	if err != nil {
		c.enc = saved
		if errors.Is(err, ErrElsewhere) {
			c.server.pool.add(c, call)
		} else {
			c.refuse(call, err)
		}
		return buf[:start]
	}
	return c.finishAnswer(buf, start, at, saved, call)
}

// answerable says whether somebody still waits for a call's result; if not, the call
// has ended. c.mu is held.
func (c *conn) answerable(call *Call) bool {
	switch {
	case call.gone:
		call.inFlight = false
		c.abandonedEnded()
		call.free()
		return false
	case call.out.ending != nil: // expired
		call.inFlight = false
		return false
	}
	return true
}

// mustHold says whether an answer would be too much: the client does not take what was
// made before, and that is all that one connection may have or all that there is.
// c.mu is held.
func (c *conn) mustHold(call *Call) bool {
	if call.sendWindow >= firstWindow && c.window > 0 {
		return false
	}
	return c.parked >= mostParked || c.parked >= connShare && c.server.budget.spent()
}

// hold keeps a result until less is parked. c.mu is held.
func (c *conn) hold(call *Call) {
	if c.lastHeld == nil {
		c.held = call
	} else {
		c.lastHeld.next = call
	}
	c.lastHeld = call
}

// refuse ends a hot call with an error.
func (c *conn) refuse(call *Call, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answerable(call) {
		call.inFlight = false
		st := statusOf(err)
		c.endHot(call, st.Code(), st.Message(), c.answering)
		c.end(&call.stream, &ending{status: st})
	}
}

// statusOf is what the client sees of an error of a handler.
func statusOf(err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	return status.FromContextError(err)
}

// finishAnswer completes the answer whose headers begin at start and whose message
// begins after the heads at: with its trailers if the windows allow all of it, else
// the message is parked.
func (c *conn) finishAnswer(buf []byte, start, at int, saved encoder, call *Call) []byte {
	message := buf[at+frameHead+messageHead:]
	if call.replied {
		message = call.reply
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answerable(call) {
		c.enc = saved
		return buf[:start]
	}
	call.inFlight = false
	c.endHot(call, codes.OK, "", c.answering)
	c.wrote.Store(true)
	s, n := &call.stream, messageHead+len(message)
	s.out.begun, s.out.opened = true, true
	if n <= c.mostFrame && int64(n) <= min(c.window, s.sendWindow) {
		patchFrameHead(buf[at:at+frameHead], n, http2.FrameData, 0, s.id)
		buf[at+frameHead] = 0
		binary.BigEndian.PutUint32(buf[at+frameHead+1:], uint32(len(message)))
		c.window -= int64(n)
		begin := len(buf)
		buf = appendFrameHead(buf, 0, 0, 0, 0)
		buf = c.enc.status(c.enc.begin(buf), 0, "")
		buf = appendBlock(buf, begin, s.id, true, c.mostFrame)
		c.remove(s)
		return buf
	}
	head := make([]byte, messageHead, messageHead+len(message))
	binary.BigEndian.PutUint32(head[1:], uint32(len(message)))
	if call.replied {
		s.out.pieces = append(s.out.pieces, piece{bytes: head}, piece{bytes: message})
		call.reply = nil
	} else {
		s.out.pieces = append(s.out.pieces, piece{bytes: append(head, message...)})
	}
	s.out.bytes += n
	s.out.parked += n
	c.parked += n
	c.server.budget.force(n)
	c.end(s, &ending{status: statusOK})
	return buf[:at]
}

var statusOK = status.New(codes.OK, "")

// flush appends what the streams have to send, a frame of each in turn, as far as the
// windows allow and a write is worth.
func (c *conn) flush(buf []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.active.len() > 0 && len(buf) < writeSize {
		s := c.active.pop()
		s.out.listed = false
		if !s.gone {
			buf = c.flushStream(buf, s)
		}
	}
	return buf
}

// flushStream appends the headers of a stream, a frame of its data, and its end.
func (c *conn) flushStream(buf []byte, s *stream) []byte {
	o := &s.out
	if o.begun && !o.opened {
		var ok bool
		if buf, ok = c.appendHeaders(buf, s); !ok {
			return buf
		}
	}
	if o.bytes > 0 {
		n := min(int64(o.bytes), int64(c.mostFrame), c.window, s.sendWindow)
		if n <= 0 {
			if s.sendWindow <= 0 {
				o.needsWindow = true
			} else {
				o.listed = true
				c.starved.push(s)
			}
			return buf
		}
		c.wrote.Store(true)
		buf = appendDataHead(buf, int(n), s.id)
		buf = o.take(buf, int(n))
		c.window -= n
		s.sendWindow -= n
		switch {
		case s.cold != nil:
			s.cold.sent()
		case s.web != nil:
			s.web.sent()
		}
		c.unpark(s, int(n))
	}
	if s.call != nil && s.call.long.wants(s) {
		c.more(s.call)
	}
	if o.bytes > 0 {
		o.listed = true
		c.active.push(s)
		return buf
	}
	if o.ending != nil {
		buf = c.appendEnding(buf, s)
	}
	return buf
}

// take moves n bytes of the pieces to dst.
func (o *outbound) take(dst []byte, n int) []byte {
	o.bytes -= n
	for n > 0 {
		p := &o.pieces[o.first]
		k := min(n, len(p.bytes))
		dst = append(dst, p.bytes[:k]...)
		p.bytes = p.bytes[k:]
		n -= k
		if len(p.bytes) == 0 {
			p.free()
			*p = piece{}
			o.first++
		}
	}
	if o.first == len(o.pieces) {
		o.pieces, o.first = o.pieces[:0], 0
	}
	return dst
}

// appendHeaders appends the header block before the messages. It returns false when
// the client does not take as much, and the stream is reset.
func (c *conn) appendHeaders(buf []byte, s *stream) ([]byte, bool) {
	begin, saved := len(buf), c.enc
	buf = appendFrameHead(buf, 0, 0, 0, 0)
	if s.web != nil {
		buf = s.web.appendFields(buf, &c.enc)
	} else {
		buf = c.enc.headers(buf, max(200, s.headers.httpStatus), s.headers.subtype)
		if s.out.encoding != "" {
			buf = appendField(buf, "grpc-encoding", s.out.encoding)
		}
		buf = appendMetadata(buf, s.out.headers)
	}
	if !c.fits(buf, begin) {
		c.enc = saved
		c.reset(s, http2.ErrCodeInternal)
		return buf[:begin], false
	}
	s.out.opened = true
	c.wrote.Store(true)
	return appendBlock(buf, begin, s.id, false, c.mostFrame), true
}

// fits says whether a block is one that the client wants; its bytes are counted,
// which are fewer than the list is long, and the rest guessed.
func (c *conn) fits(buf []byte, begin int) bool {
	return uint64(len(buf)-begin-frameHead) <= uint64(c.mostFields)
}

// appendEnding appends the end of a stream and takes it out of the table.
func (c *conn) appendEnding(buf []byte, s *stream) []byte {
	if s.web != nil {
		buf = appendFrameHead(buf, 0, http2.FrameData, http2.FlagDataEndStream, s.id)
	} else {
		var ok bool
		if buf, ok = c.appendTrailers(buf, s); !ok {
			return buf
		}
	}
	c.wrote.Store(true)
	id, ended := s.id, s.ended
	c.remove(s)
	if !ended { // what the client would still send is of no use
		c.recent.add(id, true)
		buf = appendReset(buf, id, http2.ErrCodeNo)
	}
	return buf
}

// appendTrailers appends the trailers, alone if nothing came before them. It returns
// false when the client does not take as much, and the stream is reset.
func (c *conn) appendTrailers(buf []byte, s *stream) ([]byte, bool) {
	e := s.out.ending
	begin, saved := len(buf), c.enc
	buf = appendFrameHead(buf, 0, 0, 0, 0)
	if s.out.opened {
		buf = c.enc.begin(buf)
	} else {
		buf = c.enc.headers(buf, max(200, e.httpStatus), s.headers.subtype)
	}
	buf = c.enc.status(buf, uint32(e.status.Code()), e.status.Message())
	trailer := e.trailer
	if len(e.status.Proto().GetDetails()) > 0 {
		if details, err := proto.Marshal(e.status.Proto()); err == nil {
			buf = appendField(buf, "grpc-status-details-bin", encodeBinary(string(details)))
			trailer = trailer.Copy()
			trailer.Delete("grpc-status-details-bin")
		}
	}
	buf = appendMetadata(buf, trailer)
	if !c.fits(buf, begin) {
		c.enc = saved
		c.reset(s, http2.ErrCodeInternal)
		return buf[:begin], false
	}
	return appendBlock(buf, begin, s.id, true, c.mostFrame), true
}

// pieces cuts a message into pieces behind its head.
func pieces(flag byte, message mem.BufferSlice) (all []piece, bytes int) {
	head := make([]byte, messageHead)
	head[0] = flag
	binary.BigEndian.PutUint32(head[1:], uint32(message.Len()))
	all = append(make([]piece, 0, 1+len(message)), piece{bytes: head})
	for _, b := range message {
		if b.Len() == 0 {
			b.Free()
			continue
		}
		all = append(all, piece{bytes: b.ReadOnlyData(), owner: b})
	}
	return all, messageHead + message.Len()
}
