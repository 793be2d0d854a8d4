package wal

import (
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
)

// Default sizes (rule 8).
const (
	defaultFirstBytes = 4 << 20
	defaultMaxBytes   = 32 << 20
	leastBytes        = 4 * blockBytes
)

// Open recovers the log in options.Dir or begins an empty one, handing what it
// finds to owner. A torn last frame is cut silently; damage does not fail Open but
// is told by Damage, and nothing on disk is then changed until the next frame is
// written. Whatever was read is on stable storage when Open returns (rule 4).
// Errors: those of the file system, ErrVersion.
func Open(options Options, owner Owner) (*Log, error) {
	if options.FirstSegmentBytes == 0 {
		options.FirstSegmentBytes = defaultFirstBytes
	}
	if options.MaxSegmentBytes == 0 {
		options.MaxSegmentBytes = defaultMaxBytes
	}
	options.FirstSegmentBytes = max(options.FirstSegmentBytes, leastBytes)
	options.MaxSegmentBytes = max(options.MaxSegmentBytes, options.FirstSegmentBytes)
	l := &Log{options: options, owner: owner, segmentBytes: options.FirstSegmentBytes, seq: 1, sealed: true}
	l.onSynced = l.synced
	l.measured.init()
	l.staged.reset()
	err := l.openDir()
	if err == nil {
		r := recovery{log: l, fs: options.FS}
		err = r.run()
	}
	if err == nil && l.number == 0 {
		err = l.roll(1)
	}
	if err != nil {
		l.abandon()
		return nil, err
	}
	l.lastFrame = options.Clock.Now()
	return l, nil
}

// openDir opens the directory, which is made if it is missing. The directory
// above is synced in any case: a run that was killed may have made this one and
// not have come so far.
func (l *Log) openDir() (err error) {
	fs, dir := l.options.FS, l.options.Dir
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	above, err := fs.OpenDir(fs.PathDir(dir))
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	err = above.Sync()
	_ = above.Close()
	if err != nil {
		return fmt.Errorf("wal: sync %s: %w", fs.PathDir(dir), err)
	}
	if l.dir, err = fs.OpenDir(dir); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// abandon closes what a failed Open has opened.
func (l *Log) abandon() {
	for _, s := range l.live {
		_ = s.file.Close()
	}
	if l.dir != nil {
		_ = l.dir.Close()
	}
}

// recovery is one reading of the log.
type recovery struct {
	log   *Log
	fs    env.FS
	files []*found
	// unused are paths that nothing needs any more.
	unused []string
	spares []spare
	// newest is the last file with a good header, or nil.
	newest *found
	// newestTail is what is behind its good frames. newestDamaged: that, or the
	// header of a file behind it, is damaged, and what it said of low is not known.
	newestTail    *judgement
	newestDamaged bool
	// expect is the sequence of the next frame; highest the highest one seen.
	expect, highest uint64
	lost            bool // damage was passed: what comes is handed over as lost
	restored        bool
	payload         []byte
}

func (r *recovery) run() error {
	if err := r.list(); err != nil {
		return err
	}
	r.expect = 1
	if err := r.findNewest(); err != nil {
		return err
	}
	r.forgetOld()
	if err := r.replay(); err != nil {
		return err
	}
	r.settle()
	return r.sync()
}

// list opens every segment and notes the spares.
func (r *recovery) list() error {
	l := r.log
	names, err := r.fs.List(l.options.Dir)
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	var numbers []uint64
	for _, name := range names {
		if number, ok := parseName(name, segmentSuffix); ok {
			numbers = append(numbers, number)
		}
		if number, ok := parseName(name, spareSuffix); ok {
			l.spares.next = max(l.spares.next, number)
			path := r.fs.PathJoin(l.options.Dir, name)
			info, err := r.fs.Stat(path)
			if err != nil {
				return fmt.Errorf("wal: %w", err)
			}
			r.spares = append(r.spares, spare{path: path, bytes: info.Size() / blockBytes * blockBytes})
		}
	}
	slices.Sort(numbers)
	slices.SortFunc(r.spares, func(a, b spare) int {
		if a.path < b.path {
			return -1
		}
		return 1
	})
	for _, number := range numbers {
		f, err := openFound(r.fs, l.options.Dir, number)
		if err != nil {
			return err
		}
		r.files = append(r.files, f)
		l.live = append(l.live, &f.segment)
	}
	return nil
}

// findNewest finds the last segment that was in use, the sequence that the log
// has reached, and the oldest segment that is still needed: the last good frame
// says so. A file behind it that never came into use is set aside.
func (r *recovery) findNewest() error {
	l := r.log
	for _, f := range r.files {
		l.number = max(l.number, f.number)
		if f.state == good {
			r.newest = f
			r.highest = max(r.highest, f.header.first-1)
		}
	}
	if f := r.newest; f != nil {
		l.low, l.voids = f.header.low, f.header.voids
		end, err := r.frames(f, f.headBlocks, f.header.first, func(_ uint32, payload []byte) error {
			low, err := decodeFrame(payload, nil)
			if err == nil {
				l.low = max(l.low, low)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if r.newestTail, err = r.judge(f, end); err != nil {
			return err
		}
		v, _, _ := r.newestTail.verdict()
		r.newestDamaged = v == corrupt
	}
	last := len(r.files) - 1
	r.newestDamaged = r.newestDamaged || last >= 0 && r.files[last].state == bad
	if last < 0 || r.files[last].state != unborn || r.newest != nil && r.newest.number+1 != r.files[last].number {
		return nil
	}
	used, err := r.holdsFrom(r.files[last], r.highest+1)
	if err != nil {
		return err
	}
	if used {
		r.files[last].state, r.newestDamaged = bad, true
		return nil
	}
	l.number--
	r.setAside(last, last+1)
	return nil
}

// holdsFrom says whether a file holds a whole block of a frame of sequence seq or
// later, of whatever life.
func (r *recovery) holdsFrom(f *found, seq uint64) (bool, error) {
	for number := uint32(0); number < f.limit(); number++ {
		block, err := f.blockAt(number, 1)
		if err != nil {
			return false, err
		}
		if h, whole := openBlock(block); whole && h.seq >= seq {
			return true, nil
		}
	}
	return false, nil
}

// forgetOld sets aside the segments that the log had given up before: some may
// be gone already, in any order.
func (r *recovery) forgetOld() {
	old := 0
	for old < len(r.files) && r.files[old].number < r.log.low {
		old++
	}
	r.setAside(0, old)
}

// setAside takes files [from, to) out of the log.
func (r *recovery) setAside(from, to int) {
	for _, f := range r.files[from:to] {
		_ = f.file.Close()
		r.unused = append(r.unused, f.path)
	}
	r.files = slices.Delete(r.files, from, to)
	r.log.live = slices.Delete(r.log.live, from, to)
}

// frames hands the payloads of the good frames of a file, from a block on, to
// visit, and returns the block behind the last. r.expect moves along.
func (r *recovery) frames(f *found, block uint32, seq uint64, visit func(block uint32, payload []byte) error) (end uint32, err error) {
	for r.expect = seq; block < f.blocks; r.expect++ {
		payload, count, ok, err := r.frame(f, block, r.expect)
		if err != nil || !ok {
			return block, err
		}
		if err := visit(block, payload); err != nil {
			return block, err
		}
		r.highest = max(r.highest, r.expect)
		block += count
	}
	return block, nil
}

// frame reads the frame at a block; ok is false when it is not there whole.
func (r *recovery) frame(f *found, block uint32, seq uint64) (payload []byte, count uint32, ok bool, err error) {
	first, err := f.blockAt(block, 1)
	if err != nil {
		return nil, 0, false, err
	}
	h, whole := openBlock(first)
	if !whole || h.nonce != f.nonce || h.seq != seq || h.number != 0 || !h.plausible() ||
		uint64(block)+uint64(h.count) > uint64(min(f.blocks, f.limit())) {
		return nil, 0, false, nil
	}
	blocks, err := f.blockAt(block, h.count)
	if err != nil {
		return nil, 0, false, err
	}
	if _, ok := checkFrame(blocks, f.nonce, seq); !ok {
		return nil, 0, false, nil
	}
	r.payload = slices.Grow(r.payload[:0], int(h.length))[:h.length]
	gather(r.payload, blocks, 0)
	return r.payload, h.count, true, nil
}

// settle decides what is kept of the files that nobody needs, and makes the
// state from which the log goes on.
func (r *recovery) settle() {
	l := r.log
	l.writtenLow, l.durableLow = l.low, l.low
	if l.cur == nil {
		// Sequences of frames that were cut off are never used again.
		l.seq = max(l.seq, r.highest+1)
		if r.newest != nil {
			l.segmentBytes = max(l.segmentBytes, int64(r.newest.blocks)*blockBytes)
		}
	} else {
		l.segmentBytes = max(l.segmentBytes, l.sizeAfter(l.cur.blocks))
	}
	l.segmentBytes = min(l.segmentBytes, l.options.MaxSegmentBytes)
	for _, sp := range r.spares {
		if len(l.spares.ready) < keptSpares && r.newest != nil && sp.bytes >= int64(r.newest.blocks)*blockBytes {
			l.spares.ready = append(l.spares.ready, sp)
		} else {
			r.unused = append(r.unused, sp.path)
		}
	}
	if defect.On(defect.CorruptTakenForTorn) {
		l.damage = nil
	}
}

// sync makes durable what was read (rule 4): after kill -9 the bytes are there to
// be read, but a power loss could still take them back, and with them a vote that
// this run repeats. Only then is removed what these bytes say is not needed.
func (r *recovery) sync() error {
	l := r.log
	if !defect.On(defect.RecoverWithoutSync) {
		for _, s := range l.live {
			if err := s.file.SyncData(); err != nil {
				return fmt.Errorf("wal: sync %s: %w", s.path, err)
			}
		}
	}
	if l.damage == nil {
		for _, path := range r.unused {
			if err := r.fs.Remove(path); err != nil {
				return fmt.Errorf("wal: %w", err)
			}
		}
	}
	if !defect.On(defect.RecoverWithoutSync) {
		if err := l.dir.Sync(); err != nil {
			return fmt.Errorf("wal: sync directory %s: %w", l.options.Dir, err)
		}
	}
	return nil
}
