package command

import (
	"errors"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/internal/id"
)

// Why there is no downgrade; the texts are etcd's (v3-api.md 1.3, 6.5).
var (
	ErrDowngradeFormat  = errors.New("etcdserver: wrong downgrade target version format")
	ErrDowngradeTarget  = errors.New("etcdserver: invalid downgrade target version")
	ErrDowngrading      = errors.New("etcdserver: cluster has a downgrade job in progress")
	ErrNoClusterVersion = errors.New("etcdserver: cluster version not found during downgrade")
)

// ErrDowngradeNotOver refuses to end a downgrade that there is not, or whose members
// have not all come down.
var ErrDowngradeNotOver = errors.New("command: no downgrade is over")

// What happens to downgrades, of which there is one at a time (docs/decisions/0037).
type (
	// DowngradeEnable begins one: the cluster is to go down to Target.
	DowngradeEnable struct{ Target Version }
	// DowngradeCancel ends one because somebody asked for it, if there is one.
	DowngradeCancel struct{}
	// DowngradeEnd ends one to which all members have come down, a duty of the leader.
	DowngradeEnd struct{}
)

// DowngradeResponse has the version of the cluster there and then. Revision is the
// store's, for the header.
type DowngradeResponse struct {
	Revision id.Revision
	Version  Version
}

// Kind of each body.
func (*DowngradeEnable) Kind() Kind { return KindDowngradeEnable }
func (*DowngradeCancel) Kind() Kind { return KindDowngradeCancel }
func (*DowngradeEnd) Kind() Kind    { return KindDowngradeEnd }

// Cost of each is 0.
func (*DowngradeEnable) Cost() int64 { return 0 }
func (*DowngradeCancel) Cost() int64 { return 0 }
func (*DowngradeEnd) Cost() int64    { return 0 }

func (d *DowngradeEnable) appendTo(dst []byte) []byte {
	return append(dst, d.Target.Major, d.Target.Minor)
}

func (d *DowngradeEnable) decode(r *reader) { d.Target = Version{r.byte(), r.byte()} }

func (*DowngradeCancel) appendTo(dst []byte) []byte { return append(dst, 0) }
func (*DowngradeCancel) decode(r *reader)           { r.flags(0) }
func (*DowngradeEnd) appendTo(dst []byte) []byte    { return append(dst, 0) }
func (*DowngradeEnd) decode(r *reader)              { r.flags(0) }

// ParseTarget reads the target of a downgrade: X.Y, or a whole X.Y.Z with whatever a
// pre-release and a build add to it, of which X.Y counts. Errors: ErrDowngradeFormat;
// ErrDowngradeTarget for numbers that no cluster has.
func ParseTarget(text string) (Version, error) {
	text, _, build := strings.Cut(text, "+")
	text, _, early := strings.Cut(text, "-")
	parts := strings.Split(text, ".")
	if len(parts) != 3 && (len(parts) != 2 || build || early) {
		return Version{}, ErrDowngradeFormat
	}
	var numbers [3]uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 63)
		if err != nil {
			return Version{}, ErrDowngradeFormat
		}
		numbers[i] = n
	}
	v := Version{uint8(numbers[0]), uint8(numbers[1])}
	if uint64(v.Major) != numbers[0] || uint64(v.Minor) != numbers[1] {
		return Version{}, ErrDowngradeTarget
	}
	return v, nil
}
