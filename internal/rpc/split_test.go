package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// One port serves gRPC and HTTP/1.1, as etcd's does.
func TestOnePortTwoProtocols(t *testing.T) {
	l := listen(t)
	h2, h1 := Split(l)
	g := NewServer(Limits{MaxRequestBytes: 1 << 20, MaxConcurrentStreams: 100, PingInterval: time.Hour, PingTimeout: time.Minute},
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return next(ctx, req)
		},
		func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, stream)
		})
	healthpb.RegisterHealthServer(g, health.NewServer())
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })}
	go g.Serve(h2)
	go web.Serve(h1)

	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	resp, err := http.Get("http://" + l.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); string(text) != "hello" {
		t.Errorf("HTTP/1.1: %q", text)
	}

	g.Stop()
	web.Close()
	// Both halves are closed: so is the port.
	if again, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
		if _, err := again.Read(make([]byte, 1)); err == nil {
			t.Error("the port is still served")
		}
		again.Close()
	}
}

func TestFirstBytesDecide(t *testing.T) {
	for _, c := range []struct {
		said string
		h2   bool
	}{
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true},
		{"GET / HTTP/1.1\r\n\r\n", false},
		{"PRIVATE / HTTP/1.1\r\n\r\n", false},
		{"PR", false}, // and then nothing: closed by the client
		{"P", false},
	} {
		l := listen(t)
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		served, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		go func() {
			for i := range c.said { // one byte at a time: peeking must be patient
				client.Write([]byte{c.said[i]})
			}
			client.Close()
		}()
		conn, isH2, err := peek(served)
		if err != nil || isH2 != c.h2 {
			t.Errorf("%q: h2 %v, %v; want %v", c.said, isH2, err, c.h2)
			continue
		}
		if all, err := io.ReadAll(conn); string(all) != c.said || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%q came out as %q, %v", c.said, all, err)
		}
	}
}

func TestASilentConnectionHoldsNobodyUp(t *testing.T) {
	l := listen(t)
	h2, h1 := Split(l)
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	go func() {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		}
	}()
	conn, err := h1.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	h1.Close()
	if _, err := h1.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed half accepts: %v", err)
	}
	h2.Close()
}
