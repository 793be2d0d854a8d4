package srv

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
)

// zone is a name service: records by service, addresses by host and port.
type zone struct {
	records   map[string][]*net.SRV
	addresses map[string]string
}

func (z zone) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	list, ok := z.records[service+"._"+proto+"."+name]
	if !ok {
		return "", nil, errors.New("no such host")
	}
	return "", list, nil
}

func (z zone) address(hostPort string) (string, error) {
	if a := z.addresses[hostPort]; a != "" {
		return a, nil
	}
	return "", errors.New("no such host")
}

func TestMembersAreFoundInDNS(t *testing.T) {
	z := zone{
		records: map[string][]*net.SRV{
			"etcd-server-ssl._tcp.example.org": {{Target: "a.example.org.", Port: 2380}, {Target: "b.example.org.", Port: 2380}, {Target: "gone.example.org.", Port: 2380}},
			"etcd-server._tcp.example.org":     {{Target: "b.example.org.", Port: 2380}, {Target: "c.example.org.", Port: 2380}},
			"etcd-server-x._tcp.example.org":   {{Target: "a.example.org.", Port: 2380}},
		},
		addresses: map[string]string{
			"a.example.org:2380": "10.0.0.1:2380", "b.example.org:2380": "10.0.0.2:2380", "c.example.org:2380": "10.0.0.3:2380", "10.0.0.2:2380": "10.0.0.2:2380",
		},
	}
	for _, c := range []struct{ what, domain, suffix, name, own, want string }{
		{"over TLS, the entry by another scheme left out", "example.org", "", "n2", "https://10.0.0.2:2380",
			"0=https://a.example.org:2380,n2=https://b.example.org:2380,0=http://c.example.org:2380"},
		{"in clear text", "example.org", "", "n2", "http://10.0.0.2:2380",
			"0=https://a.example.org:2380,n2=http://b.example.org:2380,0=http://c.example.org:2380"},
		{"a suffix", "example.org", "x", "n1", "http://a.example.org:2380", "n1=http://a.example.org:2380"},
		{"nobody knows us", "example.org", "", "n9", "http://10.0.0.9:2380", `error setting up initial cluster: cannot find local etcd member "n9" in SRV records`},
		{"no such domain", "elsewhere.org", "", "n1", "http://a.example.org:2380",
			"error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl no such host\nerror querying DNS SRV records for _etcd-server no such host"},
	} {
		own, err := url.Parse(c.own)
		if err != nil {
			t.Fatal(err)
		}
		q := Query{DNS: z, Address: z.address, Domain: c.domain, Suffix: c.suffix, Name: c.name, URLs: []url.URL{*own}, Log: slog.New(slog.DiscardHandler)}
		got, err := q.InitialCluster(t.Context())
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, strings.ReplaceAll(got, "\n", "|"), c.want)
		}
	}
}
