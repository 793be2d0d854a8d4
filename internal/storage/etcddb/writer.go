package etcddb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
)

const (
	// writeBytes are gathered before they are handed to the file system.
	writeBytes = 256 << 10
	// smoothBytes are handed to the disk at a time: what gathers in the system's memory
	// would go there all at once, and others' syncs wait behind it.
	smoothBytes = 512 << 10
)

// Writer writes one database file: buckets one after the other, the rows of each in
// the order of their keys. An error, the file system's, is final.
type Writer struct {
	fs   env.FS
	path string
	file env.File
	// bare is the same file: one that smooths its writes cannot be shrunk.
	bare env.File
	size int64 // once it is finished
	buf  []byte
	// next is the number of the page that is written next; the first two are the metas.
	next   uint64
	failed error

	bucket string
	levels []level // of the bucket in hand; 0 are its leaves
	last   []byte
	made   []madeBucket
}

type madeBucket struct {
	name string
	root uint64
}

// level is the page of one level that is being filled.
type level struct {
	sizes []elementSize
	data  []byte // keys, each with its value behind it
}

// elementSize is one element of a page. page is for branches, value for leaves.
type elementSize struct {
	key, value int
	flags      uint32
	page       uint64
}

// Create begins a file, replacing one of that name.
func Create(fs env.FS, path string) (*Writer, error) {
	bare, err := fs.Create(path, env.Other)
	if err != nil {
		return nil, err
	}
	file := vfs.NewSyncingFile(bare, vfs.SyncingFileOptions{BytesPerSync: smoothBytes, NoSyncOnClose: true})
	return &Writer{fs: fs, path: path, file: file, bare: bare, next: 2, buf: make([]byte, 2*PageBytes, writeBytes+2*PageBytes)}, nil
}

// Begin starts a bucket; no other may be open, and each name comes once.
func (w *Writer) Begin(bucket string) {
	invariant.Check(w.bucket == "" && bucket != "", "bucket %q inside %q", bucket, w.bucket)
	w.bucket, w.levels, w.last = bucket, append(w.levels[:0], level{}), nil
}

// Put adds a row to the bucket in hand. Keys are not empty and ascend.
func (w *Writer) Put(key, value []byte) error {
	if w.failed != nil {
		return w.failed
	}
	if len(key) == 0 || w.bucket == "" || w.last != nil && bytes.Compare(w.last, key) >= 0 {
		invariant.Fail("row %x of bucket %q is out of place", key, w.bucket)
	}
	w.last = append(w.last[:0], key...)
	w.add(0, elementSize{key: len(key), value: len(value)}, key, value)
	return w.failed
}

// End ends the bucket in hand.
func (w *Writer) End() error {
	w.made = append(w.made, madeBucket{w.bucket, w.endTree()})
	w.bucket = ""
	return w.failed
}

// add puts an element into the page of a level, which is written first if it is full.
func (w *Writer) add(at int, e elementSize, key, value []byte) {
	if at == len(w.levels) {
		w.levels = append(w.levels, level{})
	}
	l := &w.levels[at]
	if len(l.sizes) > 0 && l.bytes()+elementBytes+e.key+e.value > PageBytes {
		w.raise(at)
		l = &w.levels[at]
	}
	l.sizes = append(l.sizes, e)
	l.data = append(append(l.data, key...), value...)
}

func (l *level) bytes() int { return pageHead + len(l.sizes)*elementBytes + len(l.data) }

func (l *level) first() []byte {
	if len(l.sizes) == 0 {
		return nil
	}
	return l.data[:l.sizes[0].key]
}

// raise writes the page of a level and names it in the level above.
func (w *Writer) raise(at int) {
	first := bytes.Clone(w.levels[at].first())
	page := w.writePage(at)
	w.add(at+1, elementSize{key: len(first), page: page}, first, nil)
}

// endTree writes what is left of the tree in hand, and returns its root.
func (w *Writer) endTree() (root uint64) {
	for at := 0; ; at++ {
		if at == len(w.levels)-1 {
			return w.writePage(at)
		}
		w.raise(at)
	}
}

// writePage writes the page of a level, which is empty afterwards.
func (w *Writer) writePage(at int) (number uint64) {
	l := &w.levels[at]
	number = w.next
	pages := max(1, (l.bytes()+PageBytes-1)/PageBytes)
	w.next += uint64(pages)
	flags := uint16(flagLeaf)
	if at > 0 {
		flags = flagBranch
	}
	begin := len(w.buf)
	w.head(number, flags, len(l.sizes), pages-1)
	offset := len(l.sizes) * elementBytes // from the element to its key
	for _, e := range l.sizes {
		if at > 0 {
			w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(offset))
			w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(e.key))
			w.buf = binary.LittleEndian.AppendUint64(w.buf, e.page)
		} else {
			w.buf = binary.LittleEndian.AppendUint32(w.buf, e.flags)
			w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(offset))
			w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(e.key))
			w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(e.value))
		}
		offset += e.key + e.value - elementBytes
	}
	w.buf = append(w.buf, l.data...)
	w.pad(begin, pages)
	l.sizes, l.data = l.sizes[:0], l.data[:0]
	return number
}

func (w *Writer) head(number uint64, flags uint16, count, overflow int) {
	w.buf = binary.LittleEndian.AppendUint64(w.buf, number)
	w.buf = binary.LittleEndian.AppendUint16(w.buf, flags)
	w.buf = binary.LittleEndian.AppendUint16(w.buf, uint16(count))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(overflow))
}

// pad fills up what began at a place of the buffer to whole pages, and writes when
// enough has gathered.
func (w *Writer) pad(begin, pages int) {
	missing := begin + pages*PageBytes - len(w.buf)
	w.buf = append(w.buf, make([]byte, missing)...)
	if len(w.buf) >= writeBytes {
		w.flush()
	}
}

func (w *Writer) flush() {
	if w.failed == nil {
		_, w.failed = w.file.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

// Finish writes what names the buckets and hands everything to the file system; it
// does not sync. It returns the length of the file in bytes.
func (w *Writer) Finish() (size int64, err error) {
	invariant.Check(w.bucket == "", "bucket %q is open", w.bucket)
	slices.SortFunc(w.made, func(a, b madeBucket) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	w.levels = append(w.levels[:0], level{})
	for i, b := range w.made {
		invariant.Check(i == 0 || w.made[i-1].name != b.name, "two buckets %q", b.name)
		value := binary.LittleEndian.AppendUint64(nil, b.root)
		value = binary.LittleEndian.AppendUint64(value, 0)
		w.add(0, elementSize{key: len(b.name), value: len(value), flags: elementBucket}, []byte(b.name), value)
	}
	m := meta{pageBytes: PageBytes, root: w.endTree(), freelist: w.next}
	begin := len(w.buf)
	w.head(w.next, flagFreelist, 0, 0)
	w.pad(begin, 1)
	w.next++
	m.pages = w.next
	w.flush()
	for page := range uint64(2) {
		m.txn = page
		if w.failed == nil {
			_, w.failed = w.file.WriteAt(m.encode(page), int64(page)*PageBytes)
		}
	}
	if w.failed != nil {
		return 0, fmt.Errorf("writing %s: %w", w.path, w.failed)
	}
	w.size = int64(m.pages) * PageBytes
	return w.size, nil
}

// ReadAt reads what is written; after Finish that is the whole file.
func (w *Writer) ReadAt(p []byte, offset int64) (int, error) { return w.file.ReadAt(p, offset) }

// Shrink gives back so many bytes at the end of a finished file that is to be removed, or
// all; more is false if nothing is gained by another. Errors: the file system's.
func (w *Writer) Shrink(by int64) (more bool, err error) {
	cut, able := w.bare.(env.Shrinker)
	if !able || w.size == 0 {
		return false, nil
	}
	w.size = max(w.size-by, 0)
	return w.size > 0, cut.Shrink(w.size)
}

// Close closes the file, which stays.
func (w *Writer) Close() error { return w.file.Close() }

// Remove closes the file and removes it.
func (w *Writer) Remove() error { return errors.Join(w.file.Close(), w.fs.Remove(w.path)) }
