package etcddb

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// DigestBytes is the length of the SHA-256 that follows a database in a backup. A
// database is a multiple of 512 bytes long, so that its length tells whether there is one.
const (
	DigestBytes = sha256.Size
	sectorBytes = 512
)

// ErrNoDigest: there is no digest behind the database. Its text, and that of a digest
// that differs, are etcd's: scripts look for them.
var ErrNoDigest = errors.New("snapshot missing hash but --skip-hash-check=false")

// HasDigest says whether a file of so many bytes ends in a digest.
func HasDigest(size int64) bool { return size%sectorBytes == DigestBytes }

// CheckDigest reads a whole backup and returns the length of the database in it.
// Errors: ErrNoDigest; ErrDamaged with both digests; the reader's.
func CheckDigest(r io.ReaderAt, size int64) (database int64, err error) {
	if !HasDigest(size) {
		return 0, ErrNoDigest
	}
	database = size - DigestBytes
	var want, got [DigestBytes]byte
	if _, err := r.ReadAt(want[:], database); err != nil {
		return 0, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, database)); err != nil {
		return 0, err
	}
	if h.Sum(got[:0]); got != want {
		return 0, fmt.Errorf("%w: expected sha256 %x, got %x", ErrDamaged, want, got)
	}
	return database, nil
}

// Status is what there is to say of a backup in a line.
type Status struct {
	// Hash is the CRC-32C over the names and rows of all buckets.
	Hash     uint32
	Revision int64
	// Rows counts those of all buckets, Bytes what is in use of the file.
	Rows    int
	Bytes   int64
	Version string
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Status reads everything. Errors: ErrDamaged, the reader's.
func (f *File) Status() (Status, error) {
	s := Status{Bytes: f.Bytes()}
	list, err := f.Buckets()
	if err != nil {
		return s, err
	}
	h := crc32.New(castagnoli)
	for _, b := range list {
		h.Write([]byte(b.name))
		err := b.Walk(func(key, value []byte) error {
			h.Write(key)
			h.Write(value)
			s.Rows++
			if b.name == bucketKeys {
				r, ok := ParseRevision(key)
				if !ok {
					return damaged("row %x of bucket %q", key, b.name)
				}
				s.Revision = r.Main
			}
			return nil
		})
		if err != nil {
			return s, err
		}
	}
	facts, err := f.ReadFacts()
	if err != nil {
		return s, err
	}
	s.Version, s.Hash = facts.StorageVersion, h.Sum32()
	return s, nil
}

// KVHash is the sum over the history up to a revision, as HashKV answers it.
type KVHash struct {
	Sum                 uint32
	Revision, Compacted int64
}

// ErrCompacted and ErrFuture refuse a revision that cannot be summed, in etcd's words.
var (
	ErrCompacted = errors.New("mvcc: required revision has been compacted")
	ErrFuture    = errors.New("mvcc: required revision is a future revision")
)

// HashKV sums every version up to a revision, 0 for the last, but for those at or below
// the compact revision that are superseded at the revision asked for. Of a file that was
// compacted it holds every key in memory.
// Errors: ErrCompacted, ErrFuture, ErrDamaged, the reader's.
func (f *File) HashKV(rev int64) (KVHash, error) {
	facts, err := f.ReadFacts()
	if err != nil {
		return KVHash{}, err
	}
	last, err := f.LastRevision()
	if err != nil {
		return KVHash{}, err
	}
	out := KVHash{Revision: rev, Compacted: facts.Compacted()}
	last = max(last, out.Compacted, 1)
	switch {
	case rev == 0:
		out.Revision = last
	case rev < out.Compacted:
		return out, ErrCompacted
	case rev > last:
		return out, ErrFuture
	}
	kept, err := f.newest(out)
	if err != nil {
		return out, err
	}
	sum := crc32.New(castagnoli)
	sum.Write([]byte(bucketKeys))
	var row []byte
	err = f.Versions(func(r Revision, pair []byte) error {
		if r.Main > out.Revision || r.Main <= out.Compacted && (r.Dead || !keeps(kept, r, pair)) {
			return nil
		}
		row = append(AppendRevision(row[:0], r), pair...)
		sum.Write(row)
		return nil
	})
	out.Sum = sum.Sum32()
	return out, err
}

// Compacted is the revision below which nothing can be read.
func (f *Facts) Compacted() int64 { return max(f.Scheduled, f.Finished) }

// newest finds the newest version of each key at or below a revision; nothing where
// there was no compaction.
func (f *File) newest(at KVHash) (map[string][16]byte, error) {
	newest := map[string][16]byte{}
	if at.Compacted < 0 {
		return newest, nil
	}
	err := f.Versions(func(r Revision, pair []byte) error {
		p, ok := ParsePair(pair)
		if !ok {
			return damaged("version %d.%d", r.Main, r.Sub)
		}
		if r.Main <= at.Revision {
			newest[string(p.Key)] = place(r)
		}
		return nil
	})
	return newest, err
}

func place(r Revision) (p [16]byte) {
	binary.BigEndian.PutUint64(p[:], uint64(r.Main))
	binary.BigEndian.PutUint64(p[8:], uint64(r.Sub))
	return p
}

func keeps(newest map[string][16]byte, r Revision, pair []byte) bool {
	p, _ := ParsePair(pair) // newest has read it
	return newest[string(p.Key)] == place(r)
}
