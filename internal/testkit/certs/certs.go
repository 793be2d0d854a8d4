// Package certs makes certificate authorities and certificates for tests: real
// files, valid for an hour, signed by nobody that anybody else trusts; expired ones
// and lists of revoked ones too.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	// File has its own certificate, what --trusted-ca-file takes.
	File string

	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
	// revoked are those that Revoke was told of.
	revoked []x509.RevocationListEntry
}

// NewAuthority makes an authority whose files lie in a directory of the test's own.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{dir: t.TempDir()}
	a.File = filepath.Join(a.dir, "ca.pem")
	template := x509.Certificate{
		Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.cert, a.key = a.sign(t, &template, a.File, filepath.Join(a.dir, "ca-key.pem"))
	return a
}

// Issue makes a certificate and its key for servers and clients. hosts are names
// and addresses; without any it is good for clients only.
func (a *Authority) Issue(t testing.TB, name string, hosts ...string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")
	a.issue(t, certFile, keyFile, name, time.Now().Add(time.Hour), hosts)
	return certFile, keyFile
}

// IssueNameless is Issue for a client whose certificate has no common name; name is of
// the files only.
func (a *Authority) IssueNameless(t testing.TB, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")
	a.issue(t, certFile, keyFile, "", time.Now().Add(time.Hour), nil)
	return certFile, keyFile
}

// Replace makes a certificate and its key in the place of others, each file at once,
// the certificate first.
func (a *Authority) Replace(t testing.TB, certFile, keyFile, name string, hosts ...string) {
	t.Helper()
	part := filepath.Join(t.TempDir(), "part")
	a.issue(t, part+".pem", part+"-key.pem", name, time.Now().Add(time.Hour), hosts)
	for _, move := range [][2]string{{part + ".pem", certFile}, {part + "-key.pem", keyFile}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
}

// IssueExpired is Issue with a certificate whose time ended a minute ago.
func (a *Authority) IssueExpired(t testing.TB, name string, hosts ...string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")
	a.issue(t, certFile, keyFile, name, time.Now().Add(-time.Minute), hosts)
	return certFile, keyFile
}

// Revoke writes a list, in DER, of all that were revoked so far, these certificates
// included.
func (a *Authority) Revoke(t testing.TB, crlFile string, certFiles ...string) {
	t.Helper()
	for _, file := range certFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatalf("%s is no certificate", file)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		a.revoked = append(a.revoked, x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: time.Now()})
	}
	a.serial++
	list := x509.RevocationList{Number: big.NewInt(a.serial), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: a.revoked}
	raw, err := x509.CreateRevocationList(rand.Reader, &list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(crlFile+".part", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(crlFile+".part", crlFile); err != nil {
		t.Fatal(err)
	}
}

func (a *Authority) issue(t testing.TB, certFile, keyFile, name string, until time.Time, hosts []string) {
	t.Helper()
	template := x509.Certificate{
		NotAfter:    until,
		Subject:     pkix.Name{CommonName: name, Organization: []string{"kvorum"}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	a.sign(t, &template, certFile, keyFile)
}

func (a *Authority) sign(t testing.TB, template *x509.Certificate, certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore = time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil { // the authority's own
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, "CERTIFICATE", raw)
	write(t, keyFile, "PRIVATE KEY", secret)
	return cert, key
}

func write(t testing.TB, name, kind string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}
