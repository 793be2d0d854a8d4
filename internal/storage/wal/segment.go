package wal

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/kvorum/kvorum/internal/env"
)

// Names of files: sixteen hex digits of the number, then what it is.
const (
	segmentSuffix = ".wal"
	spareSuffix   = ".spare"
	numberDigits  = 16
)

func fileName(number uint64, suffix string) string { return fmt.Sprintf("%016x%s", number, suffix) }

// parseName reads a name that fileName made; ok is false for any other.
func parseName(name, suffix string) (number uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != numberDigits || strings.ToLower(digits) != digits {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 16, 64)
	return number, err == nil && number > 0
}

// segment is one file of the log that is in use.
type segment struct {
	number uint64
	path   string
	file   env.File
	nonce  uint64
	// blocks is the size that the segment is meant to have, filled how much of it
	// the file already has on disk, in blocks; a write beyond filled grows the
	// file.
	blocks, filled uint32
	// readers counts those who read the file at the moment; it is neither removed
	// nor recycled meanwhile. Guarded by Log.mu.
	readers int
}

// readFull reads exactly len(p) bytes; what lies beyond the end of the file reads
// as zeros, as if it had been filled.
func readFull(f io.ReaderAt, p []byte, at int64) error {
	n, err := f.ReadAt(p, at)
	if n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
		clear(p[n:])
		return nil
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Reader reads the payload of a segment that is held from being recycled.
type Reader struct {
	log *Log
	seg *segment
}

// Reader holds a segment for reading; ok is false when it is gone. Release must
// be called. It may be called from any goroutine.
func (l *Log) Reader(number uint64) (r Reader, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seg := l.find(number)
	if seg == nil {
		return Reader{}, false
	}
	seg.readers++
	return Reader{l, seg}, true
}

// find returns the segment in use with a number. Their numbers have no gaps but
// after damage, so the guess is nearly always right.
func (l *Log) find(number uint64) *segment {
	if len(l.live) == 0 || number < l.live[0].number {
		return nil
	}
	for i := min(int(number-l.live[0].number), len(l.live)-1); i >= 0; i-- {
		if l.live[i].number == number {
			return l.live[i]
		}
	}
	return nil
}

// Release lets the segment be recycled.
func (r Reader) Release() {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.seg.readers--
}

var sectorBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Read fills dst with the payload that begins at offset, counted from the
// beginning of the segment as Owner.Placed and Owner.Replay count it. The bytes
// are as they are on disk: the caller checks the sums of the records in them.
func (r Reader) Read(dst []byte, offset uint32) error {
	first := int(offset) / blockRoom
	within := int(offset) % blockRoom
	blocks := blocksFor(within + len(dst))
	from, _ := locate(within)
	from -= from % sectorBytes
	last, _ := locate(within + len(dst) - 1)
	end := min(last+1, blocks*blockBytes)

	raw := sectorBuffers.Get().(*[]byte)
	defer sectorBuffers.Put(raw)
	if cap(*raw) < end {
		*raw = make([]byte, end)
	}
	buffer := (*raw)[:end]
	if err := readFull(r.seg.file, buffer[from:], int64(first)*blockBytes+int64(from)); err != nil {
		return fmt.Errorf("wal: read %s at offset %d: %w", r.seg.path, int64(first)*blockBytes+int64(from), err)
	}
	gather(dst, buffer, within)
	return nil
}

// Where says which file, and which offset in it, a byte of payload has: for
// reports of damage.
func (r Reader) Where(offset uint32) (file string, at int64) {
	return r.seg.path, fileOffset(offset)
}

func fileOffset(offset uint32) int64 {
	at, _ := locate(int(offset) % blockRoom)
	return int64(offset)/blockRoom*blockBytes + int64(at)
}
