package sim

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/watch"
)

// watching is one watch as its client wants it: it outlives the streams that it is
// on, and goes on where it was. What it is told must be every event of its range,
// once, in order, in whole revisions.
type watching struct {
	name    string
	request watch.Request
	// next is the first revision that the client was not told of; 0 as long as it is
	// to begin with the present.
	next id.Revision

	// On the present stream: asked is that it was created and not cancelled there, id
	// is its ID once that is told.
	asked, created bool
	id             int64
	// since is what the member had applied when it was asked for.
	since id.Index
	// header is the latest header, partial what has come of a response in pieces.
	header  id.Revision
	partial []byte
}

func (t *watching) String() string {
	r := &t.request
	text := fmt.Sprintf("%s on %q", t.name, r.Key)
	if len(r.End) > 0 {
		text += fmt.Sprintf("..%q", r.End)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"prev-kv", r.PrevKV}, {"progress", r.Progress}, {"fragment", r.Fragment}, {"no-puts", r.NoPuts}, {"no-deletes", r.NoDeletes}} {
		if f.set {
			text += " " + f.name
		}
	}
	return fmt.Sprintf("%s, owed from %d", text, t.next)
}

// gone: the stream that it was on has ended.
func (t *watching) gone() { t.asked, t.created, t.id, t.header, t.partial = false, false, 0, 0, nil }

// told judges events.
func (t *watching) told(l *ledger, r *watch.Response, shown id.Revision) error {
	if r.Fragment {
		t.partial = append(t.partial, r.Events...)
		return nil
	}
	list, err := decodeEvents(append(t.partial, r.Events...))
	t.partial = nil
	if err != nil {
		return fmt.Errorf("%v: %w", t, err)
	}
	if len(list) == 0 {
		return fmt.Errorf("%v: is told nothing", t)
	}
	last := list[len(list)-1].kv.ModRevision
	switch {
	case last > shown:
		return fmt.Errorf("%v: is told of revision %d, and a reader of the member sees %d", t, last, shown)
	case r.Revision < last || r.Revision > shown || r.Revision < t.header:
		return fmt.Errorf("%v: header %d, before %d, events up to %d, the member is at %d", t, r.Revision, t.header, last, shown)
	case list[0].kv.ModRevision < t.next:
		return fmt.Errorf("%v: is told again of %s", t, kvText(&list[0].kv))
	}
	owed := l.events.from(t.next)
	compacted := l.oracle.Compacted()
	for i := range owed {
		e := &owed[i]
		if e.ModRevision > last {
			break
		}
		if !takes(&t.request, e) {
			continue
		}
		mayLack := e.covered && e.ModRevision <= compacted
		switch {
		case len(list) > 0 && e.matches(&list[0], t.request.PrevKV, compacted) == nil:
			list = list[1:]
		case mayLack:
		case len(list) == 0:
			return fmt.Errorf("%v: half a revision: is not told of %s", t, kvText(&e.KeyValue))
		default:
			return fmt.Errorf("%v: is told %w", t, e.matches(&list[0], t.request.PrevKV, compacted))
		}
	}
	if len(list) > 0 {
		return fmt.Errorf("%v: is told of %s, which is not owed", t, kvText(&list[0].kv))
	}
	t.next, t.header = last+1, r.Revision
	return nil
}

// owed is the first event that the watch has not seen, nil if there is none up to a
// revision.
func (t *watching) owed(l *ledger, upto id.Revision) *event {
	if t.next == 0 {
		return nil
	}
	owed := l.events.from(t.next)
	for i := range owed {
		e := &owed[i]
		if e.ModRevision > upto {
			break
		}
		if takes(&t.request, e) && !(e.covered && e.ModRevision <= l.oracle.Compacted()) {
			return e
		}
	}
	return nil
}

// bookmark judges a word that everything up to a revision has been told. One for the
// whole stream may be of a revision before the watch.
func (t *watching) bookmark(l *ledger, upto, shown id.Revision) error {
	if upto > shown {
		return fmt.Errorf("%v: bookmark %d, the member is at %d", t, upto, shown)
	}
	if t.partial != nil {
		return fmt.Errorf("%v: bookmark %d in the middle of a response", t, upto)
	}
	if e := t.owed(l, upto); e != nil {
		return fmt.Errorf("%v: bookmark %d is ahead of %s", t, upto, kvText(&e.KeyValue))
	}
	if t.request.Start > upto {
		return fmt.Errorf("%v: bookmark %d of a watch that begins at %d", t, upto, t.request.Start)
	}
	t.next = max(t.next, upto+1)
	return nil
}

// overtaken judges the word that a compaction has ended the watch.
func (t *watching) overtaken(l *ledger, compacted id.Revision) error {
	if compacted > l.oracle.Compacted() || compacted <= t.next {
		return fmt.Errorf("%v: cancelled as compacted at %d, where the group is compacted at %d", t, compacted, l.oracle.Compacted())
	}
	t.next = compacted
	return nil
}
