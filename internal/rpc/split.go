// Package rpc serves gRPC on the client listeners, with a server on an HTTP/2 loop
// of its own; grpc-go's can take its place behind the same interface. HTTP/1.1
// shares the port: connections are told apart by their first bytes.
//
//	reader   parses all it has read in one go, begins hot calls (hot.go) and starts
//	         goroutines for the others (cold.go); never waits for a call
//	writer   answers the hot calls that are done and sends what the streams have, as
//	         far as the windows allow (flow.go), in one write
//	server   connections, their end, and one timer for all deadlines (ping.go)
package rpc

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// sniff is how long a connection may take to say its first bytes; one that speaks
// HTTP/2 then has as long again for its settings.
const sniff = 10 * time.Second

// preface is how every HTTP/2 connection in clear text begins (RFC 9113, 3.4).
const preface = "PRI * HTTP/2.0"

// Split tells the connections of one listener apart: those that begin with the
// HTTP/2 preface come out of the first listener, all others out of the second.
// Closing both closes the listener.
func Split(l net.Listener) (h2, h1 net.Listener) {
	s := &splitter{Listener: l, done: make(chan struct{})}
	a, b := s.half(), s.half()
	go s.accept(a, b)
	return a, b
}

type splitter struct {
	net.Listener
	done chan struct{}
	err  error // why accept ended; valid after done is closed
	open sync.WaitGroup
}

// half is one of the two listeners that come out.
type half struct {
	*splitter
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (s *splitter) half() *half {
	s.open.Add(1)
	return &half{splitter: s, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (s *splitter) accept(h2, h1 *half) {
	defer close(s.done)
	go func() {
		s.open.Wait()
		s.Listener.Close()
	}()
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() {
				continue
			}
			s.err = err
			return
		}
		go func() {
			peeked, isH2, err := peek(conn)
			switch {
			case err != nil:
				conn.Close()
			case isH2:
				h2.offer(peeked)
			default:
				h1.offer(peeked)
			}
		}()
	}
}

// peek reads just enough to tell HTTP/2 from anything else: as long as what came
// is a beginning of the preface, more is awaited.
func peek(conn net.Conn) (net.Conn, bool, error) {
	if err := conn.SetReadDeadline(time.Now().Add(sniff)); err != nil {
		return nil, false, err
	}
	buf := make([]byte, 0, len(preface))
	for len(buf) < len(preface) && string(buf) == preface[:len(buf)] {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil && !(errors.Is(err, io.EOF) && len(buf) > 0) {
			return nil, false, err
		}
		if n == 0 && err != nil {
			break
		}
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, false, err
	}
	return &peekedConn{Conn: conn, head: buf}, string(buf) == preface, nil
}

// offer hands a connection to whoever accepts from this half.
func (h *half) offer(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.closed:
		conn.Close()
	case <-h.done:
		conn.Close()
	}
}

// Accept returns the next connection of this kind.
func (h *half) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	case <-h.done:
		return nil, h.err
	}
}

// Close ends this half; the listener itself ends with the second one.
func (h *half) Close() error {
	h.once.Do(func() {
		close(h.closed)
		h.open.Done()
	})
	return nil
}

// peekedConn gives back what was peeked before anything else.
type peekedConn struct {
	net.Conn
	head []byte
}

// Read reads what was peeked first.
func (c *peekedConn) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	c.head = c.head[n:]
	return n, nil
}
