package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// outConn is a connection that we made: messages go out on it, signs of life and
// answers come back.
type outConn struct {
	net.Conn
	url     string
	version string // of the other program
	frames  *frameReader

	once sync.Once
	dead chan struct{} // closed by end
	err  error         // why; valid after dead is closed

	mu      sync.Mutex
	asked   uint64
	waiting map[uint64]chan answer
}

// end closes the connection; the first reason is kept.
func (c *outConn) end(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.dead)
		cut(c.Conn)
	})
}

// dial connects to one URL and greets. The lane is up when it returns.
func (l *lane) dial(place string) (_ *outConn, err error) {
	ctx, cancel := context.WithTimeout(l.p.ctx, l.t.opts.Limits.Handshake)
	defer cancel()
	conn, err := l.open(ctx, place)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	// Greetings end with the deadline, or with the peer.
	stop := context.AfterFunc(ctx, func() { cut(conn) })
	defer stop()
	c := &outConn{Conn: conn, url: place, dead: make(chan struct{}), waiting: map[uint64]chan answer{}}
	c.frames = &frameReader{from: &patient{conn: conn}, limit: maxGreeting, fresh: 512}
	if err := l.greet(c); err != nil {
		cut(conn)
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer to the greeting: %w", ctx.Err())
		}
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return c, nil
}

// open makes the connection, in TLS where the URL says so.
func (l *lane) open(ctx context.Context, place string) (net.Conn, error) {
	u, err := url.Parse(place)
	if err != nil {
		return nil, err
	}
	network, address, secure := "tcp", u.Host, false
	switch u.Scheme {
	case "http":
	case "https":
		secure = true
	case "unix", "unixs":
		network, address, secure = "unix", u.Host+u.Path, u.Scheme == "unixs"
	default:
		return nil, fmt.Errorf("unknown scheme %q", u.Scheme)
	}
	if secure && l.t.opts.ClientTLS == nil {
		return nil, errors.New("this member has no TLS configuration for its peers")
	}
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	if l.t.opts.From != nil && network == "tcp" {
		dialer.LocalAddr = &net.TCPAddr{IP: l.t.opts.From}
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil || !secure {
		return conn, err
	}
	cfg := l.t.opts.ClientTLS()
	if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname()
	}
	shielded := tls.Client(conn, cfg)
	if err := shielded.HandshakeContext(ctx); err != nil {
		conn.Close()
		var clear tls.RecordHeaderError
		if errors.As(err, &clear) {
			err = errors.New("the other side does not speak TLS: should the URL be http?")
		}
		return nil, err
	}
	return shielded, nil
}

// greet says who we are and whom we mean, and takes the answer.
func (l *lane) greet(c *outConn) error {
	t := l.t
	t.mu.Lock()
	urls := t.urls
	t.mu.Unlock()
	h := &hello{lowest: lowestVersion, highest: highestVersion, lane: l.number, cluster: t.opts.Cluster,
		from: t.opts.Member, to: l.p.id, ping: t.opts.Limits.Ping, silence: t.opts.Limits.Silence,
		server: t.opts.Version, urls: urls[:min(len(urls), maxURLs)]}
	buf, err := appendFrame([]byte(magic), frameHello, h)
	if err != nil {
		return err
	}
	if _, err := c.Write(buf); err != nil {
		return err
	}
	kind, body, err := c.frames.next()
	if err != nil {
		return explain(err, c.frames)
	}
	if kind != frameReply {
		return errStrange
	}
	r, err := decodeReply(body)
	switch {
	case err != nil:
		return err
	case r.code != welcome:
		return &refused{r.code, r.text}
	case r.cluster != t.opts.Cluster || r.member != l.p.id:
		return fmt.Errorf("member %v of cluster %v answered for member %v of %v", r.member, r.cluster, l.p.id, t.opts.Cluster)
	}
	c.version = r.server
	return nil
}

// explain says what the other side speaks when it is not our protocol.
func explain(err error, f *frameReader) error {
	got := f.block[f.first:f.last]
	switch {
	case bytes.HasPrefix(got, []byte("HTTP/")):
		return errors.New("the other side answers in HTTP: it is no peer of this protocol")
	case len(got) >= 2 && got[0] == 0x15 && got[1] == 3:
		return errors.New("the other side speaks TLS: should the URL be https?")
	}
	return err
}

// patient reads with a deadline that begins anew with every read; 0 is none. read,
// when set, is told how much came.
type patient struct {
	conn    net.Conn
	silence time.Duration
	read    func(n int) error
}

// Read implements io.Reader.
func (p *patient) Read(buf []byte) (int, error) {
	if p.silence > 0 {
		if err := p.conn.SetReadDeadline(time.Now().Add(p.silence)); err != nil {
			return 0, err
		}
	}
	n, err := p.conn.Read(buf)
	if n == 0 && errors.Is(err, errTimeout) && p.silence > 0 {
		// It may be this process that was late: what has come counts.
		if err := p.conn.SetReadDeadline(time.Now().Add(lateness)); err != nil {
			return 0, err
		}
		n, err = p.conn.Read(buf)
	}
	if err == nil && p.read != nil {
		err = p.read(n)
	}
	return n, err
}

// lateness is for a look at what came while this process stood still.
const lateness = 5 * time.Millisecond

// cut closes a connection without a last word: that of TLS may wait for seconds
// when the other side takes nothing.
func cut(conn net.Conn) {
	for {
		below, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			conn.Close()
			return
		}
		conn = below.NetConn()
	}
}

// carry writes to a connection what is sent until it is lost, and says why.
func (l *lane) carry(c *outConn) error {
	stop := context.AfterFunc(l.p.ctx, func() { c.end(net.ErrClosed) })
	defer stop()
	l.set(up, c)
	l.p.connected(l.number, c.url, c.version)
	var reader sync.WaitGroup
	reader.Go(func() { c.end(l.listen(c)) })
	w := writer{l: l, c: c, stall: l.t.opts.Limits.Stall}
	c.end(w.run())
	reader.Wait()
	return c.err
}

// listen takes what comes back on a connection that we made.
func (l *lane) listen(c *outConn) error {
	c.frames.from = &patient{conn: c.Conn, silence: l.t.opts.Limits.Silence}
	c.frames.limit = maxBody
	for {
		kind, body, err := c.frames.next()
		switch {
		case errors.Is(err, errTimeout):
			return errors.New("no sign of life")
		case err != nil:
			return err
		}
		switch kind {
		case framePong:
			if len(body) == 8 && l.number == Control {
				took := time.Now().UnixNano() - int64(binary.LittleEndian.Uint64(body))
				l.p.rtt.Store(took)
				l.p.rtts.Observe(max(took, 0)) // the calendar may have been set
			}
		case frameAnswer:
			a, ok := decodeAnswer(body)
			if !ok {
				return errStrange
			}
			c.take(a)
		default:
			return errStrange
		}
	}
}

const (
	// gather is how much is written at once.
	gather = 256 << 10
	// piece must get through within Limits.Stall: slower is not alive.
	piece = 128 << 10
)

// writer writes what is sent on a lane to one connection.
type writer struct {
	l     *lane
	c     *outConn
	stall time.Duration
	ping  *time.Ticker
	buf   []byte
	// What buf holds.
	messages uint64
	bytes    int
}

func (w *writer) run() error {
	w.ping = time.NewTicker(w.l.t.opts.Limits.Ping)
	defer w.ping.Stop()
	var items []item
	idle := false
	for {
		items = w.l.take(items)
		if len(items) > 0 {
			idle = false
			if err := w.write(items); err != nil {
				return err
			}
			if !w.pingDue() {
				continue
			}
			if err := w.flush(); err != nil {
				return err
			}
			continue
		}
		select {
		case <-w.l.wake:
		case <-w.c.dead:
			return w.c.err
		case <-w.ping.C:
			if idle && cap(w.buf) > 4<<10 {
				w.buf = nil // a member at rest costs no memory
			}
			idle = true
			w.addPing()
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
}

// write encodes and writes messages, many at once; signs of life go between.
func (w *writer) write(items []item) error {
	for i := range items {
		it := &items[i]
		if it.only == nil || it.only == w.c {
			if err := w.add(it); err != nil {
				return err
			}
		}
		w.messages++
		w.bytes += it.size
		if len(w.buf) >= gather {
			if err := w.flush(); err != nil {
				return err
			}
			w.pingDue()
		}
	}
	return w.flush()
}

// pingDue adds a sign of life if it is time.
func (w *writer) pingDue() bool {
	select {
	case <-w.ping.C:
		w.addPing()
		return true
	default:
		return false
	}
}

// add encodes one message. One that is too long for the protocol is left out: it
// would end every connection.
func (w *writer) add(it *item) (err error) {
	if w.buf, err = appendFrame(w.buf, it.kind, it.message); err != nil {
		w.l.t.log.Error("a message to a peer is too long", "peer-id", w.l.p.id.String(), "size", it.message.Size())
	}
	return nil
}

func (w *writer) addPing() {
	now := binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
	w.buf, _ = appendFrame(w.buf, framePing, raw(now))
}

// flush writes buf in pieces, each with a deadline.
func (w *writer) flush() error {
	for rest := w.buf; len(rest) > 0; {
		n := min(len(rest), piece)
		if err := w.c.SetWriteDeadline(time.Now().Add(w.stall)); err != nil {
			return err
		}
		if _, err := w.c.Write(rest[:n]); err != nil {
			if errors.Is(err, errTimeout) {
				return errors.New("the other side takes nothing")
			}
			return err
		}
		rest = rest[n:]
	}
	w.l.wrote(w.messages, w.bytes)
	w.l.p.sent.Add(uint64(len(w.buf)))
	w.buf, w.messages, w.bytes = w.buf[:0], 0, 0
	return nil
}
