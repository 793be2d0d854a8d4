package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// srvResolver is the part of net.Resolver that finds endpoints.
type srvResolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Discovery finds endpoints in DNS.
type Discovery struct {
	// Domain is asked for the services etcd-client-ssl and etcd-client, Name is a
	// suffix of both.
	Domain, Name string
	// Insecure takes endpoints of clear text too.
	Insecure bool
	// TrustedCAFile checks the certificates of those of TLS; empty is the system's
	// authorities.
	TrustedCAFile string
	Log           *slog.Logger
	// Resolver is net.DefaultResolver.
	Resolver srvResolver
}

// checking bounds the look at one endpoint's certificate.
const checking = 5 * time.Second

// Endpoints asks DNS, and leaves out those that have no certificate for the domain.
func (d *Discovery) Endpoints(ctx context.Context) (found []Endpoint, err error) {
	var failures []error
	for _, service := range []string{"etcd-client-ssl", "etcd-client"} {
		secure := service == "etcd-client-ssl"
		if !secure && !d.Insecure {
			continue
		}
		if d.Name != "" {
			service += "-" + d.Name
		}
		_, records, err := d.Resolver.LookupSRV(ctx, service, "tcp", d.Domain)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, r := range records {
			e := Endpoint{Address: net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))), Priority: r.Priority, Weight: r.Weight, Secure: secure}
			if secure {
				if err := d.verify(ctx, e.Address); err != nil {
					d.Log.Warn("endpoint is left out: its certificate is not good", "address", e.Address, "error", err.Error())
					failures = append(failures, fmt.Errorf("%s: %w", e.Address, err))
					continue
				}
			}
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no endpoints found for %s: %w", d.Domain, errors.Join(failures...))
	}
	return found, nil
}

// verify demands a certificate that is good for the domain or the host.
func (d *Discovery) verify(ctx context.Context, address string) error {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: d.Domain}
	if d.TrustedCAFile != "" {
		text, err := os.ReadFile(d.TrustedCAFile)
		if err != nil {
			return err
		}
		if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s has no certificate in PEM", d.TrustedCAFile)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checking)
	defer cancel()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
