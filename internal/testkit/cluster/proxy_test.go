package cluster

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo is a member b that says back what it hears; greeting is how a member of
// that id begins.
func echo(t *testing.T) (n *network, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	n = newNetwork()
	n.know(7, "a")
	if err := n.stand("b", "127.0.0.1:0", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); n.close() })
	return n, n.listeners[0].Addr().String()
}

func greeting(id uint64) []byte {
	head := append([]byte(magic), make([]byte, opening-len(magic))...)
	binary.LittleEndian.PutUint64(head[senderAt:], id)
	return head
}

func dial(t *testing.T, address string, id uint64) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	send(t, conn, greeting(id))
	return conn
}

func send(t *testing.T, conn net.Conn, data []byte) {
	t.Helper()
	if _, err := conn.Write(data); err != nil {
		t.Fatal(err)
	}
}

// hears reads so many bytes, within a time; false if they do not come.
func hears(t *testing.T, conn net.Conn, size int, within time.Duration) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err := io.ReadFull(conn, make([]byte, size))
	return err == nil
}

func TestEverythingGoesThrough(t *testing.T) {
	_, address := echo(t)
	for _, id := range []uint64{7, 8} {
		conn := dial(t, address, id)
		big := make([]byte, 1<<20)
		go conn.Write(big)
		if !hears(t, conn, opening+len(big), patience) {
			t.Error("not all came back")
		}
		conn.(*net.TCPConn).CloseWrite()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the end did not come back")
		}
	}
}

// In either direction a blackhole keeps things back, from that member only, and
// nothing is lost.
func TestABlackholeKeepsThingsBack(t *testing.T) {
	for _, way := range []link{{"a", "b"}, {"b", "a"}} {
		n, address := echo(t)
		a, other := dial(t, address, 7), dial(t, address, 8)
		if !hears(t, a, opening, patience) || !hears(t, other, opening, patience) {
			t.Fatal("the greetings did not come back")
		}
		n.set(way.from, way.to, Rule{Blackhole: true})
		send(t, a, []byte("hello"))
		send(t, other, []byte("hello"))
		if !hears(t, other, 5, patience) {
			t.Error("the other one is in it too")
		}
		if hears(t, a, 1, 50*time.Millisecond) {
			t.Errorf("%v: it went through", way)
		}
		n.set(way.from, way.to, Rule{})
		if !hears(t, a, 5, patience) {
			t.Errorf("%v: it is lost", way)
		}
	}
}

func TestADelay(t *testing.T) {
	n, address := echo(t)
	conn := dial(t, address, 7)
	hears(t, conn, opening, patience)
	const delay = 100 * time.Millisecond
	n.set("a", "b", Rule{Delay: delay})
	n.set("b", "a", Rule{Delay: delay})
	begun := time.Now()
	send(t, conn, []byte("one"))
	send(t, conn, []byte("two"))
	if !hears(t, conn, 6, patience) || time.Since(begun) < 2*delay {
		t.Errorf("back after %v", time.Since(begun))
	}
}

func TestACut(t *testing.T) {
	n, address := echo(t)
	conn := dial(t, address, 7)
	hears(t, conn, opening, patience)
	n.set("a", "b", Rule{Cut: true})
	for range 2 {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("not cut: %v", err)
		}
		conn = dial(t, address, 7)
	}
	n.set("a", "b", Rule{})
	if conn := dial(t, address, 7); !hears(t, conn, opening, patience) {
		t.Error("still cut")
	}
}
