package wal

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/measure"
)

// Owner gives the records of a Log their meaning. Its methods are called from
// within those of the Log.
type Owner interface {
	// Summarize appends the state that all frames placed so far have led to:
	// enough to begin with if every segment up to now is gone (rule 1).
	Summarize(dst []byte) []byte
	// Placed says where the payload of the frame just written begins: what Append
	// returned is counted from there. Its sync has not begun.
	Placed(segment uint64, base uint32)
	// Restore hands a summary back during Open. The first call begins the state.
	// Later ones come only when lost is set: part of the log was damaged, and the
	// summary tells what the state was after it.
	Restore(summary []byte, lost bool) error
	// Replay hands a record back during Open, in the order of writing; offset is
	// counted from the beginning of the segment. Lost records come after damage:
	// what they build on is not there. r.Data is only lent.
	Replay(segment uint64, offset uint32, r Record, lost bool) error
}

// Options say where a log lives and how it grows. All but the sizes must be set.
type Options struct {
	FS    env.FS
	Dir   string
	Rand  env.Rand
	Tasks env.Tasks
	Clock env.Clock
	// FirstSegmentBytes is the size of the first segment (default 4 MB); each is
	// twice as large as the one that it follows, up to MaxSegmentBytes (default
	// 32 MB: docs/decisions/0007) (rule 8).
	FirstSegmentBytes, MaxSegmentBytes int64
}

// Damage says what was found damaged and where.
type Damage struct {
	File   string
	Offset int64
	Reason string
}

// Error makes a Damage printable.
func (d *Damage) Error() string {
	return "wal: " + d.Reason + " in " + d.File + " at offset " + strconv.FormatInt(d.Offset, 10)
}

// sealAfter is how long the log may be idle with a frame that could be taken for
// a torn one (rule 2).
const sealAfter = 100 * time.Millisecond

// growBlocks is how many blocks a file that was not prepared grows by at a time.
const growBlocks = 64

// Log is the open log. Its methods are called one at a time, but for Reader and
// what it returns, which any goroutine may use.
type Log struct {
	options Options
	owner   Owner
	dir     env.File
	damage  *Damage

	staged frame
	// cur is the segment being written; nil until the first frame when a new one
	// must begin. end is the next free block, seq the sequence of the next frame,
	// follows that of the last good one.
	cur          *segment
	end          uint32
	seq, follows uint64
	voids        []void
	number       uint64 // of the newest segment
	segmentBytes int64  // of the next segment
	// low is the oldest segment that the owner needs, durableLow what a synced
	// frame or header says of it: segments below may be dropped.
	low, writtenLow, durableLow uint64

	// syncing: a write was made and its sync is not done. done is who waits for
	// it, next who waits to write; the latter only behind a seal.
	syncing    bool
	done, next func(error)
	onSynced   func(error)
	sealed     bool
	lastFrame  env.Instant
	failed     error
	closed     bool

	header, summary []byte // kept buffers

	measured Measured

	spares spares

	// mu guards live and the readers of its segments: everything else belongs to
	// the caller.
	mu   sync.Mutex
	live []*segment // ascending; the last is cur, if there is one
}

// Measured is what a Log counts, from its Open on. Any goroutine may read it.
type Measured struct {
	// Writes and Syncs are the durations of each frame's write and of its sync.
	Writes, Syncs *measure.Histogram
	// Bytes were written in frames.
	Bytes atomic.Uint64
	// SlowestSync is that of the last second or two.
	SlowestSync measure.Peak
}

func (m *Measured) init() {
	m.Writes, m.Syncs = measure.NewDurations(time.Millisecond, 14), measure.NewDurations(time.Millisecond, 14)
}

// Measured is what the log has counted so far; it goes on counting.
func (l *Log) Measured() *Measured { return &l.measured }

// Damage is what Open found damaged, or nil.
func (l *Log) Damage() *Damage { return l.damage }

// Append stages a record for the next frame and returns where in the frame's
// payload it will begin.
func (l *Log) Append(r Record) (offset uint32) { return uint32(l.staged.append(&r)) }

// Staged says whether records wait for StartSync, and how many bytes they take.
func (l *Log) Staged() int { return l.staged.length - frameHeadBytes }

// StartSync writes everything staged as one frame and begins its sync. done is
// called exactly once, with nil when all of it is durable. At most one StartSync
// is under way, and until it is done nothing but its readers may call the log: done
// may come from any goroutine. idle is env.Syncer's. An error is final: every later
// one returns it, too.
func (l *Log) StartSync(idle bool, done func(error)) {
	invariant.Check(l.next == nil && (!l.syncing || l.done == nil), "a sync of the log is under way")
	switch {
	case l.failed != nil:
		done(l.failed)
	case l.syncing: // a seal: only the last frame may ever be torn
		l.next = done
	default:
		l.write(idle, done)
	}
}

// write puts the staged frame on disk and begins its sync.
func (l *Log) write(idle bool, done func(error)) {
	begun := l.options.Clock.Now()
	if err := l.put(); err != nil {
		l.failed = err
		if done != nil {
			done(err)
		}
		return
	}
	l.measured.Writes.Took(l.lastFrame.Sub(begun))
	l.syncing, l.done = true, done
	env.StartSync(l.cur.file, idle, l.onSynced)
}

// synced is what every sync of the log ends in.
func (l *Log) synced(err error) {
	now := l.options.Clock.Now()
	l.measured.Syncs.Took(now.Sub(l.lastFrame))
	l.measured.SlowestSync.Note(int64(now), int64(now.Sub(l.lastFrame)))
	done, next := l.done, l.next
	l.syncing, l.done, l.next = false, nil, nil
	if err != nil {
		l.failed = fmt.Errorf("wal: sync %s: %w", l.cur.path, err)
	} else {
		l.durableLow = l.writtenLow
	}
	if done != nil {
		done(l.failed)
	}
	if next != nil {
		l.StartSync(false, next)
	}
}

// put writes the staged frame and empties it.
func (l *Log) put() error {
	l.staged.setLow(l.low)
	count := uint32(len(l.staged.blocks) / blockBytes)
	if l.cur == nil || uint64(l.end)+uint64(count) > uint64(l.cur.blocks) {
		if err := l.roll(count); err != nil {
			return err
		}
		l.staged.setLow(l.low)
	}
	blocks := l.staged.finish(l.cur.nonce, l.seq)
	if _, err := l.cur.file.WriteAt(blocks, int64(l.end)*blockBytes); err != nil {
		return fmt.Errorf("wal: write %s at offset %d: %w", l.cur.path, int64(l.end)*blockBytes, err)
	}
	if err := l.cur.fill(l.end + count); err != nil {
		return err
	}
	l.measured.Bytes.Add(uint64(len(blocks)))
	l.sealed = l.staged.empty()
	l.writtenLow = l.low // Placed may raise it, but that is for the next frame to say
	l.owner.Placed(l.cur.number, l.end*blockRoom)
	l.end += count
	l.follows, l.seq = l.seq, l.seq+1
	l.lastFrame = l.options.Clock.Now()
	l.staged.reset()
	return nil
}

var zeros [growBlocks * blockBytes]byte

// fill keeps the file ahead of its frames, of which the last ends at block end:
// one that was not prepared grows by many blocks at a time, so that few syncs
// have to record a new size.
func (s *segment) fill(end uint32) error {
	if end <= s.filled {
		return nil
	}
	s.filled = end
	return s.extend()
}

// extend writes zeros behind what is filled.
func (s *segment) extend() error {
	more := min(growBlocks, s.blocks-s.filled)
	if _, err := s.file.WriteAt(zeros[:int(more)*blockBytes], int64(s.filled)*blockBytes); err != nil {
		return fmt.Errorf("wal: grow %s at block %d: %w", s.path, s.filled, err)
	}
	s.filled += more
	return nil
}

// prepare fills the whole file.
func (s *segment) prepare() (err error) {
	for err == nil && s.filled < s.blocks {
		err = s.extend()
	}
	return err
}

// roll begins a new segment with room for a frame of so many blocks (rule 1).
func (l *Log) roll(count uint32) error {
	l.summary = l.owner.Summarize(l.summary[:0])
	h := header{
		number: l.number + 1, follows: l.follows, first: l.seq, low: l.low,
		voids: l.liveVoids(l.number + 1), summary: l.summary,
	}
	if len(l.live) == 0 {
		h.low = h.number
	}
	size := len(h.append(l.header[:0]))
	headBlocks := uint32(blocksFor(size))
	next := &segment{number: h.number, path: l.options.FS.PathJoin(l.options.Dir, fileName(h.number, segmentSuffix))}
	if err := l.begin(next, headBlocks+count); err != nil {
		return fmt.Errorf("wal: begin %s: %w", next.path, err)
	}
	h.blocks = next.blocks
	if h.number == 1 { // made at the first start, when nobody waits yet
		if err := next.prepare(); err != nil {
			return err
		}
	}
	l.header = h.append(l.header[:0])
	for next.nonce == 0 || tagOf(next.nonce) == 0 {
		next.nonce = l.options.Rand.Uint64()
	}
	if err := writeHeader(next, l.header, headBlocks); err != nil {
		return err
	}
	if !defect.On(defect.NoDirectorySync) {
		if err := l.dir.Sync(); err != nil {
			return fmt.Errorf("wal: sync directory %s: %w", l.options.Dir, err)
		}
	}
	l.mu.Lock()
	l.live = append(l.live, next)
	l.mu.Unlock()
	l.cur, l.number, l.end, l.voids = next, next.number, headBlocks, h.voids
	l.low, l.writtenLow, l.durableLow = h.low, h.low, h.low
	return nil
}

// writeHeader writes and syncs the header of a segment.
func writeHeader(s *segment, payload []byte, count uint32) error {
	blocks := make([]byte, int(count)*blockBytes)
	scatter(blocks, 0, payload)
	for number := range count {
		h := head{nonce: s.nonce, number: number, count: count, length: uint32(len(payload))}
		h.finish(blocks[int(number)*blockBytes : int(number+1)*blockBytes])
	}
	if _, err := s.file.WriteAt(blocks, 0); err != nil {
		return fmt.Errorf("wal: write header of %s: %w", s.path, err)
	}
	if err := s.fill(count); err != nil {
		return err
	}
	if err := s.file.SyncData(); err != nil {
		return fmt.Errorf("wal: sync header of %s: %w", s.path, err)
	}
	return nil
}

// liveVoids are those that still matter, the open one ending at segment to.
func (l *Log) liveVoids(to uint64) []void {
	var still []void
	for _, v := range l.voids {
		if v.to == 0 {
			v.to = to
		}
		if v.from >= l.low {
			still = append(still, v)
		}
	}
	return still
}

// Release says that the owner needs no segment below low; it never goes down.
// They are dropped once a synced frame says so, too.
func (l *Log) Release(low uint64) {
	for _, v := range l.voids {
		// The summaries within a void tell what is lost: no recovery may begin there.
		if low > v.from && (v.to == 0 || low < v.to) {
			low = v.from
		}
	}
	if low > l.low && low <= l.number {
		l.low = low
	}
}

// Newest is the number of the newest segment.
func (l *Log) Newest() uint64 { return l.number }

// Turn does the housekeeping: the seal, the end of segments that nobody needs,
// spares.
func (l *Log) Turn(now env.Instant) (worked bool, wake env.Instant) {
	if l.failed != nil || l.closed {
		return false, env.Never
	}
	if l.drop() {
		return true, now
	}
	l.prepare()
	if l.syncing || l.Staged() > 0 || l.sealed && l.low == l.durableLow {
		return false, env.Never
	}
	if due := l.lastFrame.Add(sealAfter); now < due {
		return false, due
	}
	l.write(true, nil) // idle: with the real body a seal is then never under way beside another call
	return true, now
}

// Close seals and syncs the log and closes its files; no sync may be under way
// but that of a seal, which is then forgotten. A log that was found damaged and
// not written since stays as it is.
func (l *Log) Close() error {
	if l.closed {
		return nil
	}
	l.closed = true
	l.spares.stop()
	err := l.failed
	if err == nil && l.cur != nil && !l.syncing && (!l.sealed || l.Staged() > 0) {
		err = l.put()
	}
	if err == nil && l.cur != nil {
		err = l.cur.file.SyncData()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.live {
		err = errors.Join(err, s.file.Close())
	}
	l.live = nil
	if l.dir != nil {
		err = errors.Join(err, l.dir.Close())
	}
	return err
}
