package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/internal/id"
)

// Remote is a cluster as one of its members tells it over HTTP on its peer port.
type Remote struct {
	Cluster id.Cluster
	Members []RemoteMember
}

// RemoteMember is one member of it. Name is empty until the member has started.
type RemoteMember struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
}

// MembersPath is where a member tells them; ClusterHeader is the header with the
// cluster's ID, in hexadecimal.
const (
	MembersPath   = "/members"
	ClusterHeader = "X-Etcd-Cluster-ID"
)

// ErrNoCluster: no member of the cluster to join gave an answer.
var ErrNoCluster = errors.New("could not retrieve cluster information from the given URLs")

// answerBytes bounds an answer: a cluster has a few members.
const answerBytes = 1 << 20

// Fetch asks the URLs, in turn, for the members of their cluster. Errors:
// ErrNoCluster, with what each of them said.
func Fetch(ctx context.Context, client *http.Client, urls []string) (*Remote, error) {
	all := []error{ErrNoCluster}
	for _, url := range urls {
		remote, err := fetch(ctx, client, url)
		if err == nil {
			return remote, nil
		}
		all = append(all, fmt.Errorf("%s: %w", url, err))
	}
	return nil, errors.Join(all...)
}

func fetch(ctx context.Context, client *http.Client, url string) (*Remote, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+MembersPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	cluster, err := strconv.ParseUint(resp.Header.Get(ClusterHeader), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("no cluster id in its answer: %w", err)
	}
	remote := &Remote{Cluster: id.Cluster(cluster)}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytes)).Decode(&remote.Members); err != nil {
		return nil, err
	}
	if len(remote.Members) == 0 {
		return nil, errors.New("it knows of no members yet")
	}
	return remote, nil
}

// Match finds the identity of a member that joins: the cluster must have just the
// members that --initial-cluster lists, each with the same peer URLs, and own are
// this member's. Errors: those of spec/server-ops.md 3.3.
func (r *Remote) Match(listed [][]string, own []string) (Identity, error) {
	if len(listed) != len(r.Members) {
		return Identity{}, fmt.Errorf("error validating peerURLs %s: member count is unequal", r)
	}
	who := Identity{Cluster: r.Cluster}
	for _, m := range r.Members {
		at := slices.IndexFunc(listed, func(urls []string) bool { return same(urls, m.PeerURLs) })
		if at < 0 {
			return Identity{}, fmt.Errorf("error validating peerURLs %s: PeerURLs: no match found for existing member (%x, %v)", r, m.ID, m.PeerURLs)
		}
		if same(listed[at], own) {
			who.Member = id.Member(m.ID)
		}
	}
	if who.Member == 0 {
		return Identity{}, fmt.Errorf("error validating peerURLs %s: none of them is this member's %v", r, own)
	}
	return who, nil
}

func same(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// String tells the members for an error.
func (r *Remote) String() string {
	var list []string
	for _, m := range r.Members {
		list = append(list, fmt.Sprintf("{%x %v}", m.ID, m.PeerURLs))
	}
	return "{" + strings.Join(list, " ") + "}"
}
