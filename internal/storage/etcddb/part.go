package etcddb

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// HeadBytes of a written file are written last, with what is counted. Behind them the
// versions stand in the order of their revisions: files of two moments of one store are
// equal there as far as the older one's versions reach, unless there was a compaction
// between them. So whoever has a part of a file may go on with a later one.
const HeadBytes = 2 * PageBytes

// Keys of the metadata with which the rest of a file is asked for
// (docs/format/etcd-snapshot.md). HaveKey is the request's: the Part that the caller has,
// or HaveNothing of one who would come back for the rest. LeftOutKey is the answer's:
// the Span of that part, which is not sent.
const (
	HaveKey     = "kvorum-snapshot-have"
	HaveNothing = "nothing"
	LeftOutKey  = "kvorum-snapshot-left-out"
)

// Part is what somebody has of a file: the bytes from HeadBytes to End, with their
// SHA-256. The zero Part is nothing.
type Part struct {
	End int64
	Sum [sha256.Size]byte
}

// ReadPart sums what is there up to an end, which is beyond HeadBytes. Errors: the reader's.
func ReadPart(r io.ReaderAt, end int64) (p Part, err error) {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(r, HeadBytes, end-HeadBytes))
	if err == nil && n < end-HeadBytes {
		err = io.ErrUnexpectedEOF
	}
	return Part{End: end, Sum: [sha256.Size]byte(h.Sum(nil))}, err
}

// Span tells where the part lies.
func (p Part) Span() string { return fmt.Sprintf("%d-%d", HeadBytes, p.End) }

func (p Part) String() string {
	if p.End == 0 {
		return HaveNothing
	}
	return fmt.Sprintf("%s %x", p.Span(), p.Sum)
}

// ParsePart reads what String writes; anything else is nothing.
func ParsePart(text string) (p Part) {
	span, sum, _ := strings.Cut(text, " ")
	end, err := strconv.ParseInt(strings.TrimPrefix(span, strconv.Itoa(HeadBytes)+"-"), 10, 64)
	raw, bad := hex.DecodeString(sum)
	if err != nil || bad != nil || len(raw) != len(p.Sum) || end <= HeadBytes {
		return Part{}
	}
	if p = (Part{End: end, Sum: [sha256.Size]byte(raw)}); p.String() != text {
		return Part{}
	}
	return p
}
