// Package extsort sorts rows of any number with little memory: runs that fit are
// sorted and written to files, and the files are merged. It lies below whoever turns
// a store round from one order into another: a backup is in the order of revisions,
// the engine in that of keys.
package extsort

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
)

const (
	// runBytes is how much is sorted in memory at a time.
	runBytes = 24 << 20
	// fanIn is how many runs are merged at once, with a buffer each: 4 MB together.
	fanIn       = 64
	bufferBytes = 64 << 10

	// smoothBytes are handed to the disk at a time: what gathers in the system's memory
	// would go there all at once, and others' syncs wait behind it.
	smoothBytes = 512 << 10

	headBytes = 8 // of a row: the lengths of key and value
)

// Sorter takes rows in any order and gives them back in order. Files of it begin
// with its path and end with its Close. It belongs to one goroutine at a time. An
// error, the file system's, is final.
type Sorter struct {
	fs      env.FS
	path    string
	compare func(a, b []byte) int
	// runBytes and fanIn are the bounds of those names.
	runBytes, fanIn int

	rows  []byte // lengths, key and value of each
	at    []uint32
	runs  []*run
	named int
}

// New makes a sorter whose files have names that begin with path, by an order of the keys.
func New(fs env.FS, path string, compare func(a, b []byte) int) *Sorter {
	return within(fs, path, compare, runBytes, fanIn)
}

func within(fs env.FS, path string, compare func(a, b []byte) int, runBytes, fanIn int) *Sorter {
	return &Sorter{fs: fs, path: path, compare: compare, runBytes: runBytes, fanIn: fanIn}
}

// Add takes a row; equal keys are the caller's mistake.
func (s *Sorter) Add(key, value []byte) error {
	if len(s.rows)+headBytes+len(key)+len(value) > s.runBytes && len(s.at) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	if s.rows == nil {
		s.rows = make([]byte, 0, 64<<10)
	}
	s.at = append(s.at, uint32(len(s.rows)))
	s.rows = binary.LittleEndian.AppendUint32(s.rows, uint32(len(key)))
	s.rows = binary.LittleEndian.AppendUint32(s.rows, uint32(len(value)))
	s.rows = append(append(s.rows, key...), value...)
	return nil
}

func rowAt(rows []byte, at uint32) (key, value []byte) {
	keyBytes, valueBytes := binary.LittleEndian.Uint32(rows[at:]), binary.LittleEndian.Uint32(rows[at+4:])
	row := rows[at+headBytes:][:keyBytes+valueBytes]
	return row[:keyBytes:keyBytes], row[keyBytes:]
}

func (s *Sorter) sort() {
	slices.SortFunc(s.at, func(a, b uint32) int {
		left, _ := rowAt(s.rows, a)
		right, _ := rowAt(s.rows, b)
		return s.compare(left, right)
	})
}

// spill writes what is in memory as a run, and merges runs that have become many.
func (s *Sorter) spill() error {
	s.sort()
	next := 0
	err := s.write(func() (key, value []byte, ok bool, err error) {
		if next == len(s.at) {
			return nil, nil, false, nil
		}
		key, value = rowAt(s.rows, s.at[next])
		next++
		return key, value, true, nil
	})
	s.rows, s.at = s.rows[:0], s.at[:0]
	for err == nil && s.full() {
		err = s.gather()
	}
	return err
}

// full says whether the last runs are as many of one level as are merged at once.
func (s *Sorter) full() bool {
	n := len(s.runs)
	return n >= s.fanIn && s.runs[n-s.fanIn].level == s.runs[n-1].level
}

// gather makes one run of the next level out of the last ones.
func (s *Sorter) gather() error {
	old := slices.Clone(s.runs[len(s.runs)-s.fanIn:])
	merge, err := s.merge(old)
	if err != nil {
		return err
	}
	if err := s.write(merge.row); err != nil {
		return err
	}
	gathered := s.runs[len(s.runs)-1]
	gathered.level = old[0].level + 1
	s.runs = append(s.runs[:len(s.runs)-s.fanIn-1], gathered)
	for _, r := range old {
		err = errors.Join(err, r.remove(s.fs))
	}
	return err
}

// write makes a run of the rows that next gives.
func (s *Sorter) write(next func() (key, value []byte, ok bool, err error)) error {
	s.named++
	r := &run{path: fmt.Sprintf("%s.%d", s.path, s.named)}
	file, err := s.fs.Create(r.path, env.Other)
	if err != nil {
		return err
	}
	file = vfs.NewSyncingFile(file, vfs.SyncingFileOptions{BytesPerSync: smoothBytes, NoSyncOnClose: true})
	r.file = file
	s.runs = append(s.runs, r)
	buf := make([]byte, 0, 2*bufferBytes)
	flush := func() error {
		r.sum = crc32.Update(r.sum, castagnoli, buf)
		r.bytes += int64(len(buf))
		_, err := file.Write(buf)
		buf = buf[:0]
		return err
	}
	for {
		key, value, ok, err := next()
		if err != nil {
			return err
		}
		if !ok {
			return flush()
		}
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(key)))
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(value)))
		buf = append(append(buf, key...), value...)
		if len(buf) >= bufferBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// Sort ends the adding and returns the rows in order.
func (s *Sorter) Sort() (*Merge, error) {
	if len(s.runs) == 0 {
		s.sort()
		return &Merge{sorter: s, alone: true}, nil
	}
	if len(s.at) > 0 {
		if err := s.spill(); err != nil {
			return nil, err
		}
	}
	s.rows, s.at = nil, nil
	return s.merge(s.runs)
}

// Drop removes one of the files, once all rows were given; more is false after the last.
// Errors: the file system's.
func (s *Sorter) Drop() (more bool, err error) {
	if last := len(s.runs) - 1; last >= 0 {
		err = s.runs[last].remove(s.fs)
		s.runs = s.runs[:last]
	}
	return len(s.runs) > 0, err
}

// Close removes the files.
func (s *Sorter) Close() (err error) {
	for _, r := range s.runs {
		err = errors.Join(err, r.remove(s.fs))
	}
	s.runs, s.rows, s.at = nil, nil, nil
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged: what was written a moment ago is not what is read.
var errDamaged = errors.New("extsort: damaged run")

// run is a sorted file.
type run struct {
	path  string
	file  env.File
	bytes int64
	sum   uint32
	// level counts the merges that its rows went through.
	level int

	read       int64
	seen       uint32 // sum of what was read
	room       []byte
	buf        []byte // from the row in hand on, in room
	key, value []byte
	row        int // bytes of the row in hand
}

func (r *run) remove(fs env.FS) error { return errors.Join(r.file.Close(), fs.Remove(r.path)) }

// next moves to the next row; false after the last.
func (r *run) next() (bool, error) {
	r.buf = r.buf[r.row:]
	r.row = 0
	if len(r.buf) == 0 && r.read == r.bytes {
		if r.seen != r.sum {
			return false, errDamaged
		}
		return false, nil
	}
	if err := r.fill(headBytes); err != nil {
		return false, err
	}
	keyBytes, valueBytes := int64(binary.LittleEndian.Uint32(r.buf)), int64(binary.LittleEndian.Uint32(r.buf[4:]))
	if keyBytes+valueBytes > r.bytes {
		return false, errDamaged
	}
	r.row = headBytes + int(keyBytes+valueBytes)
	if err := r.fill(r.row); err != nil {
		return false, err
	}
	r.key, r.value = r.buf[headBytes:headBytes+keyBytes], r.buf[headBytes+keyBytes:r.row]
	return true, nil
}

// fill has at least so many bytes in the buffer.
func (r *run) fill(least int) error {
	if len(r.buf) >= least {
		return nil
	}
	missing := int(min(max(int64(least-len(r.buf)), bufferBytes), r.bytes-r.read))
	held := len(r.buf)
	if cap(r.room) < held+missing {
		r.room = make([]byte, held+missing)
	}
	buf := r.room[:held+missing]
	copy(buf, r.buf)
	more := buf[held:]
	if n, err := r.file.ReadAt(more, r.read); err != nil && !(errors.Is(err, io.EOF) && n == len(more)) {
		return err
	}
	r.read += int64(missing)
	r.seen = crc32.Update(r.seen, castagnoli, more)
	r.buf = buf
	if len(r.buf) < least {
		return errDamaged
	}
	return nil
}

// Merge gives sorted rows. Of rows that fit into memory it has no runs.
type Merge struct {
	sorter     *Sorter
	alone      bool
	at         int
	heap       []*run // by key, the least first
	key, value []byte
	moved      bool // the first run of the heap is to move on
}

func (s *Sorter) merge(runs []*run) (*Merge, error) {
	m := &Merge{sorter: s}
	for _, r := range runs {
		more, err := r.next()
		if err != nil {
			return nil, err
		}
		if more {
			m.heap = append(m.heap, r)
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.sink(i)
	}
	return m, nil
}

func (m *Merge) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(m.heap) {
			return
		}
		if child+1 < len(m.heap) && m.sorter.compare(m.heap[child+1].key, m.heap[child].key) < 0 {
			child++
		}
		if m.sorter.compare(m.heap[i].key, m.heap[child].key) <= 0 {
			return
		}
		m.heap[i], m.heap[child] = m.heap[child], m.heap[i]
		i = child
	}
}

// Next moves to the next row; false after the last one.
func (m *Merge) Next() (ok bool, err error) {
	m.key, m.value, ok, err = m.row()
	return ok, err
}

// Key and Value are those of the row in hand, valid until the next move.
func (m *Merge) Key() []byte { return m.key }

// Value is the row's.
func (m *Merge) Value() []byte { return m.value }

func (m *Merge) row() (key, value []byte, ok bool, err error) {
	if m.alone {
		s := m.sorter
		if m.at == len(s.at) {
			return nil, nil, false, nil
		}
		key, value = rowAt(s.rows, s.at[m.at])
		m.at++
		return key, value, true, nil
	}
	if m.moved {
		m.moved = false
		more, err := m.heap[0].next()
		if err != nil {
			return nil, nil, false, err
		}
		if !more {
			last := len(m.heap) - 1
			m.heap[0] = m.heap[last]
			m.heap = m.heap[:last]
		}
		m.sink(0)
	}
	if len(m.heap) == 0 {
		return nil, nil, false, nil
	}
	m.moved = true
	invariant.Check(m.heap[0].row > 0, "a run without a row in the heap")
	return m.heap[0].key, m.heap[0].value, true, nil
}
