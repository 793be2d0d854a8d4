package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/certs"
	"github.com/kvorum/kvorum/internal/tlsfiles"
)

// echo is a server that names itself and then says what it hears, line by line.
func echo(t *testing.T, name string) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				text, err := io.ReadAll(conn)
				if err == nil {
					fmt.Fprintf(conn, "%s heard %s", name, text)
				}
			}()
		}
	}()
	return l.Addr().String(), func() { l.Close() }
}

// ask says something through the gateway and closes its side.
func ask(t *testing.T, address, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// One that is closed at once takes nothing and says nothing.
	_, _ = io.WriteString(conn, text)
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// serve runs a gateway until the test ends.
func serve(t *testing.T, retry time.Duration, addresses ...string) string {
	t.Helper()
	var list []Endpoint
	for _, a := range addresses {
		list = append(list, Endpoint{Address: a})
	}
	g, err := NewGateway(list, retry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestTheTurnGoesRoundAndTheDeadAreLeftOut(t *testing.T) {
	a, _ := echo(t, "a")
	b, stopB := echo(t, "b")
	door := serve(t, time.Hour, a, b)
	heard := map[string]int{}
	for range 6 {
		heard[ask(t, door, "hello")]++
	}
	if heard["a heard hello"] != 3 || heard["b heard hello"] != 3 {
		t.Errorf("the turn went %v", heard)
	}
	stopB()
	for range 6 {
		if got := ask(t, door, "hello"); got != "a heard hello" {
			t.Errorf("without b: %q", got)
		}
	}
}

// One that did not answer is asked again, after the delay or when nobody else is left.
func TestTheDeadMayComeBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	door := serve(t, time.Hour, address)
	if got := ask(t, door, "hello"); got != "" {
		t.Errorf("nobody says %q", got)
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip("somebody else has taken the port")
	}
	defer again.Close()
	go func() {
		conn, err := again.Accept()
		if err == nil {
			fmt.Fprint(conn, "back")
			conn.Close()
		}
	}()
	if got := ask(t, door, ""); got != "back" {
		t.Errorf("once it is back: %q", got)
	}
}

func TestOrder(t *testing.T) {
	now := time.Now()
	g, err := NewGateway([]Endpoint{{"a:1", 1, 0, false}, {"b:1", 0, 10, false}, {"c:1", 0, 0, false}}, time.Minute, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	names := func() string {
		var list []string
		for _, r := range g.order(now) {
			list = append(list, r.Address[:1])
		}
		return strings.Join(list, "")
	}
	for range 10 {
		if got := names(); got != "bca" {
			t.Fatalf("by priority and weight: %s", got)
		}
	}
	g.all[1].failed = now.Add(-59 * time.Second)
	if got := names(); got != "cab" {
		t.Errorf("with b failed: %s", got)
	}
	now = now.Add(time.Second)
	if got := names(); got != "bca" {
		t.Errorf("once b may be asked again: %s", got)
	}
	if _, err := NewGateway(nil, 0, nil); err == nil {
		t.Error("a gateway to nowhere")
	}
	if _, err := NewGateway([]Endpoint{{Address: "x"}}, 0, nil); err == nil || !strings.Contains(err.Error(), `endpoint "x"`) {
		t.Errorf("an endpoint without a port: %v", err)
	}
}

// records is a name service of a test.
type records map[string][]*net.SRV

func (r records) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	list, ok := r[service+"."+proto+"."+name]
	if !ok {
		return "", nil, errors.New("no such service " + service)
	}
	return "", list, nil
}

func TestEndpointsFromDNS(t *testing.T) {
	ca, stranger := certs.NewAuthority(t), certs.NewAuthority(t)
	port := func(a *certs.Authority) uint16 {
		cert, key := a.Issue(t, "server", "example.org")
		files := tlsfiles.Files{CertFile: cert, KeyFile: key}
		cfg, err := files.Server()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		secure := tlsfiles.Listen(l, tlsfiles.Serving{TLS: cfg, Endpoint: "test"})
		t.Cleanup(func() { secure.Close() })
		go func() {
			for {
				conn, err := secure.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		return uint16(l.Addr().(*net.TCPAddr).Port)
	}
	good, bad := port(ca), port(stranger)
	dns := records{
		"etcd-client-ssl-x.tcp.example.org": {{Target: "127.0.0.1.", Port: good, Priority: 1, Weight: 2}, {Target: "127.0.0.1.", Port: bad}},
		"etcd-client-x.tcp.example.org":     {{Target: "n1.example.org.", Port: 2379}},
	}
	var log bytes.Buffer
	d := Discovery{Domain: "example.org", Name: "x", TrustedCAFile: ca.File, Log: slog.New(slog.NewTextHandler(&log, nil)), Resolver: dns}
	want := []Endpoint{{fmt.Sprintf("127.0.0.1:%d", good), 1, 2, true}}
	if got, err := d.Endpoints(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("secure ones: %v, %v", got, err)
	}
	if !strings.Contains(log.String(), "its certificate is not good") {
		t.Error("nobody is told of the stranger")
	}
	d.Insecure = true
	if got, err := d.Endpoints(t.Context()); err != nil || !slices.Equal(got, append(want, Endpoint{Address: "n1.example.org:2379"})) {
		t.Errorf("all: %v, %v", got, err)
	}
	d.Name = "y"
	if _, err := d.Endpoints(t.Context()); err == nil || !strings.Contains(err.Error(), "no endpoints found for example.org") {
		t.Error(err)
	}
}

func TestWhatTheCommandsRefuse(t *testing.T) {
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"grpc-proxy start --experimental-leasing-prefix=a", "--experimental-leasing-prefix is not supported", 1},
		{"grpc-proxy start --resolver-prefix=a", "invalid resolver-ttl 0", 1},
		{"grpc-proxy start --resolver-ttl=1", `invalid resolver-prefix ""`, 1},
		{"grpc-proxy start --resolver-ttl=1 --resolver-prefix=a --advertise-client-url=", `invalid advertise-client-url ""`, 1},
		{"grpc-proxy start --cert-file=a", "KeyFile and CertFile must both be present", 1},
		{"grpc-proxy start --trusted-ca-file=a", "need --cert-file and --key-file", 1},
		{"grpc-proxy start --cert=a --key=b", "cannot load certificate a with key b", 1},
		{"grpc-proxy start --auto-tls --self-signed-cert-validity=0 --data-dir=/dev/null", "selfSignedCertValidity is invalid", 1},
		{"grpc-proxy start --listen-addr=nowhere", "missing port in address", 1},
		{"grpc-proxy start --help", "--experimental-serializable-ordering", 0},
		{"gateway start --listen-addr=nowhere", "missing port in address", 1},
		{"gateway start --endpoints=x", `endpoint "x"`, 1},
		{"gateway start --retry-delay=0s", "--retry-delay must be above zero", 1},
		{"gateway start --foo", "unknown flag: --foo", 1},
		{"gateway start --help", "--insecure-discovery", 0},
	} {
		var out bytes.Buffer
		if code := Main(strings.Fields(c.args), &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %d, %s", c.args, code, out.String())
		}
	}
}
