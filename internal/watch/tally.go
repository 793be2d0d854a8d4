package watch

// Tally tells of the watches of a hub.
type Tally struct {
	// Streams are open, with so many Watches; Behind of these read history, since they
	// have not reached the newest events yet.
	Streams, Watches, Behind int
	// Sent events, since the hub was made.
	Sent uint64
}

// Tally looks at all watches.
func (h *Hub) Tally() Tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := Tally{Streams: len(h.streams), Sent: h.sent.Load()}
	for _, s := range h.streams {
		s.mu.Lock()
		for _, sub := range s.order {
			if sub.ended {
				continue
			}
			t.Watches++
			if sub.behind {
				t.Behind++
			}
		}
		s.mu.Unlock()
	}
	return t
}
