// Package static forms a cluster from --initial-cluster: it derives the ids of
// members and cluster exactly as etcd does (spec/server-ops.md 3.1), so that the
// same inputs give the same ids.
package static

import (
	"crypto/sha1"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/internal/id"
)

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
