package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/certs"
)

// bundle writes a file with the certificates of some authorities.
func bundle(t *testing.T, file string, authorities ...*certs.Authority) {
	t.Helper()
	var text []byte
	for _, a := range authorities {
		some, err := os.ReadFile(a.File)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, some...)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An authority and all certificates are replaced while a port is served: whoever comes
// meets the new files, and a connection that was there before goes on.
func TestFilesAreTakenUpWhenTheyChange(t *testing.T) {
	past, next := certs.NewAuthority(t), certs.NewAuthority(t)
	dir := t.TempDir()
	trusted := filepath.Join(dir, "ca.pem")
	bundle(t, trusted, past)
	cert, key := past.Issue(t, "server", "127.0.0.1")
	aliceCert, aliceKey := past.Issue(t, "alice")
	bobCert, bobKey := next.Issue(t, "bob")
	news := &lines{}
	address, log := serve(t, Serving{TLS: server(t, Files{CertFile: cert, KeyFile: key, TrustedCAFile: trusted, Log: slog.New(slog.NewTextHandler(news, nil))})})
	alice := Files{CertFile: aliceCert, KeyFile: aliceKey, TrustedCAFile: trusted}
	bob := Files{CertFile: bobCert, KeyFile: bobKey, TrustedCAFile: trusted}
	dial, err := alice.Client()
	if err != nil {
		t.Fatal(err)
	}
	meets := func(when, who string, cfg *tls.Config, served bool) {
		t.Helper()
		if got, err := greet(address, cfg); (err == nil && got == who+" said hello") != served {
			t.Errorf("%s %s gets %q, %v", when, who, got, err)
		}
	}
	old := open(t, address, dial())
	meets("at first", "alice", dial(), true)
	meets("at first", "bob", client(t, bob), false)

	bundle(t, trusted, past, next)
	meets("with both authorities", "alice", dial(), true)
	meets("with both authorities", "bob", client(t, bob), true)

	next.Replace(t, cert, key, "server", "127.0.0.1")
	next.Replace(t, aliceCert, aliceKey, "alice")
	meets("with new certificates", "alice", dial(), true)

	bundle(t, trusted, next)
	meets("with the new authority", "alice", dial(), true)
	meets("with the new authority", "bob", client(t, bob), true)
	malloryCert, malloryKey := past.Issue(t, "mallory")
	meets("with the new authority", "mallory", client(t, Files{CertFile: malloryCert, KeyFile: malloryKey, TrustedCAFile: trusted}), false)

	// A pair that does not fit, as it may be for a moment, and a bundle that is none.
	if err := os.WriteFile(cert, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trusted, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		meets("with broken files", "alice", dial(), true)
	}
	for _, want := range []string{"cannot take up a changed certificate", "cannot take up a changed CA bundle", "took up a changed CA bundle", "took up a changed certificate"} {
		if n := news.count(want); n < 1 || n > 3 {
			t.Errorf("%d lines say %q:\n%s", n, want, news.text.String())
		}
	}
	if n := news.count("cannot take up"); n != 2 {
		t.Errorf("%d lines complain:\n%s", n, news.text.String())
	}
	if _, err := old.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(old); err != nil || string(text) != "alice said hello" {
		t.Errorf("the connection from before the change: %q, %v", text, err)
	}
	awaitLine(t, log, "certificate signed by unknown authority")
}

// open shakes hands and says nothing yet.
func open(t *testing.T, address string, cfg *tls.Config) net.Conn {
	t.Helper()
	cfg.ServerName = "127.0.0.1"
	conn, err := tls.Dial("tcp", address, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestRevokedCertificates(t *testing.T) {
	ca, other := certs.NewAuthority(t), certs.NewAuthority(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	badCert, badKey := ca.Issue(t, "mallory", "127.0.0.1")
	goodCert, goodKey := ca.Issue(t, "alice")
	crl := filepath.Join(t.TempDir(), "crl")
	ca.Revoke(t, crl)
	address, log := serve(t, Serving{TLS: server(t, Files{CertFile: cert, KeyFile: key, TrustedCAFile: ca.File, CRLFile: crl})})
	mallory := client(t, Files{CertFile: badCert, KeyFile: badKey, TrustedCAFile: ca.File})
	alice := client(t, Files{CertFile: goodCert, KeyFile: goodKey, TrustedCAFile: ca.File})
	if got, err := greet(address, mallory); err != nil || got != "mallory said hello" {
		t.Errorf("before it is revoked: %q, %v", got, err)
	}
	ca.Revoke(t, crl, badCert)
	if got, err := greet(address, mallory); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("once it is revoked: %q, %v", got, err)
	}
	awaitLine(t, log, `the certificate of \"mallory\" with serial number `)
	if got, err := greet(address, alice); err != nil || got != "alice said hello" {
		t.Errorf("another's: %q, %v", got, err)
	}

	// The other way round, in PEM, with a list of somebody else before it.
	revokedServer, _ := serve(t, Serving{TLS: server(t, Files{CertFile: badCert, KeyFile: badKey})})
	var text []byte
	for i, a := range []*certs.Authority{other, ca} {
		file := filepath.Join(t.TempDir(), fmt.Sprint(i))
		a.Revoke(t, file)
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: raw})...)
	}
	all := filepath.Join(t.TempDir(), "all.pem")
	if err := os.WriteFile(all, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := greet(revokedServer, client(t, Files{TrustedCAFile: ca.File, CRLFile: all})); err == nil || !strings.Contains(err.Error(), "is revoked") {
		t.Errorf("a server whose certificate is revoked: %q, %v", got, err)
	}
	if got, err := greet(address, client(t, Files{CertFile: goodCert, KeyFile: goodKey, TrustedCAFile: ca.File, CRLFile: all})); err != nil {
		t.Errorf("a server of the same authority: %q, %v", got, err)
	}
	if _, err := (&Files{CertFile: cert, KeyFile: key, CRLFile: cert}).Server(); err == nil || !strings.Contains(err.Error(), "cannot load the CRL "+cert) {
		t.Errorf("a list that is none: %v", err)
	}
	if _, err := (&Files{CertFile: cert, KeyFile: key, CRLFile: "/nowhere"}).Client(); err == nil || !strings.Contains(err.Error(), "cannot load the CRL /nowhere: open /nowhere") {
		t.Errorf("a list that is not there: %v", err)
	}
}

// A serial number that another authority has revoked says nothing.
func TestSerialNumbersAreTheAuthoritysOwn(t *testing.T) {
	ca, other := certs.NewAuthority(t), certs.NewAuthority(t)
	mine, _ := ca.Issue(t, "a")
	theirs, _ := other.Issue(t, "a") // with the same number, by an authority of the same name
	crl := filepath.Join(t.TempDir(), "crl")
	other.Revoke(t, crl, theirs)
	raw, err := os.ReadFile(crl)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := parseCRL(raw)
	if err != nil || lists.count() != 1 {
		t.Fatal(lists, err)
	}
	if !lists.has(parsed(t, theirs)) || lists.has(parsed(t, mine)) {
		t.Errorf("theirs is revoked: %v, mine: %v", lists.has(parsed(t, theirs)), lists.has(parsed(t, mine)))
	}
}

func TestAllowedNames(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	for _, c := range []struct {
		what, name string
		hosts      []string
		files      Files
		want       string // part of the refusal; empty: served
	}{
		{"the one name", "peer", nil, Files{AllowedCNs: []string{"peer"}}, ""},
		{"one of two", "b", nil, Files{AllowedCNs: []string{"a", "b"}}, ""},
		{"another", "c", nil, Files{AllowedCNs: []string{"a", "b"}}, `client certificate authentication failed: the common name \"c\" is not allowed`},
		{"a host", "x", []string{"n1.example.org"}, Files{AllowedHostnames: []string{"n1.example.org"}}, ""},
		{"a wildcard", "x", []string{"*.example.org"}, Files{AllowedHostnames: []string{"other.org", "n1.example.org"}}, ""},
		{"no such host", "x", []string{"n2.example.org"}, Files{AllowedHostnames: []string{"n1.example.org"}}, "is for no allowed host name"},
		{"its address", "x", []string{"127.0.0.1"}, Files{CheckAddress: true}, ""},
		{"nobody's address", "x", nil, Files{CheckAddress: true}, ""},
		{"another address", "x", []string{"10.0.0.1"}, Files{CheckAddress: true}, `\"127.0.0.1\" does not match any of IPAddresses [10.0.0.1]`},
		{"a name of the address", "x", []string{"10.0.0.1", "localhost"}, Files{CheckAddress: true}, ""},
		{"a name without one", "x", []string{"name.invalid"}, Files{CheckAddress: true}, "does not match any of"},
		{"another address, not looked at", "x", []string{"10.0.0.1"}, Files{}, ""},
	} {
		f := c.files
		f.CertFile, f.KeyFile, f.TrustedCAFile = cert, key, ca.File
		address, log := serve(t, Serving{TLS: server(t, f)})
		ownCert, ownKey := ca.Issue(t, c.name, c.hosts...)
		got, err := greet(address, client(t, Files{CertFile: ownCert, KeyFile: ownKey, TrustedCAFile: ca.File}))
		if (c.want == "") != (err == nil) {
			t.Errorf("%s: %q, %v", c.what, got, err)
		}
		if c.want != "" {
			awaitLine(t, log, c.want)
		}
	}
	both := Files{CertFile: cert, KeyFile: key, AllowedCNs: []string{"a"}, AllowedHostnames: []string{"b"}}
	if _, err := both.Server(); err == nil || err.Error() != `AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a"], hostnames=["b"])` {
		t.Error(err)
	}
}

func TestAnExpiredCertificate(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	lateCert, lateKey := ca.IssueExpired(t, "late", "127.0.0.1")
	address, log := serve(t, Serving{TLS: server(t, Files{CertFile: cert, KeyFile: key, TrustedCAFile: ca.File})})
	said := &lines{}
	late := Files{CertFile: lateCert, KeyFile: lateKey, TrustedCAFile: ca.File, Log: slog.New(slog.NewTextHandler(said, nil))}
	if _, err := greet(address, client(t, late)); err == nil || !strings.Contains(err.Error(), "expired certificate") {
		t.Errorf("a client's: %v", err)
	}
	awaitLine(t, log, "certificate has expired or is not yet valid")
	address, _ = serve(t, Serving{TLS: server(t, late)})
	if _, err := greet(address, client(t, Files{TrustedCAFile: ca.File})); err == nil || !strings.Contains(err.Error(), "certificate has expired") {
		t.Errorf("a server's: %v", err)
	}
	if said.count("the certificate has expired: others will refuse it") == 0 {
		t.Error("its owner is not told")
	}
}

// Whatever stands in a file of revoked certificates, it is taken or refused.
func FuzzCRL(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, text []byte) {
		lists, err := parseCRL(text)
		if err == nil && len(lists) == 0 {
			t.Fatal("nothing, and no error")
		}
		if err == nil {
			lists.count()
		}
	})
}

func parsed(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
