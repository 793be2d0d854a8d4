// Package srv finds the members of a new cluster in DNS (--discovery-srv): the SRV
// records of _etcd-server-ssl._tcp and _etcd-server._tcp of a domain, as
// spec/discovery.md 5 has it.
package srv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Resolver is the part of net.Resolver that is asked.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Query is who asks, and for what.
type Query struct {
	DNS Resolver
	// Address finds the "ip:port" of a "host:port", or says that there is none.
	Address func(hostPort string) (string, error)
	// Domain has the records; Suffix, when not empty, is added to the services.
	Domain, Suffix string
	// Name and URLs are those of the member that asks: its entry is found by address
	// and given its name, all others are called 0, 1 and so on.
	Name string
	URLs []url.URL
	Log  *slog.Logger
}

// InitialCluster is what --initial-cluster would say: the entries of both services.
// A target that cannot be resolved is left out; the asking member must be among the
// rest.
func (q *Query) InitialCluster(ctx context.Context) (string, error) {
	own := map[string]string{} // scheme of each of our addresses
	for i := range q.URLs {
		if address, err := q.Address(q.URLs[i].Host); err == nil {
			own[address] = q.URLs[i].Scheme
		}
	}
	var all []string
	var failures []error
	for _, service := range []struct{ name, scheme string }{{"etcd-server-ssl", "https"}, {"etcd-server", "http"}} {
		entries, err := q.lookup(ctx, service.name, service.scheme, own)
		if err != nil {
			q.Log.Warn("no members of this kind in DNS", "service", service.name, "domain", q.Domain, "error", err.Error())
			failures = append(failures, err)
		}
		all = append(all, entries...)
	}
	if len(all) == 0 {
		return "", fmt.Errorf("error setting up initial cluster: %w", errors.Join(failures...))
	}
	if !slices.ContainsFunc(all, func(entry string) bool { return strings.HasPrefix(entry, q.Name+"=") }) {
		return "", fmt.Errorf("error setting up initial cluster: cannot find local etcd member %q in SRV records", q.Name)
	}
	q.Log.Info("found the members of the cluster in DNS", "domain", q.Domain, "initial-cluster", strings.Join(all, ","))
	return strings.Join(all, ","), nil
}

// lookup lists the entries of one service.
func (q *Query) lookup(ctx context.Context, service, scheme string, own map[string]string) (entries []string, err error) {
	if q.Suffix != "" {
		service += "-" + q.Suffix
	}
	_, records, err := q.DNS.LookupSRV(ctx, service, "tcp", q.Domain)
	if err != nil {
		return nil, fmt.Errorf("error querying DNS SRV records for _%s %w", service, err)
	}
	number := 0
	for _, r := range records {
		host := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
		address, err := q.Address(host)
		if err != nil {
			q.Log.Warn("a member's host in DNS has no address and is left out", "host", host, "error", err.Error())
			continue
		}
		name := strconv.Itoa(number)
		if ours, is := own[address]; is {
			if ours != scheme {
				continue // ourselves, by a URL that we do not have
			}
			name = q.Name
		} else {
			number++
		}
		entries = append(entries, name+"="+scheme+"://"+host)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("the records of _%s lead to nobody", service)
	}
	return entries, nil
}
