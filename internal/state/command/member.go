package command

import (
	"encoding/binary"
	"errors"

	"github.com/kvorum/kvorum/internal/id"
)

// What the table of members refuses; the texts are etcd's (spec 5).
var (
	ErrMemberNotFound  = errors.New("etcdserver: member not found")
	ErrMemberExists    = errors.New("etcdserver: member ID already exist")
	ErrPeerURLExists   = errors.New("etcdserver: Peer URLs already exists")
	ErrBadMemberURLs   = errors.New("etcdserver: given member URLs are invalid")
	ErrTooManyLearners = errors.New("etcdserver: too many learner members in cluster")
	ErrNotLearner      = errors.New("etcdserver: can only promote a learner member")
	ErrLearnerNotReady = errors.New("etcdserver: can only promote a learner member which is in sync with leader")
)

// MemberPublish tells the facts of a member that others may show: its name and
// the URLs that it serves clients on. PeerURLs are those it was started with, Version
// is the highest version of a cluster that its program can be part of.
type MemberPublish struct {
	Member     id.Member
	Name       string
	PeerURLs   []string
	ClientURLs []string
	Version    Version
}

// MemberGenesis names the members that a cluster was formed with. Every one of
// them proposes it; the first one counts.
type MemberGenesis struct{ Members []GenesisMember }

// GenesisMember is one of the first members.
type GenesisMember struct {
	Member   id.Member
	PeerURLs []string
}

// MemberUpdate gives a member other peer URLs.
type MemberUpdate struct {
	Member   id.Member
	PeerURLs []string
}

// ChangeKind says what a change of the configuration does to one member. The
// numbers are durable.
type ChangeKind uint8

// The kinds of changes.
const (
	AddMember     ChangeKind = 1
	AddLearner    ChangeKind = 2
	RemoveMember  ChangeKind = 3
	PromoteMember ChangeKind = 4
)

// MemberChange are the facts that go with a change of the configuration (rule
// 10): the context of its entry.
type MemberChange struct {
	Change   ChangeKind
	Member   id.Member
	PeerURLs []string // of one that is added
}

// EncodeChange returns the context of a configuration change.
func EncodeChange(c *MemberChange) []byte {
	dst := binary.AppendUvarint([]byte{byte(c.Change)}, uint64(c.Member))
	return appendStrings(dst, c.PeerURLs)
}

// DecodeChange reads what EncodeChange wrote. Errors: ErrMalformed; an
// *UnknownError for a kind of change that this program does not know.
func DecodeChange(data []byte) (*MemberChange, error) {
	r := reader{b: data}
	c := &MemberChange{Change: ChangeKind(r.byte())}
	c.Member = id.Member(r.uvarint())
	c.PeerURLs = r.strings()
	if r.err == "" && len(r.b) != 0 {
		r.fail("bytes after the end")
	}
	if r.err != "" {
		return nil, malformed("change of the configuration: " + r.err)
	}
	if c.Change < AddMember || c.Change > PromoteMember {
		return nil, &UnknownError{What: "change of the configuration", Number: uint64(c.Change)}
	}
	return c, nil
}

func (m *MemberPublish) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(m.Member))
	dst = appendString(dst, m.Name)
	dst = appendStrings(dst, m.PeerURLs)
	dst = appendStrings(dst, m.ClientURLs)
	if m.Version == (Version{}) {
		return dst
	}
	return append(dst, m.Version.Major, m.Version.Minor)
}

func (m *MemberPublish) decode(r *reader) {
	m.Member = id.Member(r.uvarint())
	m.Name = string(r.bytes())
	m.PeerURLs = r.strings()
	m.ClientURLs = r.strings()
	if len(r.b) == 0 {
		return // the first programs did not tell
	}
	if m.Version = (Version{r.byte(), r.byte()}); m.Version == (Version{}) {
		r.fail("no version")
	}
}

func (m *MemberGenesis) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(m.Members)))
	for i := range m.Members {
		dst = binary.AppendUvarint(dst, uint64(m.Members[i].Member))
		dst = appendStrings(dst, m.Members[i].PeerURLs)
	}
	return dst
}

// leastGenesis is the least that one first member is encoded in.
const leastGenesis = 2

func (m *MemberGenesis) decode(r *reader) {
	if n := r.count(leastGenesis); n > 0 {
		m.Members = make([]GenesisMember, n)
	}
	for i := range m.Members {
		m.Members[i] = GenesisMember{Member: id.Member(r.uvarint()), PeerURLs: r.strings()}
	}
}

func (m *MemberUpdate) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(m.Member))
	return appendStrings(dst, m.PeerURLs)
}

func (m *MemberUpdate) decode(r *reader) {
	m.Member = id.Member(r.uvarint())
	m.PeerURLs = r.strings()
}
