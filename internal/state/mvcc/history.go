package mvcc

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Past walks events in the history on disk, in order. It reads the rows of changes
// first; the bodies of those events that are kept are read together by Load, in the
// order of the engine's keys: side by side rows cost a fraction of what each alone
// does.
type Past struct {
	view *View
	it   engine.Iterator
	// more says that the iterator stands at a row, fresh that it is the next one.
	more, fresh bool

	kept  []kept
	names []byte // keys of kept
	// common is how many bytes all of those begin with alike.
	common int
	// pages hold the bodies of kept, once they are loaded; the last one is being filled.
	pages [][]byte
	bytes int         // of bodies
	given id.Revision // the first one whose events were given up
	at    []byte      // engine key of the row asked for
	row   []byte
}

// pageBytes is how long pages of bodies are, but for one that holds a single longer one:
// they come to what was read, however badly that was guessed before.
const pageBytes = 256 << 10

// kept is an event that was kept.
type kept struct {
	main, prevMain id.Revision
	sub, prevSub   uint32
	key, keyEnd    uint32 // in Past.names
	page, at, end  uint32 // in Past.pages; at == end: it is no more
	dead           bool
}

// Past starts a walk at a revision; it ends with the view's revision. The caller
// closes it soon (rule 23), whatever Next returns. Errors: command.ErrCompacted,
// ErrReplaced, engine.ErrIterators, *DamageError.
func (v *View) Past(from id.Revision) (*Past, error) {
	low := keys.AppendHistory(nil, v.group, from, 0)
	it, err := v.open(low, keys.AppendHistory(nil, v.group, v.Revision+1, 0), from)
	if err != nil {
		return nil, err
	}
	return &Past{view: v, it: it, more: it.SeekGE(low), fresh: true}, nil
}

// Close ends the walk. What was loaded stays; the view, and the newest events that it
// refers to, are let go.
func (p *Past) Close() {
	p.it.Close()
	p.view.readers.Add(-1)
	p.it, p.view = nil, nil
}

// Next moves to the next event, without its body; ok is false after the last. What
// e refers to is valid until the next call. Errors: *DamageError.
func (p *Past) Next(e *Event) (ok bool, err error) {
	if p.more && !p.fresh {
		p.more = p.it.Next()
	}
	p.fresh = false
	if !p.more {
		if err := p.it.Err(); err != nil {
			return false, &DamageError{"of the changes", err}
		}
		return false, nil
	}
	at := p.it.Key()
	_, main, sub, ok := keys.DecodeHistory(at)
	if !ok {
		return false, &DamageError{keys.Text(at).String(), errRow}
	}
	row, err := p.it.Value()
	if err != nil {
		return false, &DamageError{keys.Text(at).String(), err}
	}
	c, err := decodeChange(row, main, sub)
	if err != nil {
		return false, &DamageError{keys.Text(at).String(), err}
	}
	*e = Event{Revision: main, Sub: sub, Deleted: c.dead, Key: c.key, Body: e.Body[:0], prevMain: c.prevMain, prevSub: c.prevSub}
	return true, nil
}

// Keep notes the event that Next has moved to.
func (p *Past) Keep(e *Event) {
	at := len(p.names)
	p.names = append(p.names, e.Key...)
	if at == 0 {
		p.common = len(e.Key)
	} else {
		p.common = commonLength(p.names[:p.common], e.Key)
	}
	p.kept = append(p.kept, kept{main: e.Revision, sub: e.Sub, dead: e.Deleted, prevMain: e.prevMain, prevSub: e.prevSub,
		key: uint32(at), keyEnd: uint32(len(p.names))})
}

// Kept is how many events are kept.
func (p *Past) Kept() int { return len(p.kept) }

// KeyBytes is how long the keys of the events kept are together.
func (p *Past) KeyBytes() int { return len(p.names) }

// Bytes is how many there are of bodies, once they are loaded.
func (p *Past) Bytes() int { return p.bytes }

// Memory is about how many bytes are taken by the events kept, their bodies included.
func (p *Past) Memory() int { return p.bytes + len(p.names) + len(p.kept)*keptBytes }

// keptBytes is the size of kept.
const keptBytes = 48

// Size is how long the body of the i-th event kept is, 0 for one that is no more, and
// of which revision it is.
func (p *Past) Size(i int) (size int, main id.Revision) {
	k := &p.kept[i]
	return int(k.end - k.at), k.main
}

// Event returns the i-th event kept, with its body; ok is false for one that is no
// more: at the compact revision only the last change of a key remains. What e refers
// to is valid as long as the Past.
func (p *Past) Event(i int, e *Event) (ok bool) {
	k := &p.kept[i]
	*e = Event{Revision: k.main, Sub: k.sub, Deleted: k.dead, Key: p.key(k), Body: p.pages[k.page][k.at:k.end:k.end], prevMain: k.prevMain, prevSub: k.prevSub}
	return k.at < k.end
}

func (p *Past) key(k *kept) []byte { return p.names[k.key:k.keyEnd:k.keyEnd] }

// commonLength is how many bytes a and b begin with alike.
func commonLength(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// Load reads the bodies of the events kept. If they are more than most bytes, the
// later half of the events is given up, and again, as long as there are several
// revisions. pause is called now and then, while an iterator is open. The Past may be
// closed afterwards: what was loaded stays. Errors: command.ErrCompacted if a
// compaction has overtaken the walk, ErrReplaced, engine.ErrIterators, *DamageError.
func (p *Past) Load(most int, pause func()) error {
	for {
		whole, err := p.load(most, pause)
		if whole || err != nil {
			return err
		}
		p.halve()
	}
}

// Upto is the revision before the first one whose events Load has given up.
func (p *Past) Upto() id.Revision { return p.given - 1 }

// halve gives up the later half of the revisions kept.
func (p *Past) halve() {
	cut := len(p.kept) / 2
	for main := p.kept[cut].main; cut > 0 && p.kept[cut-1].main == main; cut-- {
	}
	if cut == 0 { // the first revision is the larger half
		for main := p.kept[0].main; cut < len(p.kept) && p.kept[cut].main == main; cut++ {
		}
	}
	if cut < len(p.kept) {
		p.given = p.kept[cut].main
	}
	p.kept = p.kept[:cut]
}

// pauseEvery is how many rows are read between two pauses.
const pauseEvery = 64

// load reads all bodies, unless they are too many.
func (p *Past) load(most int, pause func()) (whole bool, err error) {
	p.pages, p.bytes = append(p.pages[:0], nil), 0
	if len(p.kept) == 0 {
		return true, nil
	}
	order := p.order()
	it, err := p.view.open(keys.AppendUserKey(nil, p.view.group, p.key(&p.kept[order[0].kept])),
		keys.AppendAfterUserKey(nil, p.view.group, p.key(&p.kept[order[len(order)-1].kept])), p.kept[0].main)
	if err != nil {
		return false, err
	}
	defer func() {
		it.Close()
		p.view.readers.Add(-1)
	}()
	several := p.kept[0].main != p.kept[len(p.kept)-1].main
	for n := range order {
		if n%pauseEvery == pauseEvery-1 {
			pause()
		}
		k := &p.kept[order[n].kept]
		row, err := p.rowOf(it, k)
		if err != nil {
			return false, err
		}
		p.put(k, row)
		if several && p.bytes > most {
			return false, nil
		}
	}
	return true, nil
}

// put makes the body of an event of its row; nil is that of one that is no more.
func (p *Past) put(k *kept, row []byte) {
	last := len(p.pages) - 1
	if row == nil {
		k.page, k.at, k.end = uint32(last), 0, 0
		return
	}
	key := p.key(k)
	size := eventSize(len(key), row, k.dead)
	if cap(p.pages[last])-len(p.pages[last]) < size {
		p.pages = append(p.pages, make([]byte, 0, max(size, min(pageBytes, p.rest()))))
		last++
	}
	page := p.pages[last]
	k.page, k.at = uint32(last), uint32(len(page))
	page, _ = appendEvent(page, key, row, k.dead)
	k.end = uint32(len(page))
	p.pages[last] = page
	p.bytes += size
}

// rest is about how much the next page is to hold: a short walk has a short one.
func (p *Past) rest() int { return max(len(p.kept)*leastRest, p.bytes) }

// leastRest is what a body is taken for as long as none is known.
const leastRest = 128

// placed is an event kept among those in the order of the engine's keys: by its key's
// first bytes after those that all have in common, which mostly decide.
type placed struct {
	first uint64
	kept  uint32
}

// order is that of the rows of what is kept in the engine.
func (p *Past) order() []placed {
	order := make([]placed, len(p.kept))
	for i := range p.kept {
		var first [8]byte
		copy(first[:], p.key(&p.kept[i])[p.common:])
		order[i] = placed{binary.BigEndian.Uint64(first[:]), uint32(i)}
	}
	slices.SortFunc(order, func(a, b placed) int {
		if a.first != b.first {
			return cmp.Compare(a.first, b.first)
		}
		// Among the versions of a key the newest lies first, as what was kept last does here.
		return cmp.Or(bytes.Compare(p.key(&p.kept[a.kept]), p.key(&p.kept[b.kept])), cmp.Compare(b.kept, a.kept))
	})
	return order
}

// rowOf reads the row of the version that an event has made, nil for one that is no
// more.
func (p *Past) rowOf(it engine.Iterator, k *kept) ([]byte, error) {
	if k.dead && defect.On(defect.CompactionEatsDelete) && k.main <= p.view.horizon().Compacted {
		return nil, nil
	}
	if k.dead {
		p.row = appendVersion(p.row[:0], &version{mod: k.main, sub: k.sub, dead: true})
		return p.row, nil
	}
	v := p.view
	p.at = keys.AppendVersion(p.at[:0], v.group, p.key(k), k.main, k.sub)
	var row []byte
	err := error(engine.ErrNotFound)
	if it.SeekGE(p.at) && keys.Equal(it.Key(), p.at) {
		row, err = it.Value()
	} else if failed := it.Err(); failed != nil {
		err = failed
	}
	if err == nil {
		_, err = decodeVersion(row, k.main, k.sub)
	}
	if err == nil {
		return row, nil
	}
	now := v.horizon()
	switch {
	case now.Loads != v.loads:
		return nil, ErrReplaced
	case errors.Is(err, engine.ErrNotFound) && k.main < now.Compacted:
		return nil, command.ErrCompacted
	case errors.Is(err, engine.ErrNotFound) && k.main == now.Compacted:
		return nil, nil
	}
	return nil, &DamageError{keys.Text(p.at).String(), err}
}
