// Package static forms a cluster from --initial-cluster: it parses the list and
// derives the ids of members and cluster exactly as etcd does
// (spec/server-ops.md 3.1), so that the same inputs give the same ids.
package static

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/internal/id"
)

// Peer is one member of an initial cluster.
type Peer struct {
	Name string
	// URLs are its peer URLs, sorted.
	URLs []string
}

// Parse reads "n1=url,n1=url2,n2=url3". Peers come sorted by name. A piece
// without "=" or without a name is an error; the URLs themselves are checked by
// package config.
func Parse(initialCluster string) ([]Peer, error) {
	urls := map[string][]string{}
	var names []string
	for piece := range strings.SplitSeq(initialCluster, ",") {
		piece = strings.TrimSpace(piece)
		if piece == "" {
			continue
		}
		name, url, ok := strings.Cut(piece, "=")
		if !ok || name == "" || url == "" {
			return nil, fmt.Errorf("failed to parse initial cluster: %q is not name=url", piece)
		}
		if _, seen := urls[name]; !seen {
			names = append(names, name)
		}
		urls[name] = append(urls[name], url)
	}
	slices.Sort(names)
	peers := make([]Peer, 0, len(names))
	for _, name := range names {
		slices.Sort(urls[name])
		peers = append(peers, Peer{Name: name, URLs: urls[name]})
	}
	return peers, nil
}

// MemberID is the first 8 bytes, big endian, of the SHA-1 over the sorted peer
// URLs and the initial-cluster token.
func MemberID(peerURLs []string, token string) id.Member {
	sorted := slices.Clone(peerURLs)
	slices.Sort(sorted)
	sum := sha1.Sum([]byte(strings.Join(sorted, "") + token))
	return id.Member(binary.BigEndian.Uint64(sum[:8]))
}

// ClusterID is the first 8 bytes, big endian, of the SHA-1 over the members'
// ids, 8 bytes each, ascending.
func ClusterID(members []id.Member) id.Cluster {
	sorted := slices.Clone(members)
	slices.Sort(sorted)
	var all []byte
	for _, m := range sorted {
		all = binary.BigEndian.AppendUint64(all, uint64(m))
	}
	sum := sha1.Sum(all)
	return id.Cluster(binary.BigEndian.Uint64(sum[:8]))
}
