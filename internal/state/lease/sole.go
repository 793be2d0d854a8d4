package lease

// solesBudget is how much memory the keys of leases that have one key each may take:
// those of 250,000 leases, with keys of up to 28 bytes.
const solesBudget = 8 << 20

// longestSole is the longest key that is remembered, in bytes.
const longestSole = 9 * cellBytes

// cellBytes of a key are in a cell of 32 bytes.
const cellBytes = 28

// soleKey names the first cell of a key, from 1 on; 0 is none.
type soleKey uint32

// soles remembers the keys of leases that have just one, as most have: such a lease
// ends without a look at the engine, which costs more than all the rest of its end.
// Keys lie in cells without pointers, which the garbage collector would follow; cells
// come in pages and are used again.
type soles struct {
	// budget is in bytes.
	budget int
	pages  []*[cellsPerPage]cell
	// made counts the cells handed out so far, free is the first of those given back.
	made int
	free soleKey
}

// cell is a piece of a key, and which one has the next piece.
type cell struct {
	next  soleKey
	bytes [cellBytes]byte
}

const cellsPerPage = 2048

func (s *soles) at(k soleKey) *cell { return &s.pages[(k-1)/cellsPerPage][(k-1)%cellsPerPage] }

// keep remembers a key; 0 if there is no room for it.
func (s *soles) keep(key []byte) (first soleKey) {
	if len(key) == 0 || len(key) > longestSole {
		return 0
	}
	// From the last piece to the first: each is told which one comes next.
	for from := (len(key) - 1) / cellBytes * cellBytes; from >= 0; from -= cellBytes {
		k := s.cell()
		if k == 0 {
			s.forget(first)
			return 0
		}
		c := s.at(k)
		c.next = first
		copy(c.bytes[:], key[from:])
		first = k
	}
	return first
}

// cell finds an unused cell; 0 if the budget is used up.
func (s *soles) cell() soleKey {
	if k := s.free; k != 0 {
		s.free = s.at(k).next
		return k
	}
	if s.made == len(s.pages)*cellsPerPage {
		if (s.made+cellsPerPage)*(cellBytes+4) > s.budget {
			return 0
		}
		s.pages = append(s.pages, new([cellsPerPage]cell))
	}
	s.made++
	return soleKey(s.made)
}

// append appends a key of n bytes to dst.
func (s *soles) append(dst []byte, k soleKey, n int) []byte {
	for ; n > 0; n -= cellBytes {
		c := s.at(k)
		dst = append(dst, c.bytes[:min(n, cellBytes)]...)
		k = c.next
	}
	return dst
}

// forget gives the cells of a key back.
func (s *soles) forget(k soleKey) {
	for k != 0 {
		c := s.at(k)
		next := c.next
		c.next, s.free = s.free, k
		k = next
	}
}

// reset forgets all keys.
func (s *soles) reset() { *s = soles{budget: s.budget} }
