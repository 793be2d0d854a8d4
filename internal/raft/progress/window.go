package progress

import "github.com/kvorum/kvorum/internal/id"

// window holds what was sent to a follower in the pipeline and is not answered
// yet: a ring of messages, oldest first, with the bytes of their entries.
type window struct {
	maxMessages, maxBytes int

	ring        []flight
	head, count int
	bytes       int
}

type flight struct {
	last  id.Index
	bytes int
}

// room is how many more bytes may be sent; 0 when the window is full.
func (w *window) room() int {
	if w.count >= w.maxMessages {
		return 0
	}
	return max(0, w.maxBytes-w.bytes)
}

func (w *window) add(last id.Index, bytes int) {
	if w.count == len(w.ring) {
		w.grow()
	}
	w.ring[(w.head+w.count)%len(w.ring)] = flight{last, bytes}
	w.count++
	w.bytes += bytes
}

// grow doubles the ring: most followers never have more than a few messages on
// their way, so the ring is not made for the worst case at once.
func (w *window) grow() {
	ring := make([]flight, max(4, 2*len(w.ring)))
	for i := range w.count {
		ring[i] = w.ring[(w.head+i)%len(w.ring)]
	}
	w.ring, w.head = ring, 0
}

// free takes out every message whose entries are all up to match.
func (w *window) free(match id.Index) {
	for w.count > 0 && w.ring[w.head].last <= match {
		w.bytes -= w.ring[w.head].bytes
		w.head = (w.head + 1) % len(w.ring)
		w.count--
	}
}

func (w *window) clear() { w.head, w.count, w.bytes = 0, 0, 0 }
