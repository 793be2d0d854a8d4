package tlsfiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// judge is what the certificate of the other side is held against.
type judge struct {
	f       *Files
	trusted *fresh[*x509.CertPool]  // nil: the system's authorities
	revoked *fresh[revocationLists] // nil: nobody's
}

func (f *Files) judge() (j *judge, err error) {
	j = &judge{f: f}
	if len(f.AllowedCNs) > 0 && len(f.AllowedHostnames) > 0 {
		return nil, fmt.Errorf("AllowedCNs and AllowedHostnames are mutually exclusive (cns=%q, hostnames=%q)", f.AllowedCNs, f.AllowedHostnames)
	}
	if f.TrustedCAFile != "" {
		wrap := func(err error) error { return fmt.Errorf("cannot load the trusted CA: %w", err) }
		j.trusted, err = newFresh(f.Log, "CA bundle", func(texts [][]byte) (*x509.CertPool, []any, error) {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(texts[0]) {
				return nil, nil, wrap(fmt.Errorf("%s has no certificate in PEM", f.TrustedCAFile))
			}
			return pool, nil, nil
		}, wrap, f.TrustedCAFile)
		if err != nil {
			return nil, err
		}
	}
	if f.CRLFile != "" {
		wrap := func(err error) error { return fmt.Errorf("cannot load the CRL %s: %w", f.CRLFile, err) }
		j.revoked, err = newFresh(f.Log, "CRL", func(texts [][]byte) (revocationLists, []any, error) {
			lists, err := parseCRL(texts[0])
			if err != nil {
				return nil, nil, wrap(err)
			}
			return lists, []any{"revoked", lists.count()}, f.staleCRL(lists)
		}, wrap, f.CRLFile)
	}
	return j, err
}

// staleCRL tells of a list that should have been replaced by now. It counts all the
// same: an authority that is late must not open the door.
func (f *Files) staleCRL(lists revocationLists) error {
	for _, list := range lists {
		if !list.NextUpdate.IsZero() && time.Now().After(list.NextUpdate) && f.Log != nil {
			f.Log.Warn("the CRL is out of date and stays in use", "file", f.CRLFile, "issuer", list.Issuer.String(),
				"next-update", list.NextUpdate.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// authorities are those that count now; nil is the system's.
func (j *judge) authorities() *x509.CertPool {
	if j.trusted == nil {
		return nil
	}
	return j.trusted.get()
}

// check looks at the other side's certificate once its chain is known to be good.
func (j *judge) check(state *tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil // and none was demanded
	}
	if j.revoked != nil {
		lists := j.revoked.get()
		for _, cert := range state.PeerCertificates {
			if lists.has(cert) {
				return fmt.Errorf("the certificate of %q with serial number %x is revoked", name(cert), cert.SerialNumber)
			}
		}
	}
	cert := state.PeerCertificates[0]
	if len(j.f.AllowedCNs) > 0 && !slices.Contains(j.f.AllowedCNs, cert.Subject.CommonName) {
		return fmt.Errorf("client certificate authentication failed: the common name %q is not allowed", cert.Subject.CommonName)
	}
	if hosts := j.f.AllowedHostnames; len(hosts) > 0 && !slices.ContainsFunc(hosts, func(host string) bool { return cert.VerifyHostname(host) == nil }) {
		return fmt.Errorf("client certificate authentication failed: the certificate of %q is for no allowed host name", name(cert))
	}
	return nil
}

// name is what people know a certificate by.
func name(cert *x509.Certificate) string {
	if cert.Subject.CommonName != "" {
		return cert.Subject.CommonName
	}
	return cert.Subject.String()
}

// revocationLists are the lists of one file.
type revocationLists []*x509.RevocationList

// parseCRL reads one list in DER, or all that are in a text in PEM. It is the
// operator's own file, so signatures are not asked for.
func parseCRL(text []byte) (lists revocationLists, err error) {
	if block, _ := pem.Decode(text); block == nil {
		list, err := x509.ParseRevocationList(text)
		return revocationLists{list}, err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, errors.New("there is no list in PEM")
	}
	return lists, nil
}

func (lists revocationLists) count() (n int) {
	for _, list := range lists {
		n += len(list.RevokedCertificateEntries)
	}
	return n
}

// has says whether the authority that issued a certificate has revoked it. A list of
// another authority says nothing about it, even if it has the same serial number.
func (lists revocationLists) has(cert *x509.Certificate) bool {
	for _, list := range lists {
		if !slices.Equal(list.RawIssuer, cert.RawIssuer) && !sameName(&list.Issuer, &cert.Issuer) {
			continue
		}
		if a, b := list.AuthorityKeyId, cert.AuthorityKeyId; len(a) > 0 && len(b) > 0 && !slices.Equal(a, b) {
			continue // an older or newer key of the same name
		}
		for i := range list.RevokedCertificateEntries {
			if list.RevokedCertificateEntries[i].SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return true
			}
		}
	}
	return false
}

// sameName compares names that may be encoded in different ways.
func sameName(a, b *pkix.Name) bool { return a.String() == b.String() }

// resolving bounds the questions to the name service that a handshake waits for.
const resolving = 5 * time.Second

// checkAddress demands that a certificate is for the address that its owner connects
// from, by the rule of spec/server-ops.md 7: one of its addresses, or an address of
// one of its names.
func checkAddress(ctx context.Context, cert *x509.Certificate, from net.Addr) error {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil || len(cert.IPAddresses) == 0 && len(cert.DNSNames) == 0 {
		return nil // a unix socket, or a certificate for anywhere
	}
	ip := net.ParseIP(host)
	if slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolving)
	defer cancel()
	for _, name := range cert.DNSNames {
		if wildcard, ok := strings.CutPrefix(name, "*."); ok {
			if reverse, err := net.DefaultResolver.LookupAddr(ctx, host); err == nil && slices.ContainsFunc(reverse, func(full string) bool {
				_, domain, _ := strings.Cut(strings.TrimSuffix(full, "."), ".")
				return strings.EqualFold(domain, wildcard)
			}) {
				return nil
			}
			continue
		}
		if addresses, err := net.DefaultResolver.LookupHost(ctx, name); err == nil && slices.ContainsFunc(addresses, func(a string) bool { return ip.Equal(net.ParseIP(a)) }) {
			return nil
		}
	}
	return fmt.Errorf("tls: %q does not match any of IPAddresses %v and DNSNames %q of the certificate", host, cert.IPAddresses, cert.DNSNames)
}
