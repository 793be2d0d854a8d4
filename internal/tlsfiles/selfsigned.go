package tlsfiles

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// SelfSigned names the certificate and key in a directory (fixtures/client or
// fixtures/peer of the data directory), and makes them first if they are not there:
// for the hosts, valid for so many years, checked by nobody (spec/server-ops.md 7).
// Those that are there are used whatever they say. hosts are names, addresses, or
// either with a port.
func SelfSigned(dir string, hosts []string, years uint) (Files, error) {
	if years == 0 {
		return Files{}, errors.New("selfSignedCertValidity is invalid,it should be greater than 0")
	}
	f := Files{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), SkipVerify: true}
	if exists(f.CertFile) && exists(f.KeyFile) {
		return f, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Files{}, err
	}
	cert, key, err := signSelf(hosts, time.Now(), years)
	if err != nil {
		return Files{}, fmt.Errorf("cannot make a certificate: %w", err)
	}
	// The key comes last: a certificate without one is made again.
	if err := errors.Join(replace(f.CertFile, cert, 0o644), replace(f.KeyFile, key, 0o600)); err != nil {
		return Files{}, err
	}
	return f, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// replace writes a file so that it is there as a whole or not at all.
func replace(name string, text []byte, mode os.FileMode) error {
	part := name + ".part"
	if err := os.WriteFile(part, text, mode); err != nil {
		return err
	}
	return os.Rename(part, name)
}

// signSelf makes a certificate in the name of etcd and its key, in PEM.
func signSelf(hosts []string, now time.Time, years uint) (cert, key []byte, err error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"etcd"}},
		NotBefore:             now,
		NotAfter:              now.AddDate(int(years), 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if host != "" {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	key = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	return cert, key, nil
}
