package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Version is a version of a cluster, major and minor: which commands and calls its
// members know. The zero value is none.
type Version struct{ Major, Minor uint8 }

// FirstVersion is that of a cluster of which not all members are known: those
// commands and calls that every version has.
var FirstVersion = Version{3, 0}

// ErrLowerVersion refuses a member whose program is older than what its cluster has
// agreed on; the text is etcd's (server-ops.md 8).
var ErrLowerVersion = errors.New("invalid downgrade; server version is lower than determined cluster version")

// ErrVersionNotDue refuses to give the cluster a version that is neither that of its
// oldest member nor that of a downgrade.
var ErrVersionNotDue = errors.New("command: the cluster cannot have that version")

// Before says whether v is the lower version.
func (v Version) Before(other Version) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}

// String is the version as clients read it, with a patch of 0; empty for none.
func (v Version) String() string {
	if v == (Version{}) {
		return ""
	}
	return v.Short() + ".0"
}

// Short is the version without a patch; empty for none.
func (v Version) Short() string {
	if v == (Version{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d", v.Major, v.Minor)
}

// ParseVersion reads major and minor of a text like 3.7.1; what follows them does
// not matter.
func ParseVersion(text string) (v Version, ok bool) {
	parts := strings.SplitN(text, ".", 3)
	if len(parts) < 2 {
		return Version{}, false
	}
	major, err1 := strconv.ParseUint(parts[0], 10, 8)
	minor, err2 := strconv.ParseUint(parts[1], 10, 8)
	if err1 != nil || err2 != nil || major == 0 {
		return Version{}, false
	}
	return Version{uint8(major), uint8(minor)}, true
}

// ClusterVersion sets the version of the cluster, a duty of its leader.
type ClusterVersion struct{ Version Version }

// Kind implements Body.
func (*ClusterVersion) Kind() Kind { return KindClusterVersion }

// Cost is 0.
func (*ClusterVersion) Cost() int64 { return 0 }

func (c *ClusterVersion) appendTo(dst []byte) []byte {
	return append(dst, c.Version.Major, c.Version.Minor)
}

func (c *ClusterVersion) decode(r *reader) {
	c.Version = Version{r.byte(), r.byte()}
}
