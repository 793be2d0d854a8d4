package watch

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/piles"
)

// Who is far behind is owed a good part of all versions of his range, and those lie in
// the order of keys. So the range is walked once as it lies, and its events are dealt
// out to piles of neighbouring revisions, in a file if they are many; then a pile is
// read and put in order at a time (decision 43).

// turned is a stretch of a group's history that was turned round.
type turned struct {
	group      *group
	from, upto id.Revision
	piles      *piles.Piles
	// used is turns.reads as it was when it was last used.
	used int
}

// turns are those that there are. A reader takes one out while it reads.
type turns struct {
	mu     sync.Mutex
	kept   []*turned // the one used last at the end
	open   int       // kept, in readers' hands, and being made
	named  int
	reads  int
	failed bool // one has failed: there are no more
}

const (
	// turnsOpen is how many there are at most. When there are, whoever else is far behind
	// reads in the order of keys as who is not: to take turns would be to sweep again for
	// each pile.
	turnsOpen = 3
	// turnsIdle is after how many reads of others a stretch makes room: its client
	// does not read.
	turnsIdle = 10_000
)

// errTooMuch: a stretch or a pile is far larger than the mean of all versions promised.
var errTooMuch = errors.New("watch: far more bytes than expected")

// diskError is of the file of the piles, and no reason to end a watch.
type diskError struct{ error }

// farBehind says whether to turn a stretch from a revision on round: if it is long, and
// a good part of what there is. upto is where it then ends: half-way into the ring,
// which goes on by itself meanwhile.
func (h *Hub) farBehind(view *mvcc.View, from id.Revision) (upto id.Revision, far bool) {
	upto = min(view.Oldest()+(view.Revision-view.Oldest())/2, view.Revision)
	owed := upto - from + 1
	if h.opts.FS == nil || owed < h.opts.Far.Revisions || view.Written == 0 {
		return 0, false
	}
	room := int64(h.limits.turned)
	if h.opts.Room != nil {
		room = min(room, h.opts.Room()/roomShare)
	}
	owed = min(owed, id.Revision(room/meanRow(view)))
	// Of the versions ever written so many are left.
	rows := float64(view.Revision) * float64(view.Bytes()) / float64(view.Written)
	return from + owed - 1, owed >= h.opts.Far.Revisions && float64(owed)*sweepGain >= rows
}

const (
	// roomShare is the part of the room on the disk that a stretch may take.
	roomShare = 4
	// sweepGain is how many rows are swept over in the time in which one is sought.
	sweepGain = 8
)

// meanRow is how many bytes a revision takes, about, and rather too many.
func meanRow(view *mvcc.View) int64 { return max(view.Written/int64(view.Revision), 1) }

// prepare turns round what a group is owed from a revision on, where that is worth it
// and was not done before. Errors: as of Hub.read.
func (h *Hub) prepare(g *group, from id.Revision) error {
	if h.turns.has(g, from) {
		return nil
	}
	view := h.opts.View()
	upto, far := h.farBehind(view, from)
	if !far {
		return nil
	}
	name := h.begin()
	if name == "" {
		return nil
	}
	t, err := h.turn(g, view, from, upto, name)
	if err == nil {
		h.put(t)
		return nil
	}
	return h.giveUp(t, err)
}

// begin counts another stretch and names its file; "" if there may be none.
func (h *Hub) begin() (name string) {
	s := &h.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= turnsOpen && len(s.kept) > 0 && s.reads-s.kept[0].used > turnsIdle {
		h.end(s.kept[0])
		s.kept = slices.Delete(s.kept, 0, 1)
	}
	if s.failed || s.open >= turnsOpen {
		return ""
	}
	s.open++
	s.named++
	return fmt.Sprintf("history-%d", s.named)
}

// giveUp ends a stretch that cannot be used; what is not about it alone is returned.
func (h *Hub) giveUp(t *turned, err error) error {
	var disk diskError
	ours := errors.As(err, &disk) || errors.Is(err, errTooMuch)
	s := &h.turns
	s.mu.Lock()
	h.end(t)
	first := ours && !s.failed
	s.failed = s.failed || ours
	s.mu.Unlock()
	if first && h.opts.Unturned != nil {
		h.opts.Unturned(err)
	}
	if ours {
		return nil
	}
	return err
}

// sorted returns what a group is owed from a revision on and up to where, if that was
// turned round.
func (h *Hub) sorted(g *group, from, upto id.Revision) (rows *pile, end id.Revision) {
	t := h.turns.take(g, from)
	if t == nil {
		return nil, 0
	}
	rows, end, err := t.read(from, upto, h.opts.Far.Pile/2, h.limits.ahead)
	if err != nil {
		_ = h.giveUp(t, err) // it is about the stretch alone
		return nil, 0
	}
	h.put(t)
	if defect.On(defect.PileEndSkipped) && end < min(upto, t.upto) {
		end++
	}
	return rows, end
}

// turn turns a stretch round. What it returns with an error is still to be ended.
// Errors: as of Hub.read, ErrClosed, errTooMuch, diskError.
func (h *Hub) turn(g *group, view *mvcc.View, from, upto id.Revision, name string) (*turned, error) {
	width := max(id.Revision(int64(h.opts.Far.Pile)/meanRow(view)), 1)
	t := &turned{group: g, from: from, upto: upto, piles: piles.New(piles.Options{
		FS: h.opts.FS, Path: h.opts.FS.PathJoin(h.opts.Dir, name), Memory: h.opts.Far.Memory,
		First: uint64(from), Width: uint64(width), Count: int((upto-from)/width) + 1,
	})}
	if err := h.opts.FS.MkdirAll(h.opts.Dir, 0o700); err != nil {
		return t, diskError{err}
	}
	key, end := g.bounds()
	sweep := view.Sweep(key, end, from, upto, g.prev)
	deal := func(e *mvcc.Event) error {
		if !g.takes(e) {
			return nil
		}
		if t.piles.Bytes() > 2*int64(h.limits.turned) {
			return errTooMuch
		}
		if err := t.piles.Add(uint64(e.Revision), func(dst []byte) []byte { return mvcc.AppendRecord(dst, e) }); err != nil {
			return diskError{err}
		}
		return nil
	}
	var err error
	for more := true; more && err == nil; h.opts.Pause() {
		if h.closed.Load() {
			return t, ErrClosed
		}
		h.opts.Slowly(func() { more, err = sweep.Next(h.limits.swept, deal) })
	}
	if err != nil {
		return t, err
	}
	if err := t.piles.Dealt(); err != nil {
		return t, diskError{err}
	}
	return t, nil
}

// bounds are the interest's range as a request has it.
func (i *interest) bounds() (key, end []byte) {
	switch {
	case i.open:
		end = []byte{0}
	case !i.single():
		end = []byte(i.end)
	}
	return []byte(i.key), end
}

// pile is events in order.
type pile struct {
	records []byte
	order   []dealt
}

// emptied keeps the memory of piles that nobody reads any more for the next ones: each
// would be a megabyte to be made, cleared and collected.
var emptied = sync.Pool{New: func() any { return &pile{} }}

func emptyPile() *pile {
	p := emptied.Get().(*pile)
	p.records, p.order = p.records[:0], p.order[:0]
	return p
}

// release lets go of what nobody reads any more.
func release(past source) {
	if p, is := past.(*pile); is {
		emptied.Put(p)
	}
}

// dealt is an event in pile.records.
type dealt struct {
	main id.Revision
	sub  uint32
	at   uint32
	body uint32
}

// read reads the pile that has a revision, and those after it as long as they have
// little; end is up to where. Errors: diskError, errTooMuch.
func (t *turned) read(from, upto id.Revision, enough, most int) (p *pile, end id.Revision, err error) {
	p, upto = emptyPile(), min(upto, t.upto)
	rows := 0
	for next := from; next <= upto && len(p.records) <= enough; next = end + 1 {
		i, _, last := t.piles.Of(uint64(next))
		size := t.piles.Size(i)
		if size > most {
			return nil, 0, errTooMuch
		}
		if len(p.records)+size > most {
			break
		}
		if p.records, err = t.piles.Read(i, p.records); err != nil {
			return nil, 0, diskError{err}
		}
		rows += t.piles.Count(i)
		end = min(id.Revision(last), upto)
	}
	p.sort(from, end, rows)
	return p, end, nil
}

// sort puts those events from from to end in order that are among so many records.
func (p *pile) sort(from, end id.Revision, records int) {
	var e mvcc.Event
	p.order = slices.Grow(p.order, records)
	for rest := p.records; len(rest) > 0; {
		at := len(p.records) - len(rest)
		rest = mvcc.ReadRecord(rest, &e)
		if from <= e.Revision && e.Revision <= end {
			p.order = append(p.order, dealt{e.Revision, e.Sub, uint32(at), uint32(len(e.Body))})
		}
	}
	slices.SortFunc(p.order, func(a, b dealt) int {
		if a.main != b.main {
			return cmp.Compare(a.main, b.main)
		}
		return cmp.Compare(a.sub, b.sub)
	})
}

// Kept is source's.
func (p *pile) Kept() int { return len(p.order) }

// Size is source's.
func (p *pile) Size(i int) (int, id.Revision) { return int(p.order[i].body), p.order[i].main }

// Event is source's.
func (p *pile) Event(i int, e *mvcc.Event) bool {
	mvcc.ReadRecord(p.records[p.order[i].at:], e)
	return true
}

// Memory is source's.
func (p *pile) Memory() int {
	return cap(p.records) + cap(p.order)*int(unsafe.Sizeof(dealt{}))
}

func (t *turned) close() error { return t.piles.Close() }

// find returns where the stretch of a group is that has a revision, -1 if there is none.
// The caller holds mu.
func (s *turns) find(g *group, from id.Revision) int {
	return slices.IndexFunc(s.kept, func(t *turned) bool { return t.group == g && t.from <= from && from <= t.upto })
}

func (s *turns) has(g *group, from id.Revision) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(g, from) >= 0
}

// take takes out the stretch of a group that has a revision, nil if there is none.
func (s *turns) take(g *group, from id.Revision) *turned {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(g, from)
	if i < 0 {
		return nil
	}
	t := s.kept[i]
	s.kept = slices.Delete(s.kept, i, i+1)
	return t
}

// put keeps a stretch, or ends it if nobody is behind any more whom it could serve.
func (h *Hub) put(t *turned) {
	s := &h.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.group.shared.Load() {
		h.forgetTurned(t.group) // the stretch before
	}
	s.reads++
	t.used = s.reads
	s.kept = append(s.kept, t)
	if t.group.late.Load() == 0 {
		h.forgetTurned(t.group)
	}
}

// caughtUp notes that one of a group is not behind any more.
func (h *Hub) caughtUp(g *group) {
	if g.late.Add(-1) > 0 {
		return
	}
	h.turns.mu.Lock()
	defer h.turns.mu.Unlock()
	h.forgetTurned(g)
}

// forgetTurned ends the stretches of a group. The caller holds turns.mu.
func (h *Hub) forgetTurned(g *group) {
	h.turns.kept = slices.DeleteFunc(h.turns.kept, func(t *turned) bool {
		if t.group == g {
			h.end(t)
		}
		return t.group == g
	})
}

// end removes the file of a stretch, which may take a while. The caller holds turns.mu.
func (h *Hub) end(t *turned) {
	h.turns.open--
	h.opts.Tasks.Go("watch history", func() bool {
		_ = t.close() // what is left goes when the member starts
		return true
	})
}
