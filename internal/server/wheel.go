package server

import (
	"time"

	"github.com/kvorum/kvorum/internal/env"
)

// wheel files numbers under the tick in which they are to be looked at. It is a ring
// of ticks: what lies farther ahead than the ring is long is filed at its far end,
// looked at there and filed again. So a filing may come early; the one who looks
// knows better, and renewing what is filed costs nothing here.
type wheel struct {
	start env.Instant // of tick 0
	// now is the tick whose slot is being emptied.
	now   int64
	slots [wheelSlots][]uint32
}

const (
	// tickLength is how late a lease may be found to be due.
	tickLength = 100 * time.Millisecond
	wheelSlots = 4096
	// keptSlot is the largest slot whose memory is kept once it is empty.
	keptSlot = 1024
)

// tick is the first one that begins at an instant or later.
func (w *wheel) tick(at env.Instant) int64 {
	return int64((at.Sub(w.start) + tickLength - 1) / tickLength)
}

// file puts a number under a tick, or under the one nearest to it that it can; that
// is returned and never 0.
func (w *wheel) file(number uint32, tick int64) int64 {
	tick = min(max(tick, w.now+1), w.now+wheelSlots-1)
	slot := &w.slots[tick%wheelSlots]
	*slot = append(*slot, number)
	return tick
}

// slot is what is filed under the present tick.
func (w *wheel) slot() *[]uint32 { return &w.slots[w.now%wheelSlots] }

// next goes on to the next tick, if it has begun; the slot of the present one is
// empty.
func (w *wheel) next(now env.Instant) bool {
	if w.start.Add(time.Duration(w.now+1)*tickLength) > now {
		return false
	}
	if slot := w.slot(); cap(*slot) > keptSlot {
		*slot = nil
	}
	w.now++
	return true
}

// empty forgets everything that is filed.
func (w *wheel) empty() {
	for i := range w.slots {
		w.slots[i] = nil
	}
}
