package ctl

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/certs"
	"github.com/kvorum/kvorum/internal/tlsfiles"
)

// Whoever is turned away at the door reads why, beside the time-out.
func TestWhyNobodyAnswers(t *testing.T) {
	ca, stranger := certs.NewAuthority(t), certs.NewAuthority(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	mine, mineKey := ca.Issue(t, "client")
	other, otherKey := stranger.Issue(t, "client")
	late, lateKey := ca.IssueExpired(t, "late")
	bad, badKey := ca.Issue(t, "bad")
	crl := filepath.Join(t.TempDir(), "crl")
	ca.Revoke(t, crl, bad)
	files := tlsfiles.Files{CertFile: cert, KeyFile: key, TrustedCAFile: ca.File, CRLFile: crl}
	cfg, err := files.Server("h2")
	if err != nil {
		t.Fatal(err)
	}
	serve := func(s tlsfiles.Serving) string {
		bound, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.Endpoint = "client"
		l := tlsfiles.Listen(bound, s)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close() // it is let in and hears nothing
			}
		}()
		return bound.Addr().String()
	}
	secure, plain := serve(tlsfiles.Serving{TLS: cfg}), serve(tlsfiles.Serving{Plain: true})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	free.Close()
	for _, c := range []struct{ what, flags, want string }{
		{"nobody there", "--endpoints=" + closed, "connect: connection refused"},
		{"no certificate", "--endpoints=https://" + secure + " --cacert=" + ca.File, "tls: certificate required"},
		{"another authority's", "--endpoints=" + secure + " --cacert=" + ca.File + " --cert=" + other + " --key=" + otherKey, "tls: unknown certificate authority"},
		{"expired", "--endpoints=" + secure + " --cacert=" + ca.File + " --cert=" + late + " --key=" + lateKey, "tls: expired certificate"},
		{"revoked", "--endpoints=" + secure + " --cacert=" + ca.File + " --cert=" + bad + " --key=" + badKey, "tls: bad certificate"},
		{"a server of another authority", "--endpoints=" + secure + " --cacert=" + stranger.File + " --cert=" + mine + " --key=" + mineKey, "certificate signed by unknown authority"},
		{"clear text to TLS", "--endpoints=http://" + secure, "the endpoint speaks TLS: should its URL be https?"},
		{"TLS to clear text", "--endpoints=https://" + plain + " --cacert=" + ca.File, "tls: handshake failure"},
		{"let in", "--endpoints=" + secure + " --cacert=" + ca.File + " --cert=" + mine + " --key=" + mineKey, ""},
	} {
		got := run("", nil, append(strings.Fields(c.flags), "--command-timeout=300ms", "get", "a")...)
		told := strings.Contains(got.stderr, `"msg":"cannot connect to endpoint"`)
		if got.code != 1 || !strings.HasSuffix(got.stderr, "Error: context deadline exceeded\n") || told != (c.want != "") || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: %+v, want %s", c.what, got, c.want)
		}
	}
}
