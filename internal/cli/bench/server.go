package bench

import (
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

// Server is what is measured.
type Server struct {
	// Name in the tables; the endpoint when empty.
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"`
	// PID of the server, for its CPU and memory; 0 when unknown.
	PID int `json:"pid,omitempty"`
	// Others are the other members of its cluster: connections are spread over all,
	// CPU and memory are those of all together.
	Others []Server `json:"others,omitempty"`
	login
}

// members are all, the server itself first.
func (s Server) members() []Server { return append([]Server{s}, s.Others...) }

// observe adds up the usage of all members.
func (s Server) observe() (sum usage, err error) {
	for _, m := range s.members() {
		u, err := observe(m.PID)
		if err != nil {
			return usage{}, err
		}
		sum = sum.plus(u)
	}
	return sum, nil
}

// resetPeak makes the peaks count from now.
func (s Server) resetPeak() {
	for _, m := range s.members() {
		resetPeak(m.PID)
	}
}

func (s Server) label() string {
	if s.Name != "" {
		return s.Name
	}
	return s.Endpoint
}

// version is what the server says of itself; empty when it does not answer.
func (s Server) version(ctx context.Context) string {
	conns, err := dial(ctx, s, 1)
	if err != nil {
		return ""
	}
	defer conns.close()
	r, err := pb.NewMaintenanceClient(conns.all[0]).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return ""
	}
	return r.Version
}

// connections to one server, and the bytes that came in by them, framing included.
type connections struct {
	all      []*grpc.ClientConn
	token    token
	received atomic.Int64
}

// reachable is how long a server may take to accept a connection.
const reachable = 10 * time.Second

// dial opens n connections in plain text and waits until all stand.
func dial(ctx context.Context, s Server, n int) (*connections, error) {
	c, members := &connections{}, s.members()
	for i := range n {
		address, err := members[i%len(members)].address()
		if err != nil {
			c.close()
			return nil, err
		}
		conn, err := grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
			// A server that is starting is tried again at once, and not a second later.
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
				Backoff: backoff.Config{BaseDelay: poll, Multiplier: 1, MaxDelay: poll}}),
			grpc.WithPerRPCCredentials(&c.token), grpc.WithContextDialer(c.dial))
		if err != nil {
			c.close()
			return nil, err
		}
		conn.Connect()
		c.all = append(c.all, conn)
	}
	limit, cancel := context.WithTimeout(ctx, reachable)
	defer cancel()
	for _, conn := range c.all {
		if !stands(limit, conn) {
			c.close()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("%s: cannot be reached", s.Endpoint)
		}
	}
	if err := c.logIn(ctx, s); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func stands(ctx context.Context, conn *grpc.ClientConn) bool {
	for {
		state := conn.GetState()
		if state == connectivity.Ready {
			return true
		}
		if !conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
}

// address is the endpoint as HOST:PORT.
func (s Server) address() (string, error) {
	if strings.HasPrefix(s.Endpoint, "https://") {
		return "", fmt.Errorf("%s: only plain text is measured", s.Endpoint)
	}
	address := strings.TrimSuffix(strings.TrimPrefix(s.Endpoint, "http://"), "/")
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "", fmt.Errorf("endpoint %q: %w", s.Endpoint, err)
	}
	return address, nil
}

func (c *connections) close() {
	for _, conn := range c.all {
		_ = conn.Close()
	}
}

func (c *connections) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &counted{Conn: conn, received: &c.received}, nil
}

// counted is a connection that counts what comes in.
type counted struct {
	net.Conn
	received *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(int64(n))
	return n, err
}

// poll is how often a server that is starting is tried.
const poll = 2 * time.Millisecond

// await returns when a linearizable get of key has been answered: the server
// listens, has a leader and has applied what it had promised before. What it
// answers is not looked at.
func await(ctx context.Context, s Server, key []byte) error {
	for {
		err := firstAnswer(ctx, s, key)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return fmt.Errorf("%s: no answer: %w", s.Endpoint, context.Cause(ctx))
		}
	}
}

func firstAnswer(ctx context.Context, s Server, key []byte) error {
	conns, err := dial(ctx, s, 1)
	if err != nil {
		return err
	}
	defer conns.close()
	// A read that began before there was a leader may be lost: it is made again.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = pb.NewKVClient(conns.all[0]).Range(ctx, &pb.RangeRequest{Key: key})
	return err
}
