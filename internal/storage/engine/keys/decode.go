package keys

import (
	"encoding/binary"
	"fmt"

	"github.com/kvorum/kvorum/internal/id"
)

// headBytes is the group and the kind in front of every row.
const headBytes = 5

// Kind says what sort of row a key is.
type Kind byte

// Kinds of rows; Other is any key that is no row: a bound, or not ours.
const (
	Other   Kind = 0
	Data    Kind = kindData
	History Kind = kindHistory
	Meta    Kind = kindMeta
	// Lease is a lease, Attached a key attached to one.
	Lease    Kind = kindLease
	Attached Kind = kindAttached
)

// leaseBytes is the group, the kind and the lease in front of a row of one.
const leaseBytes = headBytes + 8

// KindOf tells what a key is a row of. Its decoder then never fails.
func KindOf(key []byte) Kind {
	if len(key) <= headBytes {
		return Other
	}
	last := key[len(key)-1]
	switch key[headBytes-1] {
	case kindData:
		if last == SuffixBytes && len(key) > headBytes+SuffixBytes && key[len(key)-SuffixBytes-1] == 0 {
			return Data
		}
	case kindHistory:
		if last == 0 && len(key) == headBytes+SuffixBytes {
			return History
		}
	case kindMeta:
		if last == 0 {
			return Meta
		}
	case kindLease:
		if last == 0 && len(key) == leaseBytes+1 {
			return Lease
		}
	case kindAttached:
		if last == 0 && len(key) > leaseBytes+1 {
			return Attached
		}
	}
	return Other
}

// GroupOf tells whose key or bound this is; ok is false for what is too short.
func GroupOf(key []byte) (group id.Group, ok bool) {
	if len(key) <= headBytes {
		return 0, false
	}
	return id.Group(binary.BigEndian.Uint32(key)), true
}

// DecodeVersion takes the key of a version apart; user aliases key. ok is false
// for everything that AppendVersion could not have made.
func DecodeVersion(key []byte) (group id.Group, user []byte, main id.Revision, sub uint32, ok bool) {
	if KindOf(key) != Data {
		return 0, nil, 0, 0, false
	}
	group = id.Group(binary.BigEndian.Uint32(key))
	suffix := key[len(key)-SuffixBytes:]
	user = key[headBytes : len(key)-SuffixBytes-1]
	main = id.Revision(^binary.BigEndian.Uint64(suffix))
	sub = ^binary.BigEndian.Uint32(suffix[8:])
	return group, user, main, sub, true
}

// DecodeUserKey takes the bound that AppendUserKey makes apart; user aliases
// key.
func DecodeUserKey(key []byte) (group id.Group, user []byte, ok bool) {
	if len(key) <= headBytes || key[headBytes-1] != kindData || key[len(key)-1] != 0 {
		return 0, nil, false
	}
	return id.Group(binary.BigEndian.Uint32(key)), key[headBytes : len(key)-1], true
}

// DecodeHistory takes the key of a history row apart. ok is false for
// everything that AppendHistory could not have made.
func DecodeHistory(key []byte) (group id.Group, main id.Revision, sub uint32, ok bool) {
	if KindOf(key) != History {
		return 0, 0, 0, false
	}
	group = id.Group(binary.BigEndian.Uint32(key))
	main = id.Revision(binary.BigEndian.Uint64(key[headBytes:]))
	sub = binary.BigEndian.Uint32(key[headBytes+8:])
	return group, main, sub, true
}

// DecodeMeta takes the key of a row about the group apart; name aliases key.
// ok is false for everything that AppendMeta could not have made.
func DecodeMeta(key []byte) (group id.Group, name []byte, ok bool) {
	if KindOf(key) != Meta {
		return 0, nil, false
	}
	return id.Group(binary.BigEndian.Uint32(key)), key[headBytes : len(key)-1], true
}

// DecodeLease takes the key of a lease's row apart. ok is false for everything that
// AppendLease could not have made.
func DecodeLease(key []byte) (group id.Group, lease id.Lease, ok bool) {
	if KindOf(key) != Lease {
		return 0, 0, false
	}
	return id.Group(binary.BigEndian.Uint32(key)), id.Lease(binary.BigEndian.Uint64(key[headBytes:])), true
}

// DecodeAttached takes the key of an attachment apart; user aliases key. ok is false
// for everything that AppendAttached could not have made of a user key.
func DecodeAttached(key []byte) (group id.Group, lease id.Lease, user []byte, ok bool) {
	if KindOf(key) != Attached {
		return 0, 0, nil, false
	}
	return id.Group(binary.BigEndian.Uint32(key)), id.Lease(binary.BigEndian.Uint64(key[headBytes:])), key[leaseBytes : len(key)-1], true
}

// Text prints a key for people.
type Text []byte

// String prints what the key is; bytes that are no key of ours come out as hex.
func (t Text) String() string {
	if group, user, main, sub, ok := DecodeVersion(t); ok {
		return fmt.Sprintf("%d/d/%q@%d.%d", group, user, main, sub)
	}
	if group, main, sub, ok := DecodeHistory(t); ok {
		return fmt.Sprintf("%d/r/%d.%d", group, main, sub)
	}
	if group, name, ok := DecodeMeta(t); ok {
		return fmt.Sprintf("%d/m/%s", group, name)
	}
	if group, lease, ok := DecodeLease(t); ok {
		return fmt.Sprintf("%d/l/%016x", group, uint64(lease))
	}
	if group, lease, user, ok := DecodeAttached(t); ok {
		return fmt.Sprintf("%d/k/%016x/%q", group, uint64(lease), user)
	}
	if group, user, ok := DecodeUserKey(t); ok {
		return fmt.Sprintf("%d/d/%q", group, user)
	}
	return fmt.Sprintf("%x", []byte(t))
}

// Format makes a Text printable with every verb.
func (t Text) Format(s fmt.State, _ rune) { fmt.Fprint(s, t.String()) }
