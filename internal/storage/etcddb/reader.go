package etcddb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// File is a database file that is read. Its methods may be called by one goroutine
// at a time.
type File struct {
	r    io.ReaderAt
	size int64
	meta meta
}

// Bounds of what is believed of a file.
const (
	leastPageBytes = 1 << 10
	mostPageBytes  = 64 << 10
	mostLevels     = 32
)

// Open looks at the beginning of a file of so many bytes: of the two metas the newer
// good one counts. Errors: ErrDamaged, the reader's.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: size}
	found := false
	for at := int64(0); at <= mostPageBytes; at = max(2*at, leastPageBytes) {
		page := make([]byte, pageHead+metaBytes)
		if at+int64(len(page)) > size {
			break
		}
		if _, err := r.ReadAt(page, at); err != nil {
			return nil, err
		}
		// The second meta lies behind a page of the size that it names.
		m, ok := decodeMeta(page)
		if ok && (at == 0 || at == int64(m.pageBytes)) && (!found || m.txn > f.meta.txn) {
			f.meta, found = m, true
		}
	}
	m := &f.meta
	switch {
	case !found:
		return nil, damaged("no good meta page in %d bytes", size)
	case m.pageBytes < leastPageBytes || m.pageBytes > mostPageBytes || m.pageBytes&(m.pageBytes-1) != 0:
		return nil, damaged("pages of %d bytes", m.pageBytes)
	case m.pages < 3 || m.pages > uint64(size)/uint64(m.pageBytes):
		return nil, damaged("%d pages of %d bytes in a file of %d", m.pages, m.pageBytes, size)
	}
	return f, nil
}

// Bytes is the length of what is in use, without free space at the end of the file.
func (f *File) Bytes() int64 { return int64(f.meta.pages) * int64(f.meta.pageBytes) }

// page is one page with what overflows it.
type page struct {
	number uint64
	bytes  []byte
	flags  uint16
	count  int
}

// read reads a page, anew into buf if that is large enough.
func (f *File) read(number uint64, buf []byte) (page, []byte, error) {
	if number < 2 || number >= f.meta.pages {
		return page{}, buf, damaged("page %d of %d", number, f.meta.pages)
	}
	one := int(f.meta.pageBytes)
	if cap(buf) < one {
		buf = make([]byte, one)
	}
	buf = buf[:one]
	offset := int64(number) * int64(one)
	if _, err := f.r.ReadAt(buf, offset); err != nil {
		return page{}, buf, fmt.Errorf("page %d: %w", number, err)
	}
	more := uint64(binary.LittleEndian.Uint32(buf[12:]))
	if more >= f.meta.pages-number {
		return page{}, buf, damaged("page %d overflows by %d", number, more)
	}
	if more > 0 {
		whole := one * int(more+1)
		if cap(buf) < whole {
			buf = append(make([]byte, 0, whole), buf...)
		}
		buf = buf[:whole]
		if _, err := f.r.ReadAt(buf[one:], offset+int64(one)); err != nil {
			return page{}, buf, fmt.Errorf("page %d: %w", number, err)
		}
	}
	p := page{number: number, bytes: buf, flags: binary.LittleEndian.Uint16(buf[8:]), count: int(binary.LittleEndian.Uint16(buf[10:]))}
	if id := binary.LittleEndian.Uint64(buf); id != number {
		return page{}, buf, damaged("page %d says that it is %d", number, id)
	}
	return p, buf, p.check()
}

// check looks at the head of a page of a tree.
func (p *page) check() error {
	if p.flags != flagBranch && p.flags != flagLeaf || p.flags == flagBranch && p.count == 0 ||
		pageHead+p.count*elementBytes > len(p.bytes) {
		return damaged("page %d of kind %#x with %d elements", p.number, p.flags, p.count)
	}
	return nil
}

// span returns size bytes at a distance from element i.
func (p *page) span(i int, pos, size uint64) ([]byte, error) {
	begin := uint64(pageHead+i*elementBytes) + pos
	if pos > uint64(len(p.bytes)) || size > uint64(len(p.bytes)) || begin+size > uint64(len(p.bytes)) {
		return nil, damaged("element %d of page %d", i, p.number)
	}
	return p.bytes[begin : begin+size : begin+size], nil
}

func (p *page) element(i int) []byte { return p.bytes[pageHead+i*elementBytes:][:elementBytes] }

// leaf returns element i of a leaf.
func (p *page) leaf(i int) (key, value []byte, bucket bool, err error) {
	e := p.element(i)
	flags, pos := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])
	keyBytes, valueBytes := uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
	both, err := p.span(i, uint64(pos), keyBytes+valueBytes)
	if err != nil {
		return nil, nil, false, err
	}
	if keyBytes == 0 || flags&^elementBucket != 0 {
		return nil, nil, false, damaged("element %d of page %d", i, p.number)
	}
	return both[:keyBytes:keyBytes], both[keyBytes:], flags == elementBucket, nil
}

// branch returns element i of a branch.
func (p *page) branch(i int) (key []byte, child uint64, err error) {
	e := p.element(i)
	key, err = p.span(i, uint64(binary.LittleEndian.Uint32(e)), uint64(binary.LittleEndian.Uint32(e[4:])))
	return key, binary.LittleEndian.Uint64(e[8:]), err
}

// Bucket is one bucket of a file.
type Bucket struct {
	f    *File
	name string
	root uint64
	// inline is the page of a small bucket, which lies in the value that names it.
	inline []byte
}

// Buckets lists the buckets by name. Errors: ErrDamaged, the reader's.
func (f *File) Buckets() (list []*Bucket, err error) {
	top := Bucket{f: f, name: "of buckets", root: f.meta.root}
	err = top.walk(func(key, value []byte, bucket bool) error {
		if !bucket || len(value) < bucketBytes {
			return damaged("%q is no bucket", key)
		}
		b := &Bucket{f: f, name: string(key), root: binary.LittleEndian.Uint64(value)}
		if b.root == 0 {
			b.inline = bytes.Clone(value[bucketBytes:])
		}
		list = append(list, b)
		return nil
	})
	return list, err
}

// Bucket finds a bucket; nil if there is none. Errors: as of Buckets.
func (f *File) Bucket(name string) (*Bucket, error) {
	list, err := f.Buckets()
	for _, b := range list {
		if b.name == name {
			return b, err
		}
	}
	return nil, err
}

// Name is the bucket's.
func (b *Bucket) Name() string { return b.name }

// Walk shows every row in the order of keys; both are valid until row returns. A nil
// bucket has none. Errors: ErrDamaged, the reader's, what row returns.
func (b *Bucket) Walk(row func(key, value []byte) error) error {
	if b == nil {
		return nil
	}
	return b.walk(func(key, value []byte, bucket bool) error {
		if bucket {
			return damaged("bucket %q inside %q", key, b.name)
		}
		return row(key, value)
	})
}

func (b *Bucket) walk(row func(key, value []byte, bucket bool) error) error {
	w := walk{f: b.f, row: row}
	if b.inline == nil {
		return w.page(b.root, 0)
	}
	p := page{bytes: b.inline}
	if len(p.bytes) < pageHead {
		return damaged("bucket %q is cut", b.name)
	}
	p.flags, p.count = binary.LittleEndian.Uint16(p.bytes[8:]), int(binary.LittleEndian.Uint16(p.bytes[10:]))
	if err := p.check(); err != nil || p.flags != flagLeaf {
		return damaged("bucket %q in its place", b.name)
	}
	return w.leaf(&p)
}

// walk goes through a tree. Since keys ascend and every page is met at most once, it
// ends whatever the pages say.
type walk struct {
	f     *File
	row   func(key, value []byte, bucket bool) error
	last  []byte
	met   uint64
	pages [mostLevels][]byte // a buffer for each level
}

func (w *walk) page(number uint64, depth int) error {
	if depth == mostLevels || w.met >= w.f.meta.pages {
		return damaged("a tree without an end at page %d", number)
	}
	w.met++
	p, buf, err := w.f.read(number, w.pages[depth])
	w.pages[depth] = buf
	if err != nil {
		return err
	}
	if p.flags == flagLeaf {
		return w.leaf(&p)
	}
	for i := range p.count {
		_, child, err := p.branch(i)
		if err != nil {
			return err
		}
		if err := w.page(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) leaf(p *page) error {
	for i := range p.count {
		key, value, bucket, err := p.leaf(i)
		if err != nil {
			return err
		}
		if w.last != nil && bytes.Compare(w.last, key) >= 0 {
			return damaged("element %d of page %d is out of order", i, p.number)
		}
		w.last = append(w.last[:0], key...)
		if err := w.row(key, value, bucket); err != nil {
			return err
		}
	}
	return nil
}

// Last returns the last row; nil if there is none. Errors: as of Walk.
func (b *Bucket) Last() (key, value []byte, err error) {
	if b == nil {
		return nil, nil, nil
	}
	if b.inline != nil {
		err = b.Walk(func(k, v []byte) error {
			key, value = bytes.Clone(k), bytes.Clone(v)
			return nil
		})
		return key, value, err
	}
	number := b.root
	for range mostLevels {
		p, _, err := b.f.read(number, nil)
		switch {
		case err != nil:
			return nil, nil, err
		case p.count == 0:
			return nil, nil, nil
		case p.flags == flagLeaf:
			key, value, _, err = p.leaf(p.count - 1)
			return key, value, err
		}
		if _, number, err = p.branch(p.count - 1); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, damaged("a tree without an end")
}
