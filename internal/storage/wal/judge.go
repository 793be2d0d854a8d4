package wal

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/defect"
)

// verdict is what the place behind the last good frame of the log turns out to
// hold.
type verdict uint8

const (
	// clean: nothing of this life was ever written there.
	clean verdict = iota
	// torn: the last frame, of which a part never reached the disk. Its sync was
	// never reported, so nobody relies on it.
	torn
	// corrupt: something that was written is not as it was written.
	corrupt
)

// judgement gathers what the blocks from the end of the good frames to the end
// of the segment look like (rule 2). The frame expected there has sequence seq
// and begins at block start.
//
// One frame at most is unsynced, so:
//   - a whole block of a later frame proves that this one was synced: corrupt;
//   - a sector within the frame that is neither blank, nor whole and of an earlier
//     life, nor whole and of this life, is no state that a write passes: corrupt;
//   - if that is not so and a sector within the frame is blank or stale, the frame
//     was never written completely: torn;
//   - if no sector is of this life, nothing was written: clean. What lies further
//     back is then nobody's, whatever it looks like.
type judgement struct {
	nonce uint64
	tag   uint32
	seq   uint64
	start uint32

	end     uint32 // of the frame, as far as its blocks tell
	any     bool   // some sector is of this life
	later   bool   // some block is of a later frame
	strange string // a contradiction, and where
	at      int64
	broken  int64  // the first broken sector, or -1
	missing int64  // the first blank or stale sector, or -1
	highest uint64 // sequence of a block of this life
}

func newJudgement(nonce, seq uint64, start uint32) *judgement {
	return &judgement{nonce: nonce, tag: tagOf(nonce), seq: seq, start: start, end: start + 1, broken: -1, missing: -1, highest: seq - 1}
}

// look takes in the next block.
func (j *judgement) look(number uint32, block []byte) {
	base := int64(number) * blockBytes
	h, whole := openBlock(block)
	if whole && h.nonce == j.nonce {
		j.own(number, h)
		return
	}
	same := 0
	for at := 0; at < blockBytes; at += sectorBytes {
		switch classify(block[at:at+sectorBytes], j.tag) {
		case ours:
			same++
			j.any, j.end = true, max(j.end, number+1)
			if at == 0 {
				j.own(number, h)
			}
		case broken:
			if j.broken < 0 {
				j.broken = base + int64(at)
			}
		default:
			if j.missing < 0 {
				j.missing = base + int64(at)
			}
		}
	}
	if same == blockBytes/sectorBytes {
		j.contradict(base, "sectors that do not belong together")
	}
}

// own takes in the head of a block of this life, which is sound.
func (j *judgement) own(number uint32, h head) {
	j.any, j.end = true, max(j.end, number+1)
	j.highest = max(j.highest, h.seq)
	switch {
	case h.nonce != j.nonce || h.seq < j.seq:
		j.contradict(int64(number)*blockBytes, "a block that does not belong here")
	case h.seq > j.seq:
		j.later = true
	case number-h.number != j.start || !h.plausible():
		j.contradict(int64(number)*blockBytes, "a block out of its place")
	default:
		j.end = max(j.end, j.start+h.count)
	}
}

func (j *judgement) contradict(at int64, what string) {
	if j.strange == "" {
		j.strange, j.at = what, at
	}
}

// verdict sums up; offset and reason tell where and how it is corrupt.
func (j *judgement) verdict() (v verdict, offset int64, reason string) {
	begin, end := int64(j.start)*blockBytes, int64(j.end)*blockBytes
	within := func(at int64) bool { return at >= 0 && at < end }
	switch {
	case within(j.broken):
		v, offset, reason = corrupt, j.broken, fmt.Sprintf("frame %d is damaged", j.seq)
	case j.strange != "":
		v, offset, reason = corrupt, j.at, j.strange
	case j.later && j.missing >= 0:
		v, offset, reason = corrupt, j.missing, fmt.Sprintf("frame %d is missing before a later one", j.seq)
	case j.later:
		v, offset, reason = corrupt, begin, fmt.Sprintf("frame %d is missing before a later one", j.seq)
	case !j.any:
		return clean, 0, ""
	case within(j.missing):
		v, offset, reason = torn, begin, fmt.Sprintf("frame %d is torn", j.seq)
	default:
		v, offset, reason = corrupt, begin, fmt.Sprintf("frame %d is incomplete", j.seq)
	}
	if v == torn && defect.On(defect.TornTakenForCorrupt) {
		v = corrupt
	}
	return v, offset, reason
}
