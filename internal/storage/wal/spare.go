package wal

import (
	"sync"

	"github.com/kvorum/kvorum/internal/env"
)

// spare is a file that is ready to become a segment: all its blocks are on disk,
// so that writing it needs no new ones.
type spare struct {
	path  string
	bytes int64
}

// spares are the prepared files, and the one being prepared by a background
// task. Its mutex is held for one slice of that work, so that stop can wait.
type spares struct {
	mu      sync.Mutex
	ready   []spare
	filling bool
	stopped bool
	failed  bool   // preparing one failed: no more are made
	next    uint64 // number of the next spare's file
}

const (
	// keptSpares is how many spares a log keeps (rule 8; docs/decisions/0007).
	keptSpares = 1
)

func (s *spares) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// take removes the first spare with at least so many bytes.
func (s *spares) take(bytes int64) (taken spare, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, sp := range s.ready {
		if sp.bytes >= bytes {
			s.ready = append(s.ready[:i], s.ready[i+1:]...)
			return sp, true
		}
	}
	return spare{}, false
}

// begin opens the file of a new segment with room for at least so many blocks:
// a spare, or a new file that grows as it is written.
func (l *Log) begin(s *segment, atLeast uint32) (err error) {
	need := int64(atLeast) * blockBytes
	want := max(l.segmentBytes, need)
	if sp, ok := l.spares.take(need); ok {
		s.file, err = l.options.FS.ReuseForWrite(sp.path, s.path, env.WAL)
		s.blocks = uint32(sp.bytes / blockBytes)
		s.filled = s.blocks
	} else {
		s.file, err = l.options.FS.OpenReadWrite(s.path, env.WAL)
		s.blocks = uint32((want + blockBytes - 1) / blockBytes)
	}
	if err != nil {
		return err
	}
	l.segmentBytes = l.sizeAfter(s.blocks)
	return nil
}

// sizeAfter is how large the segment after one of so many blocks is (rule 8).
func (l *Log) sizeAfter(blocks uint32) int64 {
	return min(2*int64(blocks)*blockBytes, l.options.MaxSegmentBytes)
}

// drop ends one segment that nobody needs: it becomes a spare or is removed. It
// says whether there may be more. A failure only leaves a file behind, which the
// next recovery removes.
func (l *Log) drop() bool {
	l.mu.Lock()
	if len(l.live) < 2 || l.live[0].number >= l.durableLow || l.live[0].readers > 0 {
		l.mu.Unlock()
		return false
	}
	s := l.live[0]
	l.live = append(l.live[:0], l.live[1:]...)
	l.mu.Unlock()
	_ = s.file.Close()
	l.retire(s)
	return true
}

func (l *Log) retire(s *segment) {
	sp := l.spares.name(l)
	sp.bytes = int64(s.filled) * blockBytes
	l.spares.mu.Lock()
	defer l.spares.mu.Unlock()
	if len(l.spares.ready) < keptSpares && s.filled >= s.blocks && l.cur != nil && s.blocks >= l.cur.blocks {
		if l.options.FS.Rename(s.path, sp.path) == nil {
			l.spares.ready = append(l.spares.ready, sp)
			return
		}
	}
	_ = l.options.FS.Remove(s.path)
}

func (s *spares) name(l *Log) spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return spare{path: l.options.FS.PathJoin(l.options.Dir, fileName(s.next, spareSuffix))}
}

// wanted is whether there should be a spare: not while the present segment is
// less than half full, since one that is given up may still become one.
func (l *Log) wanted() bool { return l.cur != nil && l.end > l.cur.blocks/2 }

// prepare begins to fill a spare in the background if one is missing.
func (l *Log) prepare() {
	if !l.wanted() {
		return
	}
	l.spares.mu.Lock()
	missing := len(l.spares.ready) == 0 && !l.spares.filling && !l.spares.failed
	l.spares.filling = l.spares.filling || missing
	l.spares.mu.Unlock()
	if !missing {
		return
	}
	fill := &filler{spares: &l.spares, fs: l.options.FS, spare: l.spares.name(l)}
	fill.bytes = l.segmentBytes / blockBytes * blockBytes
	l.options.Tasks.Go("wal-spare", fill.step)
}

// filler fills one spare with zeros, a slice at a time, each synced so that the
// log's own syncs never wait for much.
type filler struct {
	spare
	spares *spares
	fs     env.FS
	file   env.File
	at     int64
}

func (f *filler) step() (done bool) {
	f.spares.mu.Lock()
	defer f.spares.mu.Unlock()
	if f.spares.stopped {
		f.abandon()
		return true
	}
	if err := f.slice(); err != nil {
		f.abandon()
		f.spares.failed, f.spares.filling = true, false
		return true
	}
	if f.at < f.bytes {
		return false
	}
	f.spares.filling = false
	if len(f.spares.ready) >= keptSpares { // segments were recycled meanwhile
		_ = f.fs.Remove(f.path)
		return true
	}
	f.spares.ready = append(f.spares.ready, f.spare)
	return true
}

// slice writes and syncs the next part, and closes the file behind the last.
func (f *filler) slice() (err error) {
	if f.file == nil {
		if f.file, err = f.fs.OpenReadWrite(f.path, env.WAL); err != nil {
			return err
		}
	}
	part := zeros[:min(int64(len(zeros)), f.bytes-f.at)]
	if _, err := f.file.WriteAt(part, f.at); err != nil {
		return err
	}
	if err := f.file.SyncData(); err != nil {
		return err
	}
	if f.at += int64(len(part)); f.at < f.bytes {
		return nil
	}
	file := f.file
	f.file = nil
	return file.Close()
}

// abandon removes what is there so far: no room or no disk for a spare is no
// reason to stop, the log will find out for itself.
func (f *filler) abandon() {
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
		_ = f.fs.Remove(f.path)
	}
}
