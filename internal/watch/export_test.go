package watch

// NewSmall is New with limits that short tests reach.
func NewSmall(opts Options, matches, bytes, revisions, rows, cache int) *Hub {
	h := New(opts)
	h.limits = limits{matches: matches, bytes: bytes, revisions: revisions, rows: rows, ahead: cache / 2, pastRows: 3 * rows, cache: cache, turned: 1000 * bytes, swept: rows}
	h.runs.ahead, h.runs.mean = cache/2, 50
	return h
}

// Groups is how many groups there are.
func (h *Hub) Groups() int { return len(h.index.groups) }

// Turned is how many stretches of history were turned round, and how many of them are kept.
func (h *Hub) Turned() (all, kept int) { return h.turns.named, len(h.turns.kept) }

// Cached is how many runs are kept, and the memory that they are charged for.
func (h *Hub) Cached() (runs, bytes int) { return len(h.runs.queue), h.runs.bytes }
