// Package ports gives tests addresses of 127.0.0.1 to start servers on: free ones, which
// no other test is given while the first one runs, whatever process it is in.
//
// To look for a free port and then to start a server on it is a race between the two.
// So a port is held by a UDP socket of the same number, which is no obstacle to a server
// that listens by TCP, which every test that asks here respects, and which ends with
// the process that holds it, however that ends.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports lie from first on, so many of them: above those of known services, and below
// those that systems give to connections (32,768 and more), one of which could take a
// server's port before it listens, or while it is down.
const (
	first = 10_000
	count = 20_000
)

// Reserve returns host:port that nobody listens on, and that is this test's until it ends.
func Reserve(t testing.TB) string {
	t.Helper()
	var last error
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(count))
		held, err := net.ListenPacket("udp4", address)
		if err != nil {
			last = err
			continue
		}
		free, err := net.Listen("tcp4", address)
		if err != nil {
			held.Close()
			last = err
			continue
		}
		free.Close()
		t.Cleanup(func() { held.Close() })
		return address
	}
	t.Fatal("no port is free: ", last)
	return ""
}
