package lease

import (
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/invariant"
)

// Change is what happened to one lease: it is as the facts say, or it is gone.
type Change struct {
	Facts
	Weight Weight
	Gone   bool
}

// Feed is one reader's place in the changes, oldest first. The writer never waits
// for it and holds nothing for it: what is read is the reader's to drop.
type Feed struct{ at *page }

// page is the changes of one publication, and the way to the next one. It never
// changes but for next, which is set once.
type page struct {
	changes []Change
	// anew says that these are all leases, whatever was before.
	anew bool
	next atomic.Pointer[page]
}

// feed is the writer's side.
type feed struct {
	last *page
	// first is the page before all that nobody has read; nil once it is taken.
	first atomic.Pointer[page]
}

func (f *feed) init() {
	f.last = &page{}
	f.first.Store(f.last)
}

func (f *feed) publish(changes []Change, anew bool) {
	next := &page{changes: changes, anew: anew}
	f.last.next.Store(next)
	f.last = next
}

// Follow returns the feed of all changes, from the leases that there were when the
// table was opened. It may be called once, from any goroutine: until then the
// changes are kept.
func (t *Table) Follow() *Feed {
	first := t.feed.first.Swap(nil)
	invariant.Check(first != nil, "the changes of leases are followed twice")
	return &Feed{at: first}
}

// More says whether Next has something: one atomic load. A feed belongs to one
// goroutine at a time, but for More.
func (f *Feed) More() bool { return f.at.next.Load() != nil }

// Next takes the changes of the next publication. anew says that they are all leases
// and that what was told before is void; ok is false if there is nothing new.
func (f *Feed) Next() (changes []Change, anew, ok bool) {
	next := f.at.next.Load()
	if next == nil {
		return nil, false, false
	}
	f.at = next
	return next.changes, next.anew, true
}
