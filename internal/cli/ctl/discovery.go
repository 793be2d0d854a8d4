package ctl

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// srvResolver is the part of net.Resolver that finds endpoints.
type srvResolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

var resolver srvResolver = net.DefaultResolver

// lookupEndpoints asks DNS for the client endpoints of a domain: first those
// with TLS, then, unless they are unwanted, those without.
func lookupEndpoints(ctx context.Context, dns srvResolver, g *globals) ([]string, error) {
	var endpoints []string
	var failures []string
	for _, kind := range []struct{ service, scheme string }{
		{"etcd-client-ssl", "https"},
		{"etcd-client", "http"},
	} {
		if kind.scheme == "http" && !g.insecureDiscovery {
			continue
		}
		service := kind.service
		if g.srvName != "" {
			service += "-" + g.srvName
		}
		_, records, err := dns.LookupSRV(ctx, service, "tcp", g.srvDomain)
		if err != nil {
			failures = append(failures, err.Error())
			continue
		}
		for _, r := range records {
			host := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			endpoints = append(endpoints, kind.scheme+"://"+host)
		}
	}
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("dns lookup errors: %s", strings.Join(failures, " and "))
	}
	return endpoints, nil
}
