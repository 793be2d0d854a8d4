package embed

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/internal/testkit/certs"
	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// clientOf is what a client trusts and, if it has a certificate, shows.
func clientOf(t *testing.T, ca *certs.Authority, pair ...string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.RootCAs.AppendCertsFromPEM(text)
	if len(pair) == 2 {
		own, err := tls.LoadX509KeyPair(pair[0], pair[1])
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{own}
	}
	return cfg
}

// issued makes a client's certificate and its key.
func issued(t *testing.T, ca *certs.Authority) []string {
	cert, key := ca.Issue(t, "client")
	return []string{cert, key}
}

// Three members that speak TLS to each other and to their clients, with
// certificates demanded on both ports; an http port on the loopback beside it.
func TestAClusterOverTLS(t *testing.T) {
	ca, stranger := certs.NewAuthority(t), certs.NewAuthority(t)
	cert, key := ca.Issue(t, "member", "127.0.0.1")
	tb := newTable(t, 3)
	tb.scheme, tb.credentials = "https://", credentials.NewTLS(clientOf(t, ca, issued(t, ca)...))
	tb.flags = []string{
		"--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca.File, "--client-cert-auth",
		"--peer-cert-file", cert, "--peer-key-file", key, "--peer-trusted-ca-file", ca.File, "--peer-client-cert-auth",
	}
	tb.start("new", tb.seats...)
	for i, s := range tb.seats {
		tb.put(s, "a", fmt.Sprint(i))
		tb.everywhere("a", fmt.Sprint(i))
	}
	gone := tb.leader()
	gone.stop()
	for _, s := range tb.seats {
		if s != gone {
			tb.put(s, "b", "2")
		}
	}
	tb.start("new", gone)
	tb.everywhere("b", "2")

	s := tb.seats[0]
	for name, creds := range map[string]credentials.TransportCredentials{
		"without a certificate": credentials.NewTLS(clientOf(t, ca)),
		"with a stranger's":     credentials.NewTLS(clientOf(t, ca, issued(t, stranger)...)),
		"who trusts a stranger": credentials.NewTLS(clientOf(t, stranger, issued(t, ca)...)),
		"who speaks clear text": insecure.NewCredentials(),
	} {
		conn, err := grpc.NewClient(s.client, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}); err == nil {
			t.Errorf("a client %s is served", name)
		}
		conn.Close()
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: clientOf(t, ca, issued(t, ca)...)}}
	resp, err := web.Get("https://" + s.client + "/version")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("/version over TLS: %v, %v", resp, err)
	}
}

// http and https share one port; what only one of them is served on says so.
func TestClearTextBesideTLS(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "member", "127.0.0.1")
	port, extra := ports.Reserve(t), ports.Reserve(t)
	startMember(t, t.TempDir(), "--cert-file", cert, "--key-file", key,
		"--listen-client-urls", "https://"+port+",http://"+port+",http://"+extra, "--advertise-client-urls", "https://"+port)
	for _, c := range []struct {
		address string
		creds   credentials.TransportCredentials
	}{{port, credentials.NewTLS(clientOf(t, ca))}, {port, insecure.NewCredentials()}, {extra, insecure.NewCredentials()}} {
		conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(c.creds))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); err != nil {
			t.Errorf("%s by %s: %v", c.address, c.creds.Info().SecurityProtocol, err)
		}
		conn.Close()
	}
	cfg, _ := configFor(t, t.TempDir(), "--cert-file", ca.File, "--key-file", key, "--listen-client-urls", "https://"+ports.Reserve(t))
	if s, err := Start(cfg, nil); err == nil || !strings.Contains(err.Error(), "cannot load certificate") {
		t.Errorf("a key of another certificate: %v, %v", s, err)
	}
}

// With the gate a member connects from the first address that it advertises and that
// is not of this machine alone.
func TestWhereAMemberConnectsFrom(t *testing.T) {
	for _, c := range []struct{ urls, gate, want string }{
		{"http://10.0.0.7:2380,http://10.0.0.8:2380", "SetMemberLocalAddr=true", "10.0.0.7"},
		{"http://127.0.0.1:2380,http://n1:2380,http://10.0.0.8:2380", "SetMemberLocalAddr=true", "10.0.0.8"},
		{"http://127.0.0.1:2380,http://n1:2380", "SetMemberLocalAddr=true", "<nil>"},
		{"http://10.0.0.7:2380", "SetMemberLocalAddr=false", "<nil>"},
	} {
		cfg, _ := configFor(t, t.TempDir(), "--initial-advertise-peer-urls", c.urls, "--feature-gates", c.gate)
		s := &Server{cfg: cfg}
		if got := fmt.Sprint(s.peersFrom()); got != c.want {
			t.Errorf("%s with %s: %s, want %s", c.urls, c.gate, got, c.want)
		}
	}
}
