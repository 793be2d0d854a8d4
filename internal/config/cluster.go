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

// CheckInitialCluster demands that --initial-cluster names this member, with
// exactly the URLs of --initial-advertise-peer-urls, compared as texts. It
// matters only to a member that forms or joins a cluster: a member that has
// data already ignores both flags.
func (c *Config) CheckInitialCluster() error {
	members, err := c.InitialMembers()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(members, func(m InitialMember) bool { return m.Name == c.Name })
	if i < 0 {
		return fmt.Errorf("couldn't find local name %q in the initial cluster configuration", c.Name)
	}
	listed, advertised := members[i].PeerURLs.Strings(), c.AdvertisePeerURLs.Strings()
	if missing := without(listed, advertised); len(missing) > 0 {
		return fmt.Errorf("--initial-cluster has %s but missing from --initial-advertise-peer-urls=%s",
			named(c.Name, missing), strings.Join(advertised, ","))
	}
	if missing := without(advertised, listed); len(missing) > 0 {
		return fmt.Errorf("--initial-advertise-peer-urls has %s but missing from --initial-cluster=%s",
			strings.Join(missing, ","), named(c.Name, listed))
	}
	return nil
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
