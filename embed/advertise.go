package embed

import (
	"net"
	"time"
)

const (
	// resolvePatience is how long a name of --initial-cluster may take to be known: a
	// name service may start with the member.
	resolvePatience = 30 * time.Second
	resolvePause    = 500 * time.Millisecond
)

// resolve finds the address of a host:port, and tries again while there is none.
func (s *Server) resolve(hostPort string) (string, error) {
	for begun := time.Now(); ; time.Sleep(resolvePause) {
		address, err := net.ResolveTCPAddr("tcp", hostPort)
		if err == nil {
			return address.String(), nil
		}
		if time.Since(begun) > resolvePatience {
			return "", err
		}
		s.log.Warn("still resolving a name of --initial-cluster", "host", hostPort, "error", err.Error())
	}
}

// hostAddress is the address that this machine speaks to others from: that of the
// way out, else the first one that is not of the machine alone; empty if it has none.
func hostAddress() string {
	// Nothing is sent: a datagram socket that is connected has chosen its way.
	if conn, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		defer conn.Close()
		if from, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			return from.IP.String()
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}
