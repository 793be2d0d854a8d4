package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An InitialMember is one entry of --initial-cluster.
type InitialMember struct {
	Name     string
	PeerURLs URLs
}

// InitialMembers reads --initial-cluster: "name=url" pairs, a name repeated
// once for each of its URLs. The result is sorted by name.
func (c *Config) InitialMembers() ([]InitialMember, error) {
	lists := map[string][]string{}
	var names []string
	for _, pair := range strings.Split(c.InitialCluster, ",") {
		name, text, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || name == "" || text == "" {
			return nil, fmt.Errorf("error setting up initial cluster: malformed entry %q, expecting name=url", pair)
		}
		if lists[name] == nil {
			names = append(names, name)
		}
		lists[name] = append(lists[name], text)
	}
	slices.Sort(names)
	members := make([]InitialMember, 0, len(names))
	seen := map[string]bool{}
	for _, name := range names {
		urls, err := ParseURLs(strings.Join(lists[name], ","))
		if err != nil {
			return nil, fmt.Errorf("error setting up initial cluster: %w", err)
		}
		for _, text := range urls.Strings() {
			if seen[text] {
				return nil, fmt.Errorf("initial cluster {%s} has duplicate url", c.InitialCluster)
			}
			seen[text] = true
		}
		members = append(members, InitialMember{Name: name, PeerURLs: urls})
	}
	return members, nil
}

// Resolve finds the address that a "host:port" stands for.
type Resolve func(hostPort string) (string, error)

// CheckInitialCluster demands that --initial-cluster names this member, with
// exactly the URLs of --initial-advertise-peer-urls: the same texts or, if resolve
// is not nil, the same addresses. It returns the URLs as --initial-cluster has
// them, which is how the other members know this one. It matters only to a member
// that forms or joins a cluster: a member that has data already ignores both flags.
func (c *Config) CheckInitialCluster(resolve Resolve) (URLs, error) {
	members, err := c.InitialMembers()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(members, func(m InitialMember) bool { return m.Name == c.Name })
	if i < 0 {
		return nil, fmt.Errorf("couldn't find local name %q in the initial cluster configuration", c.Name)
	}
	own := members[i].PeerURLs
	listed, advertised := own.Strings(), c.AdvertisePeerURLs.Strings()
	missing, extra := without(listed, advertised), without(advertised, listed)
	if (len(missing) > 0 || len(extra) > 0) && resolve != nil {
		same, err := sameAddresses(own, c.AdvertisePeerURLs, resolve)
		if err != nil {
			return nil, fmt.Errorf("failed to resolve %s to match --initial-cluster=%s (%w)",
				strings.Join(advertised, ","), named(c.Name, listed), err)
		}
		if same {
			return own, nil
		}
	}
	switch {
	case len(missing) > 0:
		return nil, fmt.Errorf("--initial-cluster has %s but missing from --initial-advertise-peer-urls=%s",
			named(c.Name, missing), strings.Join(advertised, ","))
	case len(extra) > 0:
		return nil, fmt.Errorf("--initial-advertise-peer-urls has %s but missing from --initial-cluster=%s",
			strings.Join(extra, ","), named(c.Name, listed))
	}
	return own, nil
}

// sameAddresses says whether two lists lead to the same places.
func sameAddresses(a, b URLs, resolve Resolve) (bool, error) {
	var lists [2][]string
	for i, urls := range []URLs{a, b} {
		for _, u := range urls {
			if !isUnix(&u) {
				address, err := resolve(u.Host)
				if err != nil {
					return false, err
				}
				u.Host = address
			}
			lists[i] = append(lists[i], u.String())
		}
		slices.Sort(lists[i])
	}
	return slices.Equal(lists[0], lists[1]), nil
}

// AdvertiseHost puts a host's address into --initial-advertise-peer-urls if that
// was not given and the member listens on all addresses (0.0.0.0): its default,
// localhost, would be of no use to others. It reports whether it did. An
// --initial-cluster that was not given either follows.
func (c *Config) AdvertiseHost(host func() string) bool {
	listens := &c.ListenPeerURLs[0]
	if c.AdvertisePeerURLs.String() != defaultPeerURL || listens.Hostname() != "0.0.0.0" {
		return false
	}
	address := host()
	if address == "" {
		return false
	}
	u := *listens
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	u.Host = address + ":" + listens.Port()
	c.AdvertisePeerURLs = URLs{u}
	if c.InitialCluster == c.Name+"="+defaultPeerURL {
		c.InitialCluster = c.Name + "=" + u.String()
	}
	return true
}

// errNoURLs is the answer to an empty list where one is needed.
var errNoURLs = errors.New("no valid URLs given")

func without(list, other []string) []string {
	var rest []string
	for _, s := range list {
		if !slices.Contains(other, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

func named(name string, urls []string) string {
	pairs := make([]string, len(urls))
	for i, u := range urls {
		pairs[i] = name + "=" + u
	}
	return strings.Join(pairs, ",")
}
