package memdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/syncmark"
)

// The durable part of a store is one file, store-N, with its mark beside it:
// eight bytes of magic, then a frame for each flush. A frame is
//
//	length(4) check(4) operations(length)
//
// little endian, check being the CRC-32C of the length and the operations. A
// file that has grown far beyond its content is replaced by store-N+1, written
// under a temporary name with its mark complete, and renamed when both are
// durable: where store-N stands, its mark is good or damaged, never half made.
const (
	fileMagic  = "kvmem\x00\x00\x01"
	frameHead  = 8
	namePrefix = "store-"
	tempSuffix = ".tmp"
	lockName   = "LOCK"
)

var (
	errFrame  = errors.New("a frame whose bytes do not add up")
	errHeader = errors.New("not the header of a store file")
)

// file is the open store file, at whose end frames are appended.
type file struct {
	f    env.File
	mark *syncmark.Mark
	// size and sum cover all frames written, synced or not.
	size int64
	sum  uint32
}

func (f *file) close() error { return errors.Join(f.f.Close(), f.mark.Close()) }

func (f *file) promise() syncmark.Promise { return syncmark.Promise{Length: f.size, Sum: f.sum} }

func (f *file) write(data []byte) error {
	// The file system may scribble on what it is given, so sum first.
	f.sum = crc32.Update(f.sum, syncmark.Table, data)
	if _, err := f.f.WriteAt(data, f.size); err != nil {
		return err
	}
	f.size += int64(len(data))
	return nil
}

func appendFrame(buf []byte, ops ...[]byte) []byte {
	start := len(buf)
	buf = append(buf, make([]byte, frameHead)...)
	for _, part := range ops {
		buf = append(buf, part...)
	}
	frame := buf[start:]
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-frameHead))
	binary.LittleEndian.PutUint32(frame[4:], frameCheck(frame))
	return buf
}

func frameCheck(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:4], syncmark.Table), syncmark.Table, frame[frameHead:])
}

// cutFrame takes the first frame off data; ok is false if there is no whole and
// good one.
func cutFrame(data []byte) (ops, rest []byte, ok bool) {
	if len(data) < frameHead {
		return nil, nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(data))
	if n > uint64(len(data)-frameHead) {
		return nil, nil, false
	}
	frame := data[:frameHead+n]
	if frameCheck(frame) != binary.LittleEndian.Uint32(data[4:]) {
		return nil, nil, false
	}
	return frame[frameHead:], data[len(frame):], true
}

// replay reads frames into the edit and returns how many bytes of data are good.
func (e *edit) replay(data []byte) (good int64, err error) {
	if len(data) < len(fileMagic) || string(data[:len(fileMagic)]) != fileMagic {
		return 0, errHeader
	}
	rest := data[len(fileMagic):]
	for {
		ops, next, ok := cutFrame(rest)
		if !ok {
			return int64(len(data) - len(rest)), errFrame
		}
		if err := e.apply(ops); err != nil {
			return int64(len(data) - len(rest)), err
		}
		if rest = next; len(rest) == 0 {
			return int64(len(data)), nil
		}
	}
}

// recoverFile opens store-number and replays it. Where nothing was damaged and
// yet bytes at the end had to be left out (they were never acknowledged), torn
// is true. What was read is durable afterwards (rule 4).
func recoverFile(fs env.FS, path string, e *edit) (f *file, torn bool, err error) {
	data, err := engine.ReadFile(fs, path)
	if err != nil {
		return nil, false, err
	}
	mark, err := syncmark.Open(fs, path)
	if err != nil {
		return nil, false, err
	}
	promise, err := mark.Load(path)
	if err != nil {
		return nil, false, errors.Join(err, mark.Close())
	}
	good, replayErr := e.replay(data)
	if good < promise.Length || !promise.Check(data) || errors.Is(replayErr, errOp) {
		cause := errors.Join(syncmark.ErrPromise, replayErr)
		return nil, false, errors.Join(&engine.CorruptionError{File: path, Offset: good, Err: cause}, mark.Close())
	}
	raw, err := fs.OpenReadWrite(path, env.Engine)
	if err != nil {
		return nil, false, errors.Join(err, mark.Close())
	}
	f = &file{f: raw, mark: mark, size: good, sum: crc32.Checksum(data[:good], syncmark.Table)}
	if err := f.settle(); err != nil {
		return nil, false, errors.Join(err, f.close())
	}
	return f, good < int64(len(data)), nil
}

// missing looks at marks without a file. One of a file that was being made for a
// new store promises an empty one; any other says that the store is gone.
func missing(fs env.FS, leftovers []string) error {
	for _, name := range leftovers {
		path, ok := strings.CutSuffix(name, syncmark.Suffix)
		if !ok {
			continue
		}
		mark, err := syncmark.Open(fs, path)
		if err != nil {
			return err
		}
		promise, err := mark.Load(path)
		if err == nil && promise.Length > int64(len(fileMagic)+frameHead) {
			return errors.Join(&engine.CorruptionError{File: path, Offset: 0, Err: syncmark.ErrPromise}, mark.Close())
		}
		if err := mark.Close(); err != nil {
			return err
		}
	}
	return nil
}

// settle makes everything written durable, and promises it.
func (f *file) settle() error {
	if err := f.f.Sync(); err != nil {
		return err
	}
	if err := f.mark.Write(f.promise()); err != nil {
		return err
	}
	return f.mark.Sync()
}

// newFile writes store-number holding the rows of root, durable on return.
func newFile(fs env.FS, dir string, number uint64, root *node) (*file, error) {
	path := fs.PathJoin(dir, fileName(number))
	temp := path + tempSuffix
	raw, err := fs.Create(temp, env.Engine)
	if err != nil {
		return nil, err
	}
	// Whatever an unfinished attempt left must not mix with this one's mark.
	if err := engine.RemoveIfThere(fs, path+syncmark.Suffix); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	mark, err := syncmark.Open(fs, path)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	f := &file{f: raw, mark: mark}
	if err := f.fill(fs, dir, root, temp, path); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *file) fill(fs env.FS, dir string, root *node, temp, path string) error {
	var ops []byte
	walk(root, func(key, value []byte) bool {
		ops = appendOp(ops, opSet, key, value)
		return true
	})
	data := appendFrame([]byte(fileMagic), ops)
	f.sum = crc32.Checksum(data, syncmark.Table)
	if _, err := f.f.Write(data); err != nil {
		return err
	}
	f.size = int64(len(data))
	if err := f.settle(); err != nil {
		return err
	}
	if err := engine.SyncDir(fs, dir); err != nil {
		return err
	}
	if err := fs.Rename(temp, path); err != nil {
		return err
	}
	if err := engine.SyncDir(fs, dir); err != nil {
		return err
	}
	// The handle from Create appends; frames are written at offsets.
	again, err := fs.OpenReadWrite(path, env.Engine)
	if err != nil {
		return err
	}
	old := f.f
	f.f = again
	return old.Close()
}

func fileName(number uint64) string { return fmt.Sprintf("%s%06d", namePrefix, number) }

// scan looks at what is in the directory: the number of the newest store file,
// 0 if there is none, and the leftovers to remove. Errors: engine.ErrForeign.
func scan(fs env.FS, dir string) (newest uint64, leftovers []string, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return 0, nil, err
	}
	type mine struct {
		name   string
		number uint64
		final  bool
	}
	var files []mine
	for _, name := range names {
		base := strings.TrimSuffix(strings.TrimSuffix(name, syncmark.Suffix), tempSuffix)
		digits, ok := strings.CutPrefix(base, namePrefix)
		number, err := strconv.ParseUint(digits, 10, 64)
		if name == lockName {
			continue
		}
		if !ok || err != nil || number == 0 {
			return 0, nil, fmt.Errorf("%w: %s", engine.ErrForeign, fs.PathJoin(dir, name))
		}
		files = append(files, mine{name, number, base == name})
		if base == name {
			newest = max(newest, number)
		}
	}
	for _, m := range files {
		if m.number != newest || strings.HasSuffix(m.name, tempSuffix) {
			leftovers = append(leftovers, fs.PathJoin(dir, m.name))
		}
	}
	return newest, leftovers, nil
}
