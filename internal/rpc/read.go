package rpc

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"golang.org/x/net/http2"
)

const (
	leastRead = 2 << 10
	mostRead  = 32 << 10
	// lingering is how long a connection that we close is read on, so that the client
	// gets what was sent last instead of a reset.
	lingering = time.Second
	// mostContinuations bounds the frames of one header block: they may be empty.
	mostContinuations = 1024
)

// reader is the state of a connection's reading goroutine. Nothing else touches it,
// but for drainText.
type reader struct {
	conn *conn
	buf  []byte // what was read and not parsed yet is buf[:filled]
	dec  *decoder

	window     int // what the client may still send on the connection
	unreturned int // of what it has sent

	// A header block that has not come entirely.
	block         []byte
	blockStream   uint32
	blockEnds     bool
	continuations int

	pings     pingWatch
	drainText string // guarded by conn.mu
}

func (r *reader) init(c *conn) {
	r.conn, r.window = c, connWindow
	r.dec = newDecoder(c.server.lookup)
}

// readLoop reads until the connection ends, for whatever reason.
func (c *conn) readLoop() {
	err := c.readFrames()
	var f *connFault
	if errors.As(err, &f) {
		c.mu.Lock()
		c.goAway(c.maxID, f.code, f.text, closing)
		c.mu.Unlock()
	}
	c.mu.Lock()
	linger := c.phase == closing
	c.mu.Unlock()
	if linger {
		c.net.SetReadDeadline(time.Now().Add(lingering))
		io.CopyN(io.Discard, c.net, 64<<20)
	}
}

// errHandshake closes a connection that does not begin as one should, without a word.
var errHandshake = errors.New("rpc: no HTTP/2")

// readFrames reads what there is, takes in all whole frames of it, and only then
// reads again.
func (c *conn) readFrames() error {
	r := &c.in
	c.net.SetReadDeadline(time.Now().Add(sniff))
	r.buf = make([]byte, leastRead)
	filled, greeted, settled := 0, false, false
	for {
		n, err := c.net.Read(r.buf[filled:])
		filled += n
		if n > 0 {
			c.lastRead.Store(c.server.now())
			c.server.stats.received.Add(uint64(n))
		}
		rest := r.buf[:filled]
		if !greeted && len(rest) >= len(http2.ClientPreface) {
			if string(rest[:len(http2.ClientPreface)]) != http2.ClientPreface {
				return errHandshake
			}
			greeted, rest = true, rest[len(http2.ClientPreface):]
		}
		need := 0
		for greeted {
			var f frame
			var bad error
			f, rest, need, bad = parseFrame(rest)
			if bad == nil && need > 0 {
				break
			}
			if !settled {
				if bad != nil || f.kind != http2.FrameSettings || f.has(http2.FlagSettingsAck) {
					return fault(http2.ErrCodeProtocol, "the first frame is not SETTINGS")
				}
				settled = true
				c.net.SetReadDeadline(time.Time{})
			}
			if bad != nil {
				return bad
			}
			if bad := r.take(&f); bad != nil {
				return bad
			}
		}
		if err != nil {
			return err
		}
		if !c.makeRoom() {
			return io.EOF
		}
		full := filled == len(r.buf)
		filled = copy(r.buf, rest)
		if (full || need > len(r.buf)) && len(r.buf) < mostRead {
			r.buf = append(make([]byte, 0, mostRead), r.buf[:filled]...)[:mostRead]
		}
	}
}

// makeRoom waits while the client has us keep too much: answers that it does not
// read, or calls that it has given up. It returns false when the connection is over.
func (c *conn) makeRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for (len(c.control) > mostControl || c.abandoned > mostAbandoned) && c.phase < closing {
		c.room.Wait()
	}
	return c.phase < closing
}

// take takes one frame in. An error ends the connection.
func (r *reader) take(f *frame) error {
	if r.blockStream != 0 && (f.kind != http2.FrameContinuation || f.stream != r.blockStream) {
		return fault(http2.ErrCodeProtocol, "a header block is interrupted")
	}
	switch f.kind {
	case http2.FrameData:
		return r.takeData(f)
	case http2.FrameHeaders:
		return r.takeHeaders(f)
	case http2.FrameContinuation:
		return r.takeContinuation(f)
	case http2.FramePriority:
		return r.takePriority(f)
	case http2.FrameRSTStream:
		return r.takeReset(f)
	case http2.FrameSettings:
		return r.takeSettings(f)
	case http2.FramePing:
		return r.takePing(f)
	case http2.FrameWindowUpdate:
		return r.takeWindowUpdate(f)
	case http2.FrameGoAway:
		if f.stream != 0 {
			return fault(http2.ErrCodeProtocol, "GOAWAY on a stream")
		}
		if len(f.payload) < 8 {
			return fault(http2.ErrCodeFrameSize, "GOAWAY too short")
		}
	case http2.FramePushPromise:
		return fault(http2.ErrCodeProtocol, "PUSH_PROMISE of a client")
	}
	return nil // of a kind that is not known: ignored (RFC 9113, 5.5)
}

// absent judges a frame on a stream that is not in the table: an error unless the
// stream was closed before. c.mu is held.
func (r *reader) absent(id uint32) error {
	if id == 0 || id > r.conn.maxID || id%2 == 0 {
		return fault(http2.ErrCodeProtocol, "a frame on a stream that is idle")
	}
	return nil
}

func (r *reader) takeData(f *frame) error {
	data, err := f.unpad()
	if err != nil {
		return err
	}
	c := r.conn
	if r.window -= len(f.payload); r.window < 0 {
		return fault(http2.ErrCodeFlowControl, "more data than the connection's window")
	}
	r.unreturned += len(f.payload)
	var call *Call
	c.mu.Lock()
	if r.unreturned >= connWindow/4 {
		c.control = appendWindowUpdate(c.control, 0, r.unreturned)
		r.window += r.unreturned
		r.unreturned = 0
		c.wakeWriter()
	}
	s := c.streams[f.stream]
	switch {
	case s == nil:
		if err = r.absent(f.stream); err == nil {
			if _, reset := c.recent.find(f.stream); !reset && (c.phase < draining || f.stream <= c.maxID) {
				c.recent.add(f.stream, true)
				c.control = appendReset(c.control, f.stream, http2.ErrCodeStreamClosed)
				c.wakeWriter()
			}
		}
	case s.ended:
		c.reset(s, http2.ErrCodeStreamClosed)
	case len(f.payload) > s.window:
		c.reset(s, http2.ErrCodeFlowControl)
	default:
		s.window -= len(f.payload)
		call = c.takeData(s, data, f.has(http2.FlagDataEndStream))
	}
	c.mu.Unlock()
	if call != nil {
		call.stream.method.hot.Begin(call, call.message.body)
	}
	return err
}

func (r *reader) takeHeaders(f *frame) error {
	if f.stream%2 == 0 {
		return fault(http2.ErrCodeProtocol, "HEADERS on a stream that is none of a client's")
	}
	block, err := f.unpad()
	if err != nil {
		return err
	}
	if f.has(http2.FlagHeadersPriority) {
		if len(block) < 5 {
			return fault(http2.ErrCodeFrameSize, "HEADERS too short for its priority")
		}
		if binary.BigEndian.Uint32(block)&mostWindow == f.stream {
			return fault(http2.ErrCodeProtocol, "a stream that depends on itself")
		}
		block = block[5:]
	}
	ends := f.has(http2.FlagHeadersEndStream)
	if f.has(http2.FlagHeadersEndHeaders) {
		return r.takeBlock(f.stream, block, ends)
	}
	r.block = append(r.block[:0], block...)
	r.blockStream, r.blockEnds, r.continuations = f.stream, ends, 0
	return nil
}

func (r *reader) takeContinuation(f *frame) error {
	if r.blockStream == 0 {
		return fault(http2.ErrCodeProtocol, "CONTINUATION of nothing")
	}
	r.continuations++
	if len(r.block)+len(f.payload) > mostHeaders || r.continuations > mostContinuations {
		return fault(http2.ErrCodeEnhanceYourCalm, "a header block without end")
	}
	r.block = append(r.block, f.payload...)
	if !f.has(http2.FlagContinuationEndHeaders) {
		return nil
	}
	id := r.blockStream
	r.blockStream = 0
	err := r.takeBlock(id, r.block, r.blockEnds)
	if cap(r.block) > mostRead {
		r.block = nil
	}
	return err
}

// takeBlock takes a whole header block in: a new call, or what comes behind the
// messages of one.
func (r *reader) takeBlock(id uint32, block []byte, ends bool) error {
	h, shared, err := r.dec.decode(block)
	if err != nil {
		return err
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		return c.takeTrailers(s, h, ends)
	}
	if id <= c.maxID {
		if closed, reset := c.recent.find(id); closed {
			if reset {
				return nil
			}
			return fault(http2.ErrCodeStreamClosed, "HEADERS on a stream that is closed")
		}
		return fault(http2.ErrCodeProtocol, "received an illegal stream id")
	}
	c.maxID = id
	if c.phase >= draining {
		return nil // the client was told that it is not served
	}
	code := http2.ErrCodeNo
	switch {
	case h.malformed || h.trailers:
		code = http2.ErrCodeProtocol
	case h.large:
		code = http2.ErrCodeFrameSize
	case h.length > 0 && ends:
		code = http2.ErrCodeProtocol
	case uint64(len(c.streams)+c.abandoned) >= uint64(c.server.limits.MaxConcurrentStreams):
		code = http2.ErrCodeRefusedStream
	}
	if code != http2.ErrCodeNo {
		c.recent.add(id, true)
		c.control = appendReset(c.control, id, code)
		c.wakeWriter()
		return nil
	}
	c.openStream(id, h, shared, ends)
	if s := c.streams[id]; ends && s != nil && s.headers.refused == nil && !s.stop {
		c.takeEnd(s)
	}
	return nil
}

// takeTrailers takes headers in that come behind the messages. What they say matters
// to nobody.
func (c *conn) takeTrailers(s *stream, h *headerSet, ends bool) error {
	switch {
	case s.ended:
		c.reset(s, http2.ErrCodeStreamClosed)
	case !ends || !h.trailers || h.malformed:
		c.reset(s, http2.ErrCodeProtocol)
	default:
		if call := c.takeData(s, nil, true); call != nil {
			c.mu.Unlock()
			call.stream.method.hot.Begin(call, call.message.body)
			c.mu.Lock()
		}
	}
	return nil
}

func (r *reader) takePriority(f *frame) error {
	switch {
	case f.stream == 0:
		return fault(http2.ErrCodeProtocol, "PRIORITY of the connection")
	case len(f.payload) != 5:
		return fault(http2.ErrCodeFrameSize, "PRIORITY of a wrong length")
	case binary.BigEndian.Uint32(f.payload)&mostWindow == f.stream:
		return fault(http2.ErrCodeProtocol, "a stream that depends on itself")
	}
	return nil
}

func (r *reader) takeReset(f *frame) error {
	if len(f.payload) != 4 {
		return fault(http2.ErrCodeFrameSize, "RST_STREAM of a wrong length")
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[f.stream]
	if s == nil {
		return r.absent(f.stream)
	}
	c.remove(s)
	return nil
}

func (r *reader) takeSettings(f *frame) error {
	switch {
	case f.stream != 0:
		return fault(http2.ErrCodeProtocol, "SETTINGS on a stream")
	case f.has(http2.FlagSettingsAck) && len(f.payload) > 0, len(f.payload)%6 != 0:
		return fault(http2.ErrCodeFrameSize, "SETTINGS of a wrong length")
	case f.has(http2.FlagSettingsAck):
		return nil
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := f.payload; len(p) > 0; p = p[6:] {
		if err := c.obey(http2.SettingID(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.control = appendFrameHead(c.control, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	c.wakeWriter()
	return nil
}

// obey does what one setting of the client says. c.mu is held.
func (c *conn) obey(setting http2.SettingID, value uint32) error {
	switch setting {
	case http2.SettingHeaderTableSize:
		c.tableSize = value
	case http2.SettingEnablePush:
		if value > 1 {
			return fault(http2.ErrCodeProtocol, "SETTINGS_ENABLE_PUSH is neither 0 nor 1")
		}
	case http2.SettingInitialWindowSize:
		if value > mostWindow {
			return fault(http2.ErrCodeFlowControl, "a first window that is too large")
		}
		more := int64(value) - c.freshWindow
		c.freshWindow = int64(value)
		for _, s := range c.streams {
			if !c.moreStreamWindow(s, more) {
				return fault(http2.ErrCodeFlowControl, "a window that is too large")
			}
		}
	case http2.SettingMaxFrameSize:
		if value < 16384 || value > 1<<24-1 {
			return fault(http2.ErrCodeProtocol, "a largest frame that is none")
		}
	case http2.SettingMaxHeaderListSize:
		c.mostFields = value
	}
	return nil
}

func (r *reader) takeWindowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return fault(http2.ErrCodeFrameSize, "WINDOW_UPDATE of a wrong length")
	}
	more := binary.BigEndian.Uint32(f.payload) & mostWindow
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream == 0 {
		if more == 0 {
			return fault(http2.ErrCodeProtocol, "WINDOW_UPDATE by nothing")
		}
		if !c.moreWindow(more) {
			return fault(http2.ErrCodeFlowControl, "a window that is too large")
		}
		return nil
	}
	s := c.streams[f.stream]
	switch {
	case s == nil:
		return r.absent(f.stream)
	case more == 0:
		c.reset(s, http2.ErrCodeProtocol)
	case !c.moreStreamWindow(s, int64(more)):
		c.reset(s, http2.ErrCodeFlowControl)
	}
	return nil
}
