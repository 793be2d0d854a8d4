// Package proxy is what stands between clients and a cluster: the gateway, which
// passes connections on without looking into them, so that TLS stays between a client
// and the member that it reaches.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Endpoint is a member's client port. Of those that answer, the ones of the lowest
// priority are used, in proportion to their weights (as SRV records say it).
type Endpoint struct {
	// Address is "host:port".
	Address          string
	Priority, Weight uint16
	// Secure says that DNS lists it among those of TLS.
	Secure bool
}

// Gateway passes each connection that it accepts on to one of the endpoints.
type Gateway struct {
	// RetryDelay is how long an endpoint that did not answer is left alone.
	RetryDelay time.Duration
	Log        *slog.Logger

	mu    sync.Mutex
	all   []*remote
	turn  int
	conns map[net.Conn]bool // nil once closed
	wait  sync.WaitGroup
}

// remote is an endpoint and whether it answers.
type remote struct {
	Endpoint
	failed time.Time // zero: it answered when it was asked last
}

// dialing bounds how long an endpoint may take to accept a connection.
const dialing = 5 * time.Second

// NewGateway makes one for at least one endpoint.
func NewGateway(endpoints []Endpoint, retry time.Duration, log *slog.Logger) (*Gateway, error) {
	if len(endpoints) == 0 {
		return nil, errors.New("no endpoints to pass connections on to")
	}
	g := &Gateway{RetryDelay: retry, Log: log, conns: map[net.Conn]bool{}}
	for _, e := range endpoints {
		if _, _, err := net.SplitHostPort(e.Address); err != nil {
			return nil, fmt.Errorf("endpoint %q: %w", e.Address, err)
		}
		g.all = append(g.all, &remote{Endpoint: e})
	}
	return g, nil
}

// Serve passes on what l accepts until it breaks or ctx ends; then every connection is
// closed, and the error is nil if it was ctx.
func (g *Gateway) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		l.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		for conn := range g.conns {
			conn.Close()
		}
		g.conns = nil
	})
	defer stop()
	defer g.wait.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if g.keep(conn) {
			g.wait.Go(func() { g.pass(ctx, conn) })
		}
	}
}

// keep notes a connection to be closed in the end; it is closed at once after that.
func (g *Gateway) keep(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		conn.Close()
		return false
	}
	g.conns[conn] = true
	return true
}

func (g *Gateway) drop(conn net.Conn) {
	conn.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, conn)
}

// pass joins a connection with one to an endpoint until both sides have ended.
func (g *Gateway) pass(ctx context.Context, in net.Conn) {
	defer g.drop(in)
	out := g.dial(ctx)
	if out == nil || !g.keep(out) {
		return
	}
	defer g.drop(out)
	var both sync.WaitGroup
	both.Go(func() { copyOne(out, in) })
	copyOne(in, out)
	both.Wait()
}

// copyOne copies until from ends, and tells to of the end; whoever cannot be told, or
// takes nothing more, ends both.
func copyOne(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		from.Close()
		to.Close()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		to.Close()
	}
}

// dial connects to an endpoint: to the next one that answers, and if none does to
// those that did not a while ago. It returns nil if nobody is there.
func (g *Gateway) dial(ctx context.Context) net.Conn {
	for _, r := range g.order(time.Now()) {
		try, cancel := context.WithTimeout(ctx, dialing)
		conn, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(try, "tcp", r.Address)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		g.mu.Lock()
		was := r.failed
		if r.failed = (time.Time{}); err != nil {
			r.failed = time.Now()
		}
		g.mu.Unlock()
		switch {
		case err == nil && !was.IsZero():
			g.Log.Info("endpoint answers again", "address", r.Address)
		case err != nil && was.IsZero():
			g.Log.Warn("endpoint does not answer; it is left alone for a while", "address", r.Address, "retry-delay", g.RetryDelay.String(), "error", err.Error())
		}
		if err == nil {
			return conn
		}
	}
	g.Log.Warn("no endpoint answers: a client's connection is closed")
	return nil
}

// order is who is asked for one connection: those that answer or may be asked again,
// then the others. Within a priority the turn goes round where weights are equal, and
// is drawn by weight where they are not.
func (g *Gateway) order(now time.Time) []*remote {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn++
	var good, bad []*remote
	for i := range g.all {
		r := g.all[(g.turn+i)%len(g.all)]
		if r.failed.IsZero() || now.Sub(r.failed) >= g.RetryDelay {
			good = append(good, r)
		} else {
			bad = append(bad, r)
		}
	}
	return append(byPriority(good), byPriority(bad)...)
}

// byPriority sorts by priority, and puts a drawn one first within each.
func byPriority(list []*remote) []*remote {
	var sorted []*remote
	for len(list) > 0 {
		lowest := list[0].Priority
		for _, r := range list {
			lowest = min(lowest, r.Priority)
		}
		var same, rest []*remote
		for _, r := range list {
			if r.Priority == lowest {
				same = append(same, r)
			} else {
				rest = append(rest, r)
			}
		}
		sorted, list = append(sorted, drawn(same)...), rest
	}
	return sorted
}

// drawn moves one to the front, drawn by weight unless all weights are equal.
func drawn(same []*remote) []*remote {
	sum, equal := 0, true
	for _, r := range same {
		sum += int(r.Weight)
		equal = equal && r.Weight == same[0].Weight
	}
	if equal {
		return same
	}
	at := rand.IntN(sum)
	for i, r := range same {
		if at -= int(r.Weight); at < 0 {
			return append([]*remote{r}, append(append([]*remote{}, same[:i]...), same[i+1:]...)...)
		}
	}
	return same
}
