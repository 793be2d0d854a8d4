package ctl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
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

// certify writes a self-signed certificate for 127.0.0.1 and its key to files.
func certify(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", keyDER)
}

// serveTLS accepts connections that show a certificate of ca and says one byte
// to each; it returns the address.
func serveTLS(t *testing.T, certFile, keyFile string, ca *x509.CertPool) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: ca, ClientAuth: tls.RequireAndVerifyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("."))
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestTLSFlags(t *testing.T) {
	certFile, keyFile := certify(t)
	stranger, strangerKey := certify(t)
	data, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	ca := x509.NewCertPool()
	ca.AppendCertsFromPEM(data)
	addr := serveTLS(t, certFile, keyFile, ca)
	for _, tc := range []struct {
		name string
		g    globals
		ok   bool
	}{
		{"both trust each other", globals{cert: certFile, key: keyFile, cacert: certFile}, true},
		{"the server's certificate is not checked", globals{cert: certFile, key: keyFile, insecureSkipVerify: true}, true},
		{"nobody vouches for the server", globals{cert: certFile, key: keyFile}, false},
		{"somebody else vouches for the server", globals{cert: certFile, key: keyFile, cacert: stranger}, false},
		{"the client shows nothing", globals{cacert: certFile}, false},
		{"the client is a stranger", globals{cert: stranger, key: strangerKey, cacert: certFile}, false},
		{"no file, and no clear text either", globals{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := tc.g.tls()
			if err != nil || cfg == nil {
				t.Fatal(cfg, err)
			}
			c, err := tls.Dial("tcp", addr, cfg)
			if err == nil {
				defer c.Close()
				_, err = c.Read(make([]byte, 1)) // the server's verdict on the client
			}
			if (err == nil) != tc.ok {
				t.Errorf("error %v", err)
			}
		})
	}
	if cfg, err := (&globals{insecureTransport: true}).tls(); cfg != nil || err != nil {
		t.Errorf("clear text: %v, %v", cfg, err)
	}
}
