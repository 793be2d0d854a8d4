package tlsfiles

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/certs"
)

func TestWhatIsWrongWithTheFilesIsSaid(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	_, otherKey := ca.Issue(t, "other")
	noPEM := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(noPEM, []byte("some text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		files Files
		want  string
	}{
		{"nothing", Files{}, "a certificate and its key are needed to serve TLS"},
		{"no key", Files{CertFile: cert}, "KeyFile and CertFile must both be present[key: , cert: " + cert + "]"},
		{"no certificate", Files{KeyFile: key}, "KeyFile and CertFile must both be present[key: " + key + ", cert: ]"},
		{"no such file", Files{CertFile: "/nowhere", KeyFile: key}, "cannot load certificate /nowhere with key " + key + ": open /nowhere: no such file or directory"},
		{"another's key", Files{CertFile: cert, KeyFile: otherKey}, "private key does not match public key"},
		{"no such CA", Files{CertFile: cert, KeyFile: key, TrustedCAFile: "/nowhere"}, "cannot load the trusted CA: open /nowhere: no such file or directory"},
		{"a CA that is none", Files{CertFile: cert, KeyFile: key, TrustedCAFile: noPEM}, "cannot load the trusted CA: " + noPEM + " has no certificate in PEM"},
		{"a suite that is none", Files{CertFile: cert, KeyFile: key, CipherSuites: []string{"ROT13"}}, `unexpected TLS cipher suite "ROT13"`},
		{"a version that is none", Files{CertFile: cert, KeyFile: key, MinVersion: "TLS1.1"}, `unexpected TLS version "TLS1.1"`},
		{"a highest version that is none", Files{CertFile: cert, KeyFile: key, MaxVersion: "SSL"}, `unexpected TLS version "SSL"`},
		{"versions crossed", Files{CertFile: cert, KeyFile: key, MinVersion: "TLS1.3", MaxVersion: "TLS1.2"}, "min version (TLS1.3) is greater than max version (TLS1.2)"},
		{"suites of TLS1.3", Files{CertFile: cert, KeyFile: key, MinVersion: "TLS1.3", CipherSuites: []string{"TLS_AES_128_GCM_SHA256"}},
			"cipher suites cannot be configured when only TLS1.3 is enabled"},
	} {
		if _, err := c.files.Server("h2"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.what, err, c.want)
		}
		if _, err := c.files.Client(); c.what != "nothing" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, as a client: %v, want %s", c.what, err, c.want)
		}
	}
}

// lines is a log that tests look into.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

// serve answers on a port: every connection is told what it speaks.
func serve(t *testing.T, s Serving) (address string, log *lines) {
	t.Helper()
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log = &lines{}
	s.Log, s.Endpoint = slog.New(slog.NewTextHandler(log, nil)), "test"
	l := Listen(bound, s)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				said := make([]byte, 5)
				if _, err := io.ReadFull(conn, said); err != nil {
					return
				}
				who := "somebody in clear text"
				if secure, ok := conn.(*tls.Conn); ok {
					who = "somebody over TLS"
					if list := secure.ConnectionState().PeerCertificates; len(list) > 0 {
						who = list[0].Subject.CommonName
					}
				}
				fmt.Fprintf(conn, "%s said %s", who, said)
			}()
		}
	}()
	return bound.Addr().String(), log
}

// greet says hello to a port and returns what it answers.
func greet(address string, cfg *tls.Config) (string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if cfg != nil {
		cfg = cfg.Clone()
		cfg.ServerName = "127.0.0.1"
		conn = tls.Client(conn, cfg)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}

func server(t *testing.T, f Files) *tls.Config {
	t.Helper()
	cfg, err := f.Server("h2", "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func client(t *testing.T, f Files) *tls.Config {
	t.Helper()
	next, err := f.Client()
	if err != nil {
		t.Fatal(err)
	}
	return next()
}

func TestWhoMayConnect(t *testing.T) {
	ca, stranger := certs.NewAuthority(t), certs.NewAuthority(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	aliceCert, aliceKey := ca.Issue(t, "alice")
	malloryCert, malloryKey := stranger.Issue(t, "mallory")
	open := server(t, Files{CertFile: cert, KeyFile: key})
	shut := server(t, Files{CertFile: cert, KeyFile: key, TrustedCAFile: ca.File, ClientCertAuth: true})
	system := server(t, Files{CertFile: cert, KeyFile: key, ClientCertAuth: true})
	modern := server(t, Files{CertFile: cert, KeyFile: key, MinVersion: "TLS1.3"})

	nobody := client(t, Files{TrustedCAFile: ca.File})
	alice := client(t, Files{CertFile: cert, KeyFile: key, ClientCertFile: aliceCert, ClientKeyFile: aliceKey, TrustedCAFile: ca.File})
	mallory := client(t, Files{CertFile: malloryCert, KeyFile: malloryKey, TrustedCAFile: ca.File})
	distrustful := client(t, Files{TrustedCAFile: stranger.File})
	careless := client(t, Files{SkipVerify: true})
	old := client(t, Files{TrustedCAFile: ca.File, MaxVersion: "TLS1.2", CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}})
	for _, c := range []struct {
		what   string
		server *tls.Config
		client *tls.Config
		want   string // what is answered, or part of the client's error
		log    string // part of the server's line
	}{
		{"no certificate asked for", open, nobody, "somebody over TLS said hello", ""},
		{"a certificate that nobody asked for", open, alice, "somebody over TLS said hello", ""},
		{"a certificate", shut, alice, "alice said hello", ""},
		{"no certificate", shut, nobody, "certificate required", "client didn't provide a certificate"},
		{"another authority's", shut, mallory, "unknown certificate authority", "certificate signed by unknown authority"},
		{"the system's authorities", system, alice, "unknown certificate authority", "certificate signed by unknown authority"},
		{"a server that is not trusted", open, distrustful, "certificate signed by unknown authority", "bad certificate"},
		{"a server that nobody checks", open, careless, "somebody over TLS said hello", ""},
		{"TLS1.2 with a suite", open, old, "somebody over TLS said hello", ""},
		{"TLS1.2 where 1.3 is needed", modern, old, "protocol version not supported", "client offered only unsupported versions"},
	} {
		address, log := serve(t, Serving{TLS: c.server})
		got, err := greet(address, c.client)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || (err != nil) != (c.log != "") {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		if c.log != "" {
			awaitLine(t, log, c.log)
		}
	}
}

func awaitLine(t *testing.T, log *lines, part string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); log.count(part) == 0; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("no line says %q:\n%s", part, log.text.String())
		}
	}
}

func TestBothOnOnePort(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	address, _ := serve(t, Serving{TLS: server(t, Files{CertFile: cert, KeyFile: key}), Plain: true})
	if got, err := greet(address, nil); err != nil || got != "somebody in clear text said hello" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := greet(address, client(t, Files{TrustedCAFile: ca.File})); err != nil || got != "somebody over TLS said hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestTheWrongDoor: both sides learn what is the matter, and the log does not fill.
func TestTheWrongDoor(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	shut, shutLog := serve(t, Serving{TLS: server(t, Files{CertFile: cert, KeyFile: key})})
	plain, plainLog := serve(t, Serving{Plain: true})
	trusting := client(t, Files{TrustedCAFile: ca.File})
	for range 20 {
		if _, err := greet(plain, trusting); err == nil || !strings.Contains(err.Error(), "handshake failure") {
			t.Errorf("TLS to clear text: %v", err)
		}
		if got, _ := greet(shut, nil); got != "\x15\x03\x01\x00\x02\x02\x46" {
			t.Errorf("clear text to TLS: %q", got)
		}
	}
	conn, err := net.Dial("tcp", shut)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
	if text, err := io.ReadAll(conn); err != nil || !strings.Contains(string(text), "Client sent an HTTP request to an HTTPS server") {
		t.Errorf("HTTP to TLS: %q, %v", text, err)
	}
	awaitLine(t, plainLog, "rejected connection on test endpoint")
	awaitLine(t, shutLog, "rejected connection on test endpoint")
	if n, m := plainLog.count("the client speaks TLS"), shutLog.count("the client speaks clear text"); n != 1 || m != 1 {
		t.Errorf("said %d and %d times", n, m)
	}
}

// TestOneWhoSaysNothingDelaysNobody, and is gone when the listener is.
func TestOneWhoSaysNothingDelaysNobody(t *testing.T) {
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(bound, Serving{Plain: true})
	silent, err := net.Dial("tcp", bound.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	go greet(bound.Addr().String(), nil)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a silent connection outlived its listener")
	}
	if _, err := l.Accept(); err != net.ErrClosed {
		t.Errorf("accepting after the end: %v", err)
	}
}

func TestSelfSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fixtures", "client")
	if _, err := SelfSigned(dir, nil, 0); err == nil || err.Error() != "selfSignedCertValidity is invalid,it should be greater than 0" {
		t.Errorf("valid for no year: %v", err)
	}
	f, err := SelfSigned(dir, []string{"127.0.0.1:2379", "localhost", "[::1]:2379"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	address, _ := serve(t, Serving{TLS: server(t, f)})
	cfg := client(t, f)
	if got, err := greet(address, cfg); err != nil || got != "somebody over TLS said hello" {
		t.Errorf("%q, %v", got, err)
	}
	pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	if err := cert.VerifyHostname("localhost"); err != nil {
		t.Error(err)
	}
	if years := cert.NotAfter.Sub(cert.NotBefore).Hours() / 24 / 365; cert.Subject.Organization[0] != "etcd" || years < 1.99 || years > 2.01 {
		t.Errorf("%v for %v years", cert.Subject, years)
	}
	if info, err := os.Stat(f.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	before, _ := os.ReadFile(f.CertFile)
	if _, err := SelfSigned(dir, []string{"elsewhere"}, 9); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(f.CertFile); !bytes.Equal(before, after) {
		t.Error("a certificate that was there was replaced")
	}
}
