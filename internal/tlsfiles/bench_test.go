package tlsfiles

import (
	"crypto/tls"
	"os"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/certs"
)

// What looking at the files costs a handshake: certificate, key, CA bundle and CRL
// have not changed.
func BenchmarkLookingAtUnchangedFiles(b *testing.B) {
	ca := certs.NewAuthority(b)
	cert, key := ca.Issue(b, "server", "127.0.0.1")
	crl := b.TempDir() + "/crl"
	ca.Revoke(b, crl)
	files := Files{CertFile: cert, KeyFile: key, TrustedCAFile: ca.File, CRLFile: crl}
	cfg, err := files.Server("h2")
	if err != nil {
		b.Fatal(err)
	}
	hello := &tls.ClientHelloInfo{}
	for _, file := range []string{cert, key, ca.File, crl} { // as if they had lain there for a while
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := cfg.GetConfigForClient(hello); err != nil {
			b.Fatal(err)
		}
	}
}
