package peer

import (
	"net"
	"sync"
	"time"
)

// sniff is how long a connection may take to say its first bytes.
const sniff = 10 * time.Second

// Divert takes a listener over: connections that begin as ours do are served, all
// others come out of the listener that it returns, with nothing read from them, for
// HTTP on the same port. TLS is l's business: what it accepts is in clear text by
// then. Closing the returned listener closes l and ends the sniffing; connections
// that are served live on until Close.
func (t *Transport) Divert(l net.Listener) net.Listener {
	d := &diverted{Listener: l, t: t, others: make(chan net.Conn), closed: make(chan struct{}), failed: make(chan struct{}),
		sniffed: map[net.Conn]bool{}}
	go d.accept()
	return d
}

type diverted struct {
	net.Listener
	t      *Transport
	others chan net.Conn
	closed chan struct{}
	once   sync.Once
	failed chan struct{}
	err    error // why accepting ended; valid after failed is closed

	mu      sync.Mutex
	ended   bool
	sniffed map[net.Conn]bool // those that have not yet said what they are
}

func (d *diverted) accept() {
	defer close(d.failed)
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			d.err = err
			return
		}
		d.mu.Lock()
		ended := d.ended
		if !ended {
			d.sniffed[conn] = true
		}
		d.mu.Unlock()
		if ended {
			conn.Close()
			continue
		}
		go d.sort(conn)
	}
}

// sort reads the first bytes of a connection and takes it where it belongs.
func (d *diverted) sort(conn net.Conn) {
	head, err := peek(conn)
	d.mu.Lock()
	delete(d.sniffed, conn)
	ended := d.ended
	d.mu.Unlock()
	if err != nil || ended {
		conn.Close()
		return
	}
	known := &Peeked{Conn: conn, head: head}
	if string(head) == magic {
		d.t.Serve(known)
		return
	}
	select {
	case d.others <- known:
	case <-d.closed:
		conn.Close()
	}
}

// peek reads as long as what came is a beginning of the magic.
func peek(conn net.Conn) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(sniff)); err != nil {
		return nil, err
	}
	head := make([]byte, 0, len(magic))
	for len(head) < len(magic) && string(head) == magic[:len(head)] {
		n, err := conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil {
			return nil, err
		}
	}
	return head, conn.SetReadDeadline(time.Time{})
}

// Accept returns the next connection that is not ours.
func (d *diverted) Accept() (net.Conn, error) {
	select {
	case conn := <-d.others:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	case <-d.failed:
		return nil, d.err
	}
}

// Close closes the listener and what has not said yet what it is.
func (d *diverted) Close() error {
	err := net.ErrClosed
	d.once.Do(func() {
		close(d.closed)
		err = d.Listener.Close()
		d.mu.Lock()
		d.ended = true
		for conn := range d.sniffed {
			conn.Close()
		}
		d.mu.Unlock()
	})
	return err
}

// Peeked is a connection whose first bytes were looked at; Read gives them back.
// NetConn is the connection below, for whoever wants to know about its TLS.
type Peeked struct {
	net.Conn
	head []byte
}

// NetConn returns the connection below.
func (c *Peeked) NetConn() net.Conn { return c.Conn }

// Read reads what was peeked first.
func (c *Peeked) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	c.head = c.head[n:]
	return n, nil
}
