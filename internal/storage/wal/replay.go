package wal

import (
	"errors"
	"fmt"
)

// replay hands the log to its owner, from the oldest needed segment to the end.
// At damage it goes on in another way: what comes after is handed over as lost,
// and a void is opened that the next header will close. A void of an earlier
// damage is jumped over.
func (r *recovery) replay() error {
	l := r.log
	if r.newest == nil && len(r.files) > 0 { // nothing tells where the log began
		l.low = r.files[0].number
	}
	c := cursor{}
	if r.newestDamaged && r.files[0].number > l.low {
		r.beginLater(&c)
	}
	c.want = l.low
	for c.at < len(r.files) {
		f := r.files[c.at]
		var err error
		switch {
		case r.lost:
			err = r.harvest(f, 0)
			c.at++
		case r.jump(&c, c.want, 0):
		case f.number != c.want:
			path := r.fs.PathJoin(l.options.Dir, fileName(c.want, segmentSuffix))
			r.spoil(c.want, 0, path, 0, "a segment is missing")
		case f.state != good:
			r.spoil(f.number, 0, f.path, f.brokenAt, "the header of the segment is damaged")
		case r.restored && !c.jumped && f.header.follows != r.expect-1:
			err = r.spoilFrame(r.files[c.at-1], c.end)
		default:
			err = r.segment(f, &c)
		}
		if err != nil {
			return err
		}
	}
	l.follows = r.expect - 1
	return nil
}

// beginLater sets low to where the log must have begun when the end of the newest
// segment was still whole: the frames that said that the segments before its first
// file are not needed are among the damaged ones.
func (r *recovery) beginLater(c *cursor) {
	l := r.log
	l.low = r.files[0].number
	for _, v := range l.voids {
		if v.from < l.low && l.low < v.to { // see Release: the rest of a void goes as a whole
			l.low = v.to
		}
	}
	for c.at < len(r.files) && r.files[c.at].number < l.low {
		c.at++
	}
}

// cursor is the place that replay has reached: file number at of the list, which
// should be segment want. end is the block behind the last frame of the one
// before; jumped says that a void was jumped over to get here.
type cursor struct {
	at     int
	want   uint64
	end    uint32
	jumped bool
}

// jump enters a void that begins at a block, if there is one.
func (r *recovery) jump(c *cursor, number uint64, block uint32) bool {
	for i := range r.log.voids {
		v := &r.log.voids[i]
		if v.from != number || v.fromBlock != block || v.to == 0 {
			continue
		}
		path := r.fs.PathJoin(r.log.options.Dir, fileName(v.from, segmentSuffix))
		r.report(path, v.offset, v.reason)
		for c.at < len(r.files) && r.files[c.at].number < v.to {
			c.at++
		}
		c.want, c.jumped = v.to, true
		return true
	}
	return false
}

var errVoid = errors.New("a void begins here")

// segment replays one sound segment.
func (r *recovery) segment(f *found, c *cursor) error {
	if !r.restored || c.jumped {
		// Behind a void that nothing precedes, the summary is where the log begins.
		err := r.log.owner.Restore(f.header.summary, c.jumped && r.restored)
		r.restored = true
		if err != nil {
			r.spoil(f.number, 0, f.path, 0, err.Error())
			return nil
		}
	}
	c.jumped = false
	var refused error
	end, err := r.frames(f, f.headBlocks, f.header.first, func(block uint32, payload []byte) error {
		if r.voidBegins(f.number, block) {
			return errVoid
		}
		if refused = r.apply(f, block, payload, false); refused != nil {
			return errVoid
		}
		return nil
	})
	switch {
	case refused != nil:
		r.spoil(f.number, end, f.path, int64(end)*blockBytes, refused.Error())
		return r.harvest(f, end+1)
	case err != nil && !errors.Is(err, errVoid):
		return err
	case r.jump(c, f.number, end):
		return nil
	}
	c.at, c.want, c.end = c.at+1, f.number+1, end
	if c.at == len(r.files) {
		return r.tail(f, end)
	}
	return nil
}

func (r *recovery) voidBegins(number uint64, block uint32) bool {
	for _, v := range r.log.voids {
		if v.from == number && v.fromBlock == block && v.to != 0 {
			return true
		}
	}
	return false
}

// apply hands the records of one frame to the owner.
func (r *recovery) apply(f *found, block uint32, payload []byte, lost bool) error {
	base := block * blockRoom
	r.log.sealed = len(payload) == frameHeadBytes
	_, err := decodeFrame(payload, func(offset int, rec Record) error {
		return r.log.owner.Replay(f.number, base+uint32(offset), rec, lost)
	})
	return err
}

// tail decides what the newest segment has behind its last good frame.
func (r *recovery) tail(f *found, end uint32) error {
	l := r.log
	j := r.newestTail
	if f != r.newest || j.start != end || j.seq != r.expect { // a void, or a refused frame
		var err error
		if j, err = r.judge(f, end); err != nil {
			return err
		}
	}
	r.highest = max(r.highest, j.highest)
	switch v, offset, reason := j.verdict(); v {
	case clean:
		l.cur, l.end, l.seq = &f.segment, end, r.expect
	case torn:
		// The log goes on in a new segment: what is left of the torn frame can then
		// never be taken for a part of a later one.
		r.highest = max(r.highest, r.expect)
		l.sealed = false
	default:
		r.highest = max(r.highest, r.expect)
		r.spoil(f.number, end, f.path, offset, reason)
		return r.harvest(f, end+1)
	}
	return nil
}

// judge looks at everything behind the good frames of a file.
func (r *recovery) judge(f *found, start uint32) (*judgement, error) {
	j := newJudgement(f.nonce, r.expect, start)
	for number := start; number < f.blocks && (number < f.limit() || number < j.end); number++ {
		block, err := f.blockAt(number, 1)
		if err != nil {
			return nil, err
		}
		j.look(number, block)
	}
	return j, nil
}

// spoilFrame reports a frame that must have been in a segment that others follow.
func (r *recovery) spoilFrame(f *found, end uint32) error {
	j, err := r.judge(f, end)
	if err != nil {
		return err
	}
	v, offset, reason := j.verdict()
	if v != corrupt {
		offset, reason = int64(end)*blockBytes, fmt.Sprintf("frame %d is missing", r.expect)
	}
	r.spoil(f.number, end, f.path, offset, reason)
	return r.harvest(f, end+1)
}

// spoil reports damage and opens a void from a block on. What comes later is lost.
func (r *recovery) spoil(number uint64, block uint32, path string, offset int64, reason string) {
	r.report(path, offset, reason)
	r.log.voids = append(r.log.voids, void{from: number, fromBlock: block, offset: offset, reason: reason})
	r.lost = true
	r.log.sealed = true
}

// report keeps the first damage.
func (r *recovery) report(path string, offset int64, reason string) {
	if r.log.damage == nil {
		r.log.damage = &Damage{File: path, Offset: offset, Reason: reason}
	}
}

// harvest hands over, as lost, what is still whole of a file from a block on: its
// groups may have voted there, and must know the highest term that they saw.
// What the owner refuses of it is passed over.
func (r *recovery) harvest(f *found, from uint32) error {
	switch {
	case f.state != good:
		if ok, err := r.adopt(f); !ok {
			return err
		}
		from = 1
	case from == 0:
		_ = r.log.owner.Restore(f.header.summary, true)
		r.highest = max(r.highest, f.header.first-1)
		from = f.headBlocks
	}
	for block := from; block < min(f.blocks, f.limit()); {
		first, err := f.blockAt(block, 1)
		if err != nil {
			return err
		}
		count := uint32(1)
		if h, whole := openBlock(first); whole && h.nonce == f.nonce {
			r.highest = max(r.highest, h.seq)
			payload, blocks, ok, err := r.frame(f, block, h.seq)
			if err != nil {
				return err
			}
			if ok {
				_ = r.apply(f, block, payload, true)
				count = blocks
			}
		}
		block += count
	}
	r.log.sealed = true
	return nil
}

// adopt gives a segment without a sound header the nonce of its newest frame; ok
// is false if it has none.
func (r *recovery) adopt(f *found) (ok bool, err error) {
	newest := r.expect
	for number := uint32(1); number < f.limit(); number++ {
		block, err := f.blockAt(number, 1)
		if err != nil {
			return false, err
		}
		if h, whole := openBlock(block); whole && h.seq >= newest {
			newest, f.nonce, ok = h.seq, h.nonce, true
		}
	}
	f.blocks = f.limit()
	return ok, nil
}
