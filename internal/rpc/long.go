package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/host"
)

// LongHot is a Hot whose replies may be long. What its Answer leaves for elsewhere
// is made by a Source, in the pool; so is what a client would not take at once that has
// much to take already.
type LongHot interface {
	Hot
	// Source begins the reply to a call whose result was pushed. Each Next of a source
	// of messages makes one message; any other source makes a single one. It runs in
	// the pool. An error ends the call with status.FromError of it.
	Source(call *Call, result host.Result) (src Source, messages bool, err error)
}

// Source makes a reply in slices, at the pace of its reader: the client's windows are
// the only buffer, and while it does not read nothing is being worked on. The pool
// calls all methods, one at a time, but Close.
type Source interface {
	// Next does one slice of the work, a fraction of a millisecond long (rule 32). It
	// appends the next bytes of the reply to dst, no more than dst has room for unless
	// the least that it can append is more. If measure is true there is no room, and
	// it works on what Left is to say. With an error nothing is appended. A *NeedError asks
	// to be called again once there are bytes for what it needs in memory. A source of
	// messages that appends nothing wants another turn.
	Next(dst []byte, measure bool) ([]byte, error)
	// Left is how many bytes are still to be appended; negative while that is not
	// known. A source of messages knows only that none is left.
	Left() int64
	// Head appends what comes before all that Next appends, once Left is known. It is
	// not called of a source of messages.
	Head(dst []byte) []byte
	// Close is the last call, at the end or when the client is gone. It must be quick.
	Close()
}

// NeedError is how a Source asks for bytes of the budget of answers in flight, which
// are given back after its Close.
type NeedError struct{ Bytes int64 }

// Error says how many.
func (e *NeedError) Error() string {
	return fmt.Sprintf("rpc: %d bytes are needed for an answer", e.Bytes)
}

const (
	// chunkBytes are made of a long reply in one slice.
	chunkBytes = 256 << 10
	// leastChunk are made when the budget is spent, for a client that takes them at once.
	leastChunk = 32 << 10
	// lowWater: the next slice is made when less of a reply is unsent.
	lowWater = 128 << 10
	// mostBuffered of a reply are kept before its length is known, more while the
	// budget has as much left. What comes behind is only measured, and made when it is
	// to be sent.
	mostBuffered = 4 << 20
)

// longReply is a reply that a Source makes. It belongs to the goroutine of the pool
// that works on the call, if one does (Call.inFlight), else conn.mu guards it.
type longReply struct {
	src      Source
	messages bool
	measured bool // no more is kept before the length is known
	begun    bool // the client is being sent it
	chunks   []piece
	made     int   // bytes in chunks, charged to the budget
	reserved int64 // and what src asked for
}

// chunk is a buffer of the pool below; as a piece's owner it goes back there.
type chunk struct{ buf []byte }

var (
	chunks = sync.Pool{New: func() any { return &chunk{make([]byte, 0, chunkBytes)} }}
	leasts = sync.Pool{New: func() any { return &chunk{make([]byte, 0, leastChunk)} }}
)

func newChunk(size int) *chunk {
	if size <= leastChunk {
		return leasts.Get().(*chunk)
	}
	return chunks.Get().(*chunk)
}

// Free gives the buffer back.
func (k *chunk) Free() {
	switch k.buf = k.buf[:0]; cap(k.buf) {
	case chunkBytes:
		chunks.Put(k)
	case leastChunk:
		leasts.Put(k)
	}
}

// piece is what was made in the chunk: the chunk itself, or less memory that holds
// the same.
func (k *chunk) piece(made []byte) piece {
	switch {
	case len(made) < cap(k.buf)/2:
		made = append(make([]byte, 0, len(made)), made...)
		k.Free()
		return piece{bytes: made}
	case cap(made) != cap(k.buf): // it had to grow
		k.Free()
		return piece{bytes: made}
	}
	return piece{bytes: made, owner: k}
}

// close ends the source and gives back what is kept. conn.mu is held, or nobody else
// has the call.
func (l *longReply) close(b *budget) {
	if l.src != nil {
		l.src.Close()
	}
	for i := range l.chunks {
		l.chunks[i].free()
	}
	b.give(l.made + int(l.reserved))
	*l = longReply{begun: l.begun}
}

// wants says whether the next slice is to be made. conn.mu is held.
func (l *longReply) wants(s *stream) bool {
	return l.src != nil && l.begun && !s.call.inFlight && s.out.bytes < lowWater && s.out.ending == nil
}

// more has the next slice of a long reply made. c.mu is held.
func (c *conn) more(call *Call) {
	call.inFlight = true
	c.server.pool.add(c, call)
}

// work does one slice of a long reply, in the pool. It returns whether the call is to
// get another turn.
func (c *conn) work(call *Call, hot LongHot) (again bool) {
	l := &call.long
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answerable(call) {
		return false
	}
	if l.src == nil {
		c.mu.Unlock()
		src, messages, err := hot.Source(call, call.result)
		c.mu.Lock()
		l.src, l.messages = src, messages
		if !c.answerable(call) {
			return false
		}
		if err != nil {
			c.failLong(call, err)
			return false
		}
	}
	room, wait := c.roomFor(call)
	if wait {
		call.inFlight = false
		return false
	}
	c.mu.Unlock()
	var k *chunk
	var dst []byte
	if room > 0 {
		k = newChunk(room)
		dst = k.buf
		if l.messages {
			dst = dst[:messageHead]
		}
	}
	out, err := l.src.Next(dst, room == 0)
	if err != nil {
		out = nil
	}
	made := piece{}
	if k != nil {
		made = k.piece(out)
	}
	c.server.budget.give(room - len(out))
	c.mu.Lock()
	if !c.answerable(call) {
		made.free()
		c.server.budget.give(len(out))
		return false
	}
	if err != nil {
		c.failLong(call, err)
		return false
	}
	return c.addSlice(call, made)
}

// roomFor takes bytes for the next slice from the budget. None are taken when it is
// to be measured only; wait says that nothing is to be done now, and that the call is
// found again when something changes. c.mu is held.
func (c *conn) roomFor(call *Call) (room int, wait bool) {
	l, s, b := &call.long, &call.stream, &c.server.budget
	if !l.begun && !l.messages {
		if !l.measured && (l.made < mostBuffered || int64(l.made) < b.left.Load()) && b.take(chunkBytes) {
			return chunkBytes, false
		}
		l.measured = true
		return 0, false
	}
	switch o := &s.out; {
	case b.take(chunkBytes):
		return chunkBytes, false
	case o.bytes > 0: // looked at again when some of it was sent
		return 0, true
	case s.sendWindow <= 0:
		o.needsWindow = true
		return 0, true
	case c.window <= 0:
		c.queueIn(&c.starved, s)
		return 0, true
	case c.parked >= mostParked:
		c.queueIn(&c.patient, s)
		return 0, true
	}
	b.force(leastChunk)
	return leastChunk, false
}

// queueIn has a stream wait in a queue, unless it is in one. c.mu is held.
func (c *conn) queueIn(q *streamQueue, s *stream) {
	if !s.out.listed {
		s.out.listed = true
		q.push(s)
	}
}

// addSlice takes in what a slice has made. c.mu is held.
func (c *conn) addSlice(call *Call, made piece) (again bool) {
	l, s := &call.long, &call.stream
	if l.messages {
		if len(made.bytes) == messageHead {
			made.free()
			c.server.budget.give(messageHead)
			return true
		}
		binary.BigEndian.PutUint32(made.bytes[1:], uint32(len(made.bytes)-messageHead))
		made.bytes[0] = 0
		call.stream.method.stats.sent.Add(1)
	}
	if len(made.bytes) > 0 {
		l.chunks = append(l.chunks, made)
		l.made += len(made.bytes)
	}
	left := l.src.Left()
	if !l.begun {
		if left < 0 && !l.messages {
			return true
		}
		if !l.messages {
			head := l.src.Head(make([]byte, messageHead, 64))
			total := int64(len(head)-messageHead) + int64(l.made) + left
			if total > mostSent {
				c.failLong(call, status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", total, mostSent))
				return false
			}
			binary.BigEndian.PutUint32(head[1:], uint32(total))
			c.queuePieces(s, len(head), piece{bytes: head})
			c.server.budget.force(len(head))
		}
		l.begun, s.out.begun = true, true
	}
	c.queuePieces(s, l.made, l.chunks...)
	clear(l.chunks)
	l.chunks, l.made = l.chunks[:0], 0
	call.inFlight = false
	if left == 0 {
		c.endHot(call, codes.OK, "", c.server.now())
		l.close(&c.server.budget)
		c.end(s, &ending{status: statusOK})
		return false
	}
	if !s.out.needsWindow {
		c.activate(s)
	}
	if l.wants(s) {
		call.inFlight = true
		return true
	}
	return false
}

// queuePieces has bytes sent that the budget was charged for. c.mu is held.
func (c *conn) queuePieces(s *stream, bytes int, all ...piece) {
	s.out.pieces = append(s.out.pieces, all...)
	s.out.bytes += bytes
	s.out.parked += bytes
	c.parked += bytes
}

// failLong ends a long reply with an error. A message that has been begun cannot be
// ended by a status: its stream is reset, by what clients take for Unavailable if
// they may ask again: of what is out of range they are then told that. c.mu is held.
func (c *conn) failLong(call *Call, err error) {
	l, s := &call.long, &call.stream
	var need *NeedError
	if errors.As(err, &need) {
		c.server.budget.wait(c, call, need.Bytes)
		return
	}
	call.inFlight = false
	st := statusOf(err)
	c.endHot(call, st.Code(), st.Message(), c.server.now())
	if l.begun && !l.messages {
		code := http2.ErrCodeInternal
		switch st.Code() {
		case codes.Unavailable, codes.OutOfRange:
			code = http2.ErrCodeRefusedStream
		}
		c.reset(s, code)
		return
	}
	l.close(&c.server.budget)
	c.end(s, &ending{status: st})
}
