package ctl

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/telemetry"
)

// looking bounds what is done to find out why nobody answered.
const looking = time.Second

// explain says on standard error why the endpoints of a command that waited in vain
// could not be reached: the client library tries on until the time is over, and then
// knows of nothing but the time. Each endpoint is connected to once more; one that
// says nothing again has nothing to explain.
func (s *session) explain(err error) {
	if s.dialed == nil || !waitedInVain(err) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(looking, s.flags.commandTimeout))
	defer cancel()
	reasons := make([]error, len(s.dialed.Endpoints))
	var all sync.WaitGroup
	for i, endpoint := range s.dialed.Endpoints {
		all.Go(func() { reasons[i] = tryEndpoint(ctx, endpoint, s.dialed.TLS) })
	}
	all.Wait()
	log := telemetry.New(s.Stderr, time.Now, telemetry.JSON, slog.LevelInfo)
	for i, reason := range reasons {
		if reason != nil && !errors.Is(reason, os.ErrDeadlineExceeded) && !errors.Is(reason, context.DeadlineExceeded) {
			log.Warn("cannot connect to endpoint", "endpoint", s.dialed.Endpoints[i], "error", reason.Error())
		}
	}
}

// waitedInVain says whether an error may be that nobody could be reached.
func waitedInVain(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded || errors.Is(err, errUnhealthy)
}

// tryEndpoint connects as the client library does and hears what the other side has to
// say first; nil if there is nothing to complain of.
func tryEndpoint(ctx context.Context, endpoint string, files *tls.Config) error {
	network, address, secure := "tcp", endpoint, files != nil
	if scheme, rest, has := strings.Cut(endpoint, "://"); has {
		address = rest
		switch scheme {
		case "http":
			secure = false
		case "https":
			secure = true
		case "unix", "unixs":
			network, secure = "unix", scheme == "unixs"
		}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return err
		}
	}
	if secure {
		cfg := &tls.Config{MinVersion: tls.VersionTLS12}
		if files != nil {
			cfg = files.Clone()
		}
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(address)
		}
		cfg.NextProtos = []string{"h2"}
		shielded := tls.Client(conn, cfg)
		if err := shielded.HandshakeContext(ctx); err != nil {
			var clear tls.RecordHeaderError
			if errors.As(err, &clear) {
				return errors.New("the endpoint does not speak TLS: should its URL be http?")
			}
			return err
		}
		conn = shielded
	}
	return hear(conn)
}

// hear says hello in HTTP/2 and reads the first bytes of the answer.
func hear(conn net.Conn) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	if err := http2.NewFramer(conn, nil).WriteSettings(); err != nil {
		return err
	}
	first := make([]byte, 200)
	n, err := conn.Read(first)
	first = first[:n]
	const alert, major = 0x15, 3
	switch {
	case bytes.HasPrefix(first, []byte{alert, major}), bytes.Contains(first, []byte("to an HTTPS server")):
		return errors.New("the endpoint speaks TLS: should its URL be https?")
	case bytes.HasPrefix(first, []byte("HTTP/")):
		return errors.New("the endpoint speaks HTTP/1 only")
	case errors.Is(err, io.EOF):
		return errors.New("the endpoint closes the connection")
	}
	return err
}

// dialedWith is what explain needs of the configuration of a client.
type dialedWith struct {
	Endpoints []string
	TLS       *tls.Config
}
