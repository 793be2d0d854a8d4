package ports

import (
	"net"
	"testing"
)

// A server listens where it was told to while the port is held, goes away and comes back,
// and nobody else is given its port meanwhile.
func TestAPortIsOnesOwnUntilTheTestEnds(t *testing.T) {
	var address string
	t.Run("held", func(t *testing.T) {
		address = Reserve(t)
		for range 2 {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
		if held, err := net.ListenPacket("udp4", address); err == nil {
			held.Close()
			t.Fatalf("%s could be had a second time", address)
		}
	})
	held, err := net.ListenPacket("udp4", address)
	if err != nil {
		t.Fatalf("%s is not given back: %v", address, err)
	}
	held.Close()
}

// Nobody is given what another was.
func TestManyPortsAreAllDifferent(t *testing.T) {
	seen := make(map[string]bool)
	for range 500 {
		address := Reserve(t)
		if seen[address] {
			t.Fatalf("%s was given twice", address)
		}
		seen[address] = true
	}
}
