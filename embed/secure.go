package embed

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/tlsfiles"
)

// secure reads the certificates and has the ports speak TLS where their URLs say
// so. Certificates of --auto-tls are made in the data directory.
func (s *Server) secure() error {
	clients, err := s.files(&s.cfg.ClientTLS, "client", s.cfg.ListenClientURLs)
	if err != nil {
		return err
	}
	peers, err := s.files(&s.cfg.PeerTLS, "peer", s.cfg.ListenPeerURLs)
	if err != nil {
		return err
	}
	both := []string{"h2", "http/1.1"}
	if len(s.listeners.clientHTTP) > 0 { // gRPC alone
		both = both[:1]
	}
	for _, kind := range []struct {
		name      string
		files     *tlsfiles.Files
		ports     []*port
		protocols []string
	}{
		{"client", clients, s.listeners.clients, both}, {"client", clients, s.listeners.clientHTTP, []string{"http/1.1"}},
		{"metrics", clients, s.listeners.metrics, []string{"http/1.1"}}, {"peer", peers, s.listeners.peers, nil},
	} {
		for _, p := range kind.ports {
			if !p.secure {
				if !kind.files.Empty() && kind.name != "metrics" {
					s.log.Warn("the URL is one of clear text: certificate and key are not used for it", "endpoint", kind.name, "address", p.Addr().String())
				}
				continue
			}
			cfg, err := kind.files.Server(kind.protocols...)
			if err != nil {
				return fmt.Errorf("cannot serve TLS on %s: %w", p.Addr(), err)
			}
			p.Listener = tlsfiles.Listen(p.Listener, tlsfiles.Serving{TLS: cfg, Plain: p.plain, Endpoint: kind.name, Log: s.log})
		}
	}
	if s.cfg.AdvertisePeerURLs.Secure() || !peers.Empty() || peers.TrustedCAFile != "" {
		if s.peerTLS, err = peers.Client(); err != nil {
			return fmt.Errorf("cannot connect to peers by TLS: %w", err)
		}
	}
	return nil
}

// files are those of one port; certificates that are made stand for missing ones.
func (s *Server) files(t *config.TLS, kind string, urls config.URLs) (*tlsfiles.Files, error) {
	f := tlsfiles.Files{CertFile: t.CertFile, KeyFile: t.KeyFile}
	if t.Auto && f.Empty() && urls.Secure() {
		var hosts []string
		for i := range urls {
			hosts = append(hosts, urls[i].Host)
		}
		made, err := tlsfiles.SelfSigned(filepath.Join(s.cfg.DataDir, "fixtures", kind), hosts, s.cfg.SelfSignedYears)
		if err != nil {
			return nil, err
		}
		f = made
	}
	f.ClientCertFile, f.ClientKeyFile = t.ClientCertFile, t.ClientKeyFile
	f.TrustedCAFile, f.ClientCertAuth, f.CRLFile = t.TrustedCAFile, t.ClientCertAuth, t.CRLFile
	f.AllowedCNs, f.AllowedHostnames, f.Log = t.AllowedCNs, t.AllowedHostnames, s.log
	if kind == "peer" && t.TrustedCAFile == "" {
		f.ServerName = s.cfg.Discovery.SRV
	}
	f.CheckAddress = kind == "peer" && !t.SkipSANCheck
	if demands := f.ClientCertAuth || f.TrustedCAFile != ""; !demands && (f.CRLFile != "" || len(f.AllowedCNs)+len(f.AllowedHostnames) > 0) {
		s.log.Warn("certificates are not demanded, so nobody is held to a CRL or to allowed names: a trusted CA is missing", "endpoint", kind)
	}
	f.CipherSuites, f.MinVersion, f.MaxVersion = s.cfg.CipherSuites, s.cfg.TLSMinVersion, s.cfg.TLSMaxVersion
	return &f, nil
}

// web asks peers over HTTP, by TLS where their URLs say so.
func (s *Server) web() *http.Client {
	t := &http.Transport{DisableKeepAlives: true}
	if s.peerTLS != nil {
		t.TLSClientConfig = s.peerTLS()
	}
	if from := s.peersFrom(); from != nil {
		t.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).DialContext
	}
	return &http.Client{Transport: t}
}

// peersFrom is the address that peers are connected to from: with the gate
// SetMemberLocalAddr the first of those that are advertised to them and not of this
// machine alone; nil leaves it to the system.
func (s *Server) peersFrom() net.IP {
	if !s.cfg.Gates.SetMemberLocalAddr {
		return nil
	}
	for i := range s.cfg.AdvertisePeerURLs {
		if ip := net.ParseIP(s.cfg.AdvertisePeerURLs[i].Hostname()); ip != nil && !ip.IsLoopback() && !ip.IsUnspecified() {
			return ip
		}
	}
	return nil
}
