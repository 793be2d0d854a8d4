// Package tlsfiles makes TLS configurations out of the files that the security
// flags name, for both sides of the client and the peer port, makes certificates
// of its own for --auto-tls, and opens listeners that serve TLS and clear text, one
// of them or both on one port, with a clear word to whoever speaks the other.
//
// Certificates are taken through functions of tls.Config that are called for each
// handshake (GetCertificate, GetClientCertificate, GetConfigForClient); what
// re-reads the files hooks in there, in one place, see source.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Files are the flags of one port. The zero value is clear text.
type Files struct {
	// CertFile and KeyFile are shown to whoever connects, and to those that we
	// connect to unless ClientCertFile and ClientKeyFile are given.
	CertFile, KeyFile             string
	ClientCertFile, ClientKeyFile string
	// TrustedCAFile has the authorities that certificates of the other side are
	// checked with; empty is the system's.
	TrustedCAFile string
	// ClientCertAuth demands a certificate of whoever connects. A TrustedCAFile
	// demands it too.
	ClientCertAuth bool
	// SkipVerify does not check the certificate of the server that we connect to:
	// that of --peer-auto-tls is nobody's word.
	SkipVerify bool
	// CipherSuites are names of crypto/tls; empty is Go's choice.
	CipherSuites []string
	// MinVersion and MaxVersion are TLS1.2 or TLS1.3; empty is TLS1.2 and no limit.
	MinVersion, MaxVersion string
}

// Empty says whether no file is named: nothing to serve TLS with.
func (f *Files) Empty() bool { return f.CertFile == "" && f.KeyFile == "" }

// Server is the configuration of a listener that offers protocols by ALPN, the
// preferred one first. A certificate and key are needed. The files are read now, so
// that what is wrong with them is known at start.
func (f *Files) Server(protocols ...string) (*tls.Config, error) {
	cfg, err := f.base()
	if err != nil {
		return nil, err
	}
	if f.Empty() {
		return nil, errors.New("a certificate and its key are needed to serve TLS")
	}
	own, err := load(f.CertFile, f.KeyFile)
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = protocols
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.certificate() }
	if f.ClientCertAuth || f.TrustedCAFile != "" {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if cfg.ClientCAs, err = f.authorities(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// Client is the configuration of connections that we make. The server's name is to
// be set by whoever connects.
func (f *Files) Client() (*tls.Config, error) {
	cfg, err := f.base()
	if err != nil {
		return nil, err
	}
	cert, key := f.ClientCertFile, f.ClientKeyFile
	if cert == "" && key == "" {
		cert, key = f.CertFile, f.KeyFile
	}
	if cert != "" || key != "" {
		own, err := load(cert, key)
		if err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.certificate() }
	}
	if cfg.RootCAs, err = f.authorities(); err != nil {
		return nil, err
	}
	cfg.InsecureSkipVerify = f.SkipVerify
	return cfg, nil
}

// authorities reads the trusted authorities; nil is the system's.
func (f *Files) authorities() (*x509.CertPool, error) {
	if f.TrustedCAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(f.TrustedCAFile)
	if err != nil {
		return nil, fmt.Errorf("cannot load the trusted CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("cannot load the trusted CA: %s has no certificate in PEM", f.TrustedCAFile)
	}
	return pool, nil
}

// source is a certificate with its key, and where they come from.
type source struct {
	pair tls.Certificate
}

// load reads a certificate and its key.
func load(cert, key string) (*source, error) {
	if cert == "" || key == "" {
		return nil, fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", key, cert)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("cannot load certificate %s with key %s: %w", cert, key, err)
	}
	return &source{pair: pair}, nil
}

// certificate is asked for by every handshake.
func (s *source) certificate() (*tls.Certificate, error) { return &s.pair, nil }

// base has what both sides share.
func (f *Files) base() (*tls.Config, error) {
	lowest, err := version(f.MinVersion, tls.VersionTLS12)
	if err != nil {
		return nil, err
	}
	highest, err := version(f.MaxVersion, 0)
	if err != nil {
		return nil, err
	}
	if highest != 0 && lowest > highest {
		return nil, fmt.Errorf("min version (%s) is greater than max version (%s)", f.MinVersion, f.MaxVersion)
	}
	if lowest == tls.VersionTLS13 && len(f.CipherSuites) > 0 {
		return nil, errors.New("cipher suites cannot be configured when only TLS1.3 is enabled")
	}
	suites, err := suites(f.CipherSuites)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: lowest, MaxVersion: highest, CipherSuites: suites}, nil
}

func version(name string, standard uint16) (uint16, error) {
	switch name {
	case "":
		return standard, nil
	case "TLS1.2":
		return tls.VersionTLS12, nil
	case "TLS1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unexpected TLS version %q (must be TLS1.2 or TLS1.3)", name)
}

func suites(names []string) ([]uint16, error) {
	known := map[string]uint16{
		// Names that Go's own have replaced.
		"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range list {
			known[s.Name] = s.ID
		}
	}
	var ids []uint16
	for _, name := range names {
		number, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("unexpected TLS cipher suite %q", name)
		}
		ids = append(ids, number)
	}
	return ids, nil
}
