// Package keys is the only place where a key of the engine, or a bound given to
// it, is made or taken apart (rule 19).
//
// A key is a prefix and, for versions of user keys, a suffix:
//
//	d  group(4) 'd' userkey 0x00 | ^main(8) ^sub(4) 0x0d    a version of a user key
//	d  group(4) 'd' userkey 0x00 |                          a bound before its versions
//	r  group(4) 'r' main(8) sub(4) 0x00                     a row of the history
//	m  group(4) 'm' name 0x00                               a row of the group itself
//	l  group(4) 'l' lease(8) 0x00                           a lease
//	k  group(4) 'k' lease(8) userkey 0x00                   a key attached to a lease
//
// Numbers are big endian, ^ is the bitwise complement. The last byte of every
// key is the length of its suffix, that byte counted: 13 or 0. With it any key
// can be split without knowing its kind, and a prefix alone is a key as well.
//
// Order: prefixes in plain byte order first, then suffixes in plain byte order,
// the empty one first. So user keys sort as their bytes do, also when one is the
// beginning of another, and the versions of one user key stand next to each
// other, newest first. Plain order of the whole key would not do: the version
// bytes of "a" would run into the name of "a\x00b".
//
// The format is described with a worked example in docs/format/engine-keys.md.
// It can never change; a new one needs a new comparer name.
package keys

import (
	"encoding/binary"

	"github.com/kvorum/kvorum/internal/id"
)

// SuffixBytes is the length of a version suffix with its length byte.
const SuffixBytes = 13

// Kinds of rows.
const (
	kindData     = 'd'
	kindHistory  = 'r'
	kindMeta     = 'm'
	kindLease    = 'l'
	kindAttached = 'k'
)

// Bytes that no kind uses: below and above all rows of a group.
const (
	belowKinds = 0x00
	aboveKinds = 0xff
)

// LastSub is the greatest sub revision: a version bound with it comes before
// every version of its main revision.
const LastSub = 1<<32 - 1

// AppendVersion appends the key of one version of a user key. main is at least
// 0, sub counts the changes within one revision from 0.
func AppendVersion(buf []byte, group id.Group, user []byte, main id.Revision, sub uint32) []byte {
	buf = AppendUserKey(buf, group, user)
	buf = binary.BigEndian.AppendUint64(buf, ^uint64(main))
	buf = binary.BigEndian.AppendUint32(buf, ^sub)
	return append(buf, SuffixBytes)
}

// AppendAtOrBelow appends the bound to seek for the first, that is newest,
// version of a user key at revision main or below.
func AppendAtOrBelow(buf []byte, group id.Group, user []byte, main id.Revision) []byte {
	return AppendVersion(buf, group, user, main, LastSub)
}

// AppendUserKey appends the bound before all versions of a user key: the lower
// bound of a range that begins with the key, the upper bound of one that ends
// before it.
func AppendUserKey(buf []byte, group id.Group, user []byte) []byte {
	buf = appendKind(buf, group, kindData)
	buf = append(buf, user...)
	return append(buf, 0)
}

// AppendAfterUserKey appends the bound after all versions of a user key and
// before those of every greater one.
func AppendAfterUserKey(buf []byte, group id.Group, user []byte) []byte {
	buf = appendKind(buf, group, kindData)
	buf = append(buf, user...)
	return append(buf, 0, 0)
}

// AppendDataEnd appends the bound after all user keys of the group. The bound
// before them is AppendUserKey of the empty key.
func AppendDataEnd(buf []byte, group id.Group) []byte {
	return append(appendKind(buf, group, kindData+1), 0)
}

// AppendHistory appends the key of a history row. It serves as a bound as well:
// rows from revision A to before B lie in [History(A, 0), History(B, 0)).
func AppendHistory(buf []byte, group id.Group, main id.Revision, sub uint32) []byte {
	buf = appendKind(buf, group, kindHistory)
	buf = binary.BigEndian.AppendUint64(buf, uint64(main))
	buf = binary.BigEndian.AppendUint32(buf, sub)
	return append(buf, 0)
}

// AppendHistoryEnd appends the bound after all history rows of the group.
func AppendHistoryEnd(buf []byte, group id.Group) []byte {
	return append(appendKind(buf, group, kindHistory+1), 0)
}

// AppendMeta appends the key of a row about the group itself, such as its
// applied mark.
func AppendMeta(buf []byte, group id.Group, name string) []byte {
	buf = appendKind(buf, group, kindMeta)
	buf = append(buf, name...)
	return append(buf, 0)
}

// AppendLease appends the key of a lease's row. Leases lie in the order of their
// numbers without sign.
func AppendLease(buf []byte, group id.Group, lease id.Lease) []byte {
	buf = appendKind(buf, group, kindLease)
	buf = binary.BigEndian.AppendUint64(buf, uint64(lease))
	return append(buf, 0)
}

// AppendLeases appends the bound before all leases of the group, AppendLeasesEnd the
// one after them.
func AppendLeases(buf []byte, group id.Group) []byte {
	return append(appendKind(buf, group, kindLease), 0)
}

// AppendLeasesEnd appends the bound after all leases of the group.
func AppendLeasesEnd(buf []byte, group id.Group) []byte {
	return append(appendKind(buf, group, kindLease+1), 0)
}

// AppendAttached appends the key of the row that says that a user key is attached to
// a lease. With an empty user key it is the bound before all keys of the lease.
func AppendAttached(buf []byte, group id.Group, lease id.Lease, user []byte) []byte {
	buf = appendKind(buf, group, kindAttached)
	buf = binary.BigEndian.AppendUint64(buf, uint64(lease))
	buf = append(buf, user...)
	return append(buf, 0)
}

// AppendAttachedEnd appends the bound after all keys attached to a lease.
func AppendAttachedEnd(buf []byte, group id.Group, lease id.Lease) []byte {
	if lease == -1 { // the last one without sign
		return AppendAllAttachedEnd(buf, group)
	}
	return AppendAttached(buf, group, lease+1, nil)
}

// AppendAllAttached appends the bound before all attached keys of the group.
func AppendAllAttached(buf []byte, group id.Group) []byte {
	return append(appendKind(buf, group, kindAttached), 0)
}

// AppendAllAttachedEnd appends the bound after all attached keys of the group.
func AppendAllAttachedEnd(buf []byte, group id.Group) []byte {
	return append(appendKind(buf, group, kindAttached+1), 0)
}

// AppendGroupStart appends the bound before everything that a group has.
func AppendGroupStart(buf []byte, group id.Group) []byte {
	return append(appendKind(buf, group, belowKinds), 0)
}

// AppendGroupEnd appends the bound after everything that a group has.
func AppendGroupEnd(buf []byte, group id.Group) []byte {
	return append(appendKind(buf, group, aboveKinds), 0)
}

// AppendTableEnd appends the bound at which a table of the engine that begins with a
// row should end: the beginning or the end of its group's history.
func AppendTableEnd(buf, row []byte) []byte {
	group := id.Group(binary.BigEndian.Uint32(row))
	if row[headBytes-1] < kindHistory {
		return append(appendKind(buf, group, kindHistory), 0)
	}
	return AppendGroupEnd(buf, group)
}

func appendKind(buf []byte, group id.Group, kind byte) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(group))
	return append(buf, kind)
}
