package raftlog

// slot is where the record of one entry stands: its offset in the payload of its
// segment, and its whole length. Millions of them are kept, so they are small.
type slot struct{ offset, length uint32 }

const chunkSlots = 256

// chunk is a part of a slotList.
type chunk struct {
	slots []slot
	// before are the bytes of all chunks ahead of this one since the list began.
	before int64
}

// slotList holds the slots of consecutive entries. It grows and shrinks at its
// end and is trimmed at its front, a chunk at a time.
//
// Invariants: every chunk but the last is full; skip < chunkSlots slots at the
// front of the first are gone already; count is what remains.
type slotList struct {
	chunks      []chunk
	skip, count int
}

func (l *slotList) at(i int) slot {
	i += l.skip
	return l.chunks[i/chunkSlots].slots[i%chunkSlots]
}

func (l *slotList) push(s slot) {
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last].slots) == chunkSlots {
		next := chunk{before: l.bytesBefore(l.count)}
		if last >= 0 {
			next.slots = make([]slot, 0, chunkSlots)
		}
		l.chunks = append(l.chunks, next)
		last++
	}
	l.chunks[last].slots = append(l.chunks[last].slots, s)
	l.count++
}

// truncate keeps the first n.
func (l *slotList) truncate(n int) {
	if n == 0 {
		*l = slotList{}
		return
	}
	end := l.skip + n
	chunks := (end + chunkSlots - 1) / chunkSlots
	clear(l.chunks[chunks:])
	l.chunks = l.chunks[:chunks]
	last := &l.chunks[chunks-1]
	last.slots = last.slots[:end-(chunks-1)*chunkSlots]
	l.count = n
}

// dropFront drops the first n.
func (l *slotList) dropFront(n int) {
	if n == l.count {
		*l = slotList{}
		return
	}
	l.skip += n
	l.count -= n
	gone := l.skip / chunkSlots
	if gone == 0 {
		return
	}
	l.skip %= chunkSlots
	// The array is made anew, so that its front does not stay reachable.
	l.chunks = append(make([]chunk, 0, len(l.chunks)-gone+1), l.chunks[gone:]...)
}

// bytesBefore sums the lengths of all slots before the i-th, counted from some
// fixed point at or ahead of the first.
func (l *slotList) bytesBefore(i int) int64 {
	i += l.skip
	c := min(i/chunkSlots, len(l.chunks)-1)
	if c < 0 {
		return 0
	}
	sum := l.chunks[c].before
	for _, s := range l.chunks[c].slots[:i-c*chunkSlots] {
		sum += int64(s.length)
	}
	return sum
}
