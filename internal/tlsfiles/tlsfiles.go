// Package tlsfiles makes TLS configurations out of the files that the security
// flags name, for both sides of the client and the peer port, makes certificates
// of its own for --auto-tls, and opens listeners that serve TLS and clear text, one
// of them or both on one port, with a clear word to whoever speaks the other.
//
// The files are looked at again for every handshake and read when they have changed
// (fresh.go), so that certificates, keys, authorities and revocations are replaced
// without a restart; connections that stand stay as they are. What is wrong with a
// new file is logged, and what was read before stays in use until it is put right.
package tlsfiles

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Files are the flags of one port. The zero value is clear text.
type Files struct {
	// CertFile and KeyFile are shown to whoever connects, and to those that we
	// connect to unless ClientCertFile and ClientKeyFile are given: both or neither.
	CertFile, KeyFile             string
	ClientCertFile, ClientKeyFile string
	// TrustedCAFile has the authorities that certificates of the other side are
	// checked with; empty is the system's.
	TrustedCAFile string
	// ClientCertAuth demands a certificate of whoever connects. A TrustedCAFile
	// demands it too.
	ClientCertAuth bool
	// CRLFile lists certificates of the other side that are revoked, in DER or PEM.
	CRLFile string
	// AllowedCNs and AllowedHostnames are of what a certificate of the other side must
	// carry one, as its common name or among its hosts; at most one list may be given.
	AllowedCNs, AllowedHostnames []string
	// CheckAddress refuses those who connect from an address that their certificate
	// neither names nor has a name of. One without names may come from anywhere.
	CheckAddress bool
	// SkipVerify does not check the certificate of the server that we connect to:
	// that of --peer-auto-tls is nobody's word.
	SkipVerify bool
	// ServerName is what the certificates of those that we connect to must be for;
	// empty is the host that is connected to.
	ServerName string
	// CipherSuites are names of crypto/tls; empty is Go's choice.
	CipherSuites []string
	// MinVersion and MaxVersion are TLS1.2 or TLS1.3; empty is TLS1.2 and no limit.
	MinVersion, MaxVersion string
	// Log is told of files that are taken up and of those that cannot be; nil is none.
	Log *slog.Logger
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
	own, err := f.pair(f.CertFile, f.KeyFile)
	if err != nil {
		return nil, err
	}
	if err := f.checkClientPair(); err != nil {
		return nil, err
	}
	others, err := f.judge()
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = protocols
	if f.ClientCertAuth || f.TrustedCAFile != "" {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		// A session that is taken up again would not be judged by what the files say now.
		cfg.SessionTicketsDisabled = true
	}
	outer := cfg.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		now := cfg.Clone()
		now.Certificates = []tls.Certificate{*own.get()}
		now.ClientCAs = others.authorities()
		now.VerifyConnection = func(state tls.ConnectionState) error {
			if err := others.check(&state); err != nil {
				return err
			}
			if f.CheckAddress && len(state.PeerCertificates) > 0 {
				return checkAddress(hello.Context(), state.PeerCertificates[0], hello.Conn.RemoteAddr())
			}
			return nil
		}
		return now, nil
	}
	return outer, nil
}

// Client returns what makes the configuration of the next connection that we make; it
// is the caller's, who sets the server's name.
func (f *Files) Client() (func() *tls.Config, error) {
	cfg, err := f.base()
	if err != nil {
		return nil, err
	}
	cert, key := f.ClientCertFile, f.ClientKeyFile
	if cert == "" && key == "" {
		cert, key = f.CertFile, f.KeyFile
	}
	if cert != "" || key != "" {
		own, err := f.pair(cert, key)
		if err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.get(), nil }
	}
	others, err := f.judge()
	if err != nil {
		return nil, err
	}
	cfg.InsecureSkipVerify, cfg.ServerName = f.SkipVerify, f.ServerName
	cfg.VerifyConnection = func(state tls.ConnectionState) error { return others.check(&state) }
	return func() *tls.Config {
		now := cfg.Clone()
		now.RootCAs = others.authorities()
		return now
	}, nil
}

// checkClientPair says what is wrong with what would be shown to those that we connect
// to: at start, whether we ever do or not.
func (f *Files) checkClientPair() error {
	if f.ClientCertFile == "" && f.ClientKeyFile == "" {
		return nil
	}
	if f.ClientCertFile == "" || f.ClientKeyFile == "" {
		return fmt.Errorf("ClientKeyFile and ClientCertFile must both be present or both absent: key: %v, cert: %v]", f.ClientKeyFile, f.ClientCertFile)
	}
	_, err := f.pair(f.ClientCertFile, f.ClientKeyFile)
	return err
}

// pair is a certificate with its key.
func (f *Files) pair(cert, key string) (*fresh[*tls.Certificate], error) {
	if cert == "" || key == "" {
		return nil, fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", key, cert)
	}
	return newFresh(f.Log, "certificate", func(texts [][]byte) (*tls.Certificate, []any, error) {
		pair, err := tls.X509KeyPair(texts[0], texts[1])
		if err != nil {
			return nil, nil, fmt.Errorf("cannot load certificate %s with key %s: %w", cert, key, err)
		}
		if left := time.Until(pair.Leaf.NotAfter); left < 0 && f.Log != nil {
			f.Log.Warn("the certificate has expired: others will refuse it", "file", cert, "not-after", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		return &pair, []any{"subject", pair.Leaf.Subject.String(), "not-after", pair.Leaf.NotAfter.UTC().Format(time.RFC3339)}, nil
	}, func(err error) error { return fmt.Errorf("cannot load certificate %s with key %s: %w", cert, key, err) }, cert, key)
}

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
