package tlsfiles

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Serving says how a port is served. One of TLS and Plain must be set; with both,
// the first byte of a connection decides.
type Serving struct {
	TLS   *tls.Config
	Plain bool
	// Endpoint names the port in logs: client, peer or metrics.
	Endpoint string
	Log      *slog.Logger // nil is none
}

// patience bounds the first byte and the handshake of a connection
// (spec/server-ops.md 7).
const patience = 10 * time.Second

// Listen accepts from l and does the handshakes, each on a goroutine of its own, so
// that a slow one delays nobody. What comes out of it is a *tls.Conn whose handshake
// is done, or a connection in clear text, from which nothing was read as far as its
// user can see. Who speaks the wrong one is told so and closed, with a log line.
func Listen(l net.Listener, s Serving) net.Listener {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	d := &door{Listener: l, s: s, ready: make(chan net.Conn), failed: make(chan struct{}), open: map[net.Conn]bool{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	go d.accept()
	return d
}

type door struct {
	net.Listener
	s      Serving
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	ready  chan net.Conn
	failed chan struct{}
	err    error // why accepting ended; valid after failed is closed

	mu sync.Mutex
	// open are the connections that are not ready yet; nil after Close.
	open map[net.Conn]bool
	told map[string]time.Time
}

func (d *door) accept() {
	defer close(d.failed)
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			if d.err = err; d.ctx.Err() != nil {
				d.err = net.ErrClosed
			}
			return
		}
		d.mu.Lock()
		if d.open == nil {
			conn.Close()
		} else {
			d.open[conn] = true
			go d.welcome(conn)
		}
		d.mu.Unlock()
	}
}

// welcome finds out what a connection speaks and shakes hands.
func (d *door) welcome(conn net.Conn) {
	good, err := d.shake(conn)
	if err != nil {
		d.reject(conn, err)
		linger(conn) // or the last word may be lost
	}
	d.mu.Lock()
	delete(d.open, conn)
	d.mu.Unlock()
	if err != nil {
		conn.Close()
		return
	}
	select {
	case d.ready <- good:
	case <-d.ctx.Done():
		conn.Close()
	}
}

var (
	errWantsTLS   = errors.New("the client speaks TLS, this port serves clear text (is its URL https by mistake?)")
	errWantsPlain = errors.New("the client speaks clear text, this port serves TLS (is its URL http by mistake?)")
)

func (d *door) shake(conn net.Conn) (net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return nil, err
	}
	begun := &begunConn{Conn: conn, first: first[:]}
	const handshakeRecord = 0x16
	var good net.Conn = begun
	switch secure := first[0] == handshakeRecord; {
	case secure && d.s.TLS == nil:
		// An alert, so that the other side need not guess: handshake_failure.
		return nil, lastWord(conn, "\x15\x03\x01\x00\x02\x02\x28", errWantsTLS)
	case secure:
		shielded := tls.Server(begun, d.s.TLS)
		if err := shielded.HandshakeContext(d.ctx); err != nil {
			return nil, err
		}
		good = shielded
	case !d.s.Plain && first[0] >= 'A' && first[0] <= 'Z':
		return nil, lastWord(conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", errWantsPlain)
	case !d.s.Plain:
		// protocol_version, so that whoever reads it sees that TLS is meant.
		return nil, lastWord(conn, "\x15\x03\x01\x00\x02\x02\x46", errWantsPlain)
	}
	return good, conn.SetDeadline(time.Time{})
}

// lastWord tells the other side, if it still listens, and returns why.
func lastWord(conn net.Conn, word string, why error) error {
	_, _ = io.WriteString(conn, word)
	return why
}

// linger reads away for a moment what the other side still sends, after the last word
// to it: closing before would take the word back.
func linger(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(time.Second)) != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, conn, 1<<20); err != nil {
		return // it has closed its side, or it never will
	}
}

// quiet is how long a reason is not repeated for the same host.
const (
	quiet   = time.Minute
	maxTold = 256
)

// reject tells of a connection that came to nothing. One that says nothing, a probe
// of the port for instance, is no news.
func (d *door) reject(conn net.Conn, why error) {
	if errors.Is(why, io.EOF) || d.ctx.Err() != nil {
		return
	}
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		host = conn.RemoteAddr().String()
	}
	var op *net.OpError
	text := why.Error()
	if errors.As(why, &op) && op.Err != nil {
		text = op.Op + ": " + op.Err.Error()
	}
	now := time.Now()
	d.mu.Lock()
	at, known := d.told[host+text]
	if d.told == nil || len(d.told) >= maxTold {
		d.told = map[string]time.Time{}
	}
	if known && now.Sub(at) < quiet {
		d.mu.Unlock()
		return
	}
	d.told[host+text] = now
	d.mu.Unlock()
	d.s.Log.Warn("rejected connection on "+d.s.Endpoint+" endpoint", "remote-addr", conn.RemoteAddr().String(), "error", text)
}

// Accept returns the next connection that is ready.
func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.ready:
		return conn, nil
	case <-d.ctx.Done():
		return nil, net.ErrClosed
	case <-d.failed:
		return nil, d.err
	}
}

// Close closes the listener and the connections that are not ready yet.
func (d *door) Close() error {
	d.stop()
	err := d.Listener.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	for conn := range d.open {
		conn.Close()
	}
	d.open = nil
	return err
}

// begunConn gives back the first byte.
type begunConn struct {
	net.Conn
	first []byte
}

// NetConn returns the connection below.
func (c *begunConn) NetConn() net.Conn { return c.Conn }

// Read reads the first byte first.
func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 || len(p) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}
