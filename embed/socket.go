package embed

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind opens one listener, with the socket options of the flags. A socket file that a
// member left behind is in nobody's way.
func bind(cfg *Config, network, address string) (net.Listener, error) {
	if network == "unix" {
		if err := removeSocket(address); err != nil {
			return nil, err
		}
	}
	l := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		if network == "unix" {
			return nil
		}
		var err error
		set := func(fd uintptr) {
			if cfg.SocketReusePort {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
			if cfg.SocketReuseAddress {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			}
		}
		return errors.Join(raw.Control(set), err)
	}}
	return l.Listen(context.Background(), network, address)
}

// removeSocket removes what a listener of this name left, if nobody listens there.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil // binding says what is wrong, if anything is
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil
	}
	return os.Remove(path)
}
