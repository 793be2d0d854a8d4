package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kvorum/kvorum/internal/testkit/certs"
	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// A proxy between clients and a member that both want certificates: what it shows to the
// member names nobody, and what clients show is held against its own list of revoked ones.
func TestAGRPCProxyOverTLS(t *testing.T) {
	a := certs.NewAuthority(t)
	memberCert, memberKey := a.Issue(t, "member", "127.0.0.1")
	ownCert, ownKey := a.Issue(t, "")
	namedCert, namedKey := a.Issue(t, "somebody")
	doorCert, doorKey := a.Issue(t, "door", "127.0.0.1")
	crl := filepath.Join(t.TempDir(), "crl")
	badCert, badKey := a.Issue(t, "revoked")
	a.Revoke(t, crl, badCert)
	secure := "https://" + ports.Reserve(t)
	member := start(t, t.TempDir(), "--listen-client-urls", secure, "--advertise-client-urls", secure,
		"--cert-file", memberCert, "--key-file", memberKey, "--trusted-ca-file", a.File, "--client-cert-auth")
	named := launch(t, "grpc-proxy", "start", "--endpoints", secure, "--cert", namedCert, "--key", namedKey, "--cacert", a.File)
	if code, _ := named.awaitExit(); code != 1 || !strings.Contains(strings.Join(named.raw, "\n"), "cert has non empty Common Name (somebody)") {
		t.Errorf("with somebody's certificate: %d, %s", code, named.raw)
	}
	member.awaitReady()
	pages := ports.Reserve(t)
	_, door := proxied(t, secure, "--cert", ownCert, "--key", ownKey, "--cacert", a.File, "--cert-file", doorCert, "--key-file", doorKey,
		"--trusted-ca-file", a.File, "--client-crl-file", crl, "--tls-min-version", "TLS1.3", "--metrics-addr", "http://"+pages, "--enable-pprof")
	pool := x509.NewCertPool()
	if text, err := os.ReadFile(a.File); err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	client := func(cert, key string, most uint16) (*clientv3.Client, *tls.Config) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		cfg := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MaxVersion: most}
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + door}, TLS: cfg, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, cfg
	}
	good, cfg := client(namedCert, namedKey, 0)
	asked[*clientv3.PutResponse](t)(good.Put(t.Context(), "through", "both"))
	if got := pairs(asked[*clientv3.GetResponse](t)(good.Get(t.Context(), "through"))); got != "through=both" {
		t.Error(got)
	}
	for what, refused := range map[string]*clientv3.Client{
		"a revoked certificate": first(client(badCert, badKey, 0)), "an old version of TLS": first(client(namedCert, namedKey, tls.VersionTLS12)),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if _, err := refused.Get(ctx, "through"); err == nil {
			t.Errorf("%s is taken", what)
		}
		cancel()
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	resp, err := web.Get("https://" + door + "/health")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("/health in TLS: %v, %v", resp, err)
	}
	if code, body := page(t, pages, "/metrics"); code != http.StatusOK || !strings.Contains(body, "etcd_server_has_leader 1") {
		t.Errorf("the member's metrics: %d %.200s", code, body)
	}
	if code, _ := page(t, pages, "/debug/pprof/cmdline"); code != http.StatusOK {
		t.Errorf("profiles: %d", code)
	}
}

func first[A, B any](a A, _ B) A { return a }
