// Package etcddb is etcd's own file, written and read: the database that a member
// of etcd has on disk and that Maintenance.Snapshot sends, a copy-on-write B+tree
// of the bbolt library (docs/format/etcd-snapshot.md).
//
// It is written here in one pass from sorted rows, without the library: no page is
// written twice, nothing is mapped into memory, and what is held is one page for
// each level of the tree. It is read without the library too, since whoever opens
// a file that others made must survive every byte of it; each page is checked
// before it is believed. Tests have the library judge both.
package etcddb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// Layout of the pages. Numbers are little-endian.
const (
	// PageBytes is the size of the pages that are written; those that are read may
	// have another one.
	PageBytes = 4096

	pageHead     = 16 // id(8) flags(2) count(2) overflow(4)
	elementBytes = 16 // of a leaf: flags(4) pos(4) key(4) value(4); of a branch: pos(4) key(4) page(8)
	metaBytes    = 64 // behind the head of a page
	bucketBytes  = 16 // root(8) sequence(8)

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	elementBucket = 0x01

	magic   = 0xED0CDAED
	version = 2
)

// ErrDamaged is wrapped by the error of a file that is not what etcd writes.
var ErrDamaged = errors.New("damaged database file")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// meta is what one of the two first pages says of the whole.
type meta struct {
	pageBytes uint32
	root      uint64 // page of the bucket of buckets
	freelist  uint64
	pages     uint64 // so many pages are in use, with those that are free among them
	txn       uint64
}

func (m *meta) encode(page uint64) []byte {
	b := make([]byte, pageHead+metaBytes)
	binary.LittleEndian.PutUint64(b, page)
	binary.LittleEndian.PutUint16(b[8:], flagMeta)
	body := b[pageHead:]
	binary.LittleEndian.PutUint32(body, magic)
	binary.LittleEndian.PutUint32(body[4:], version)
	binary.LittleEndian.PutUint32(body[8:], m.pageBytes)
	binary.LittleEndian.PutUint64(body[16:], m.root)
	binary.LittleEndian.PutUint64(body[32:], m.freelist)
	binary.LittleEndian.PutUint64(body[40:], m.pages)
	binary.LittleEndian.PutUint64(body[48:], m.txn)
	binary.LittleEndian.PutUint64(body[56:], metaSum(body))
	return b
}

func metaSum(body []byte) uint64 {
	h := fnv.New64a()
	h.Write(body[:56])
	return h.Sum64()
}

// decodeMeta reads the body of a meta page; ok is false for one that is torn or no
// meta page at all.
func decodeMeta(page []byte) (m meta, ok bool) {
	if len(page) < pageHead+metaBytes || binary.LittleEndian.Uint16(page[8:]) != flagMeta {
		return m, false
	}
	body := page[pageHead:]
	m = meta{
		pageBytes: binary.LittleEndian.Uint32(body[8:]), root: binary.LittleEndian.Uint64(body[16:]),
		freelist: binary.LittleEndian.Uint64(body[32:]), pages: binary.LittleEndian.Uint64(body[40:]),
		txn: binary.LittleEndian.Uint64(body[48:]),
	}
	return m, binary.LittleEndian.Uint32(body) == magic && binary.LittleEndian.Uint32(body[4:]) == version &&
		binary.LittleEndian.Uint64(body[56:]) == metaSum(body)
}
