package sim

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/testkit/rights"
	"github.com/kvorum/kvorum/internal/watch"
)

// watcher is a client with a stream of watches on one member at a time. When that
// member is gone, or at a whim, it goes on elsewhere from where it was. It stands
// for the door too: it ticks, and pulls what is to be sent at its own pace.
type watcher struct {
	w    *world
	rand *simenv.Rand
	id   int

	wanted []*watching
	made   int
	// who is in whose name it watches; empty is nobody who is asked.
	who string

	// The present stream; nil while there is none.
	stream  *watch.Stream
	replica *replica
	run     int
	// creating are those whose answer is to come, in order; watches are those on the
	// stream by ID, leaving those that are cancelled.
	creating []*watching
	watches  map[int64]*watching
	leaving  map[int64]bool
	woken    bool

	pullAt, tickAt, whimAt env.Instant
}

func newWatcher(w *world, n int) *watcher {
	c := &watcher{w: w, rand: w.env.Rand(fmt.Sprintf("watcher %d", n)), id: n}
	if u := &w.swarm.users; u.some() && c.rand.Int64N(1000) < u.watching {
		c.who = personName(c.rand.Intn(u.people))
	}
	return c
}

func (c *watcher) String() string { return fmt.Sprintf("watcher %d", c.id) }

// lost says that the stream's member has ended.
func (c *watcher) lost() bool {
	return c.stream != nil && (c.replica.host == nil || c.replica.runs != c.run)
}

// due is when the client can do something.
func (c *watcher) due() env.Instant {
	switch {
	case c.lost():
		return 0
	case c.stream == nil:
		return c.whimAt
	case c.woken && c.w.calm:
		return c.pullAt
	case c.woken:
		return min(c.pullAt, c.whimAt)
	}
	due := c.tickAt
	if !c.w.calm {
		due = min(due, c.whimAt)
	}
	return due
}

// act does the next thing.
func (c *watcher) act() {
	now := c.w.env.Now()
	switch {
	case c.lost():
		c.disconnect("the member is gone")
	case c.stream == nil:
		c.connect()
	case c.woken && c.pullAt <= now:
		c.pull()
	case !c.woken && c.tickAt <= now: // a door's sender that has something to send does not tick
		c.tickAt = now.Add(c.w.swarm.watches.tick)
		c.guard(c.stream.Tick)
		if c.w.calm {
			c.guard(c.stream.Progress) // who asked for no bookmarks gets one
		}
	default:
		c.whim()
	}
}

// guard runs code of the member, which may have died with a stream of ours.
func (c *watcher) guard(f func()) { c.replica.guard(f) }

func (c *watcher) disconnect(why string) {
	c.w.trace.tell(c.w.env.Now(), "%v leaves %v: %s", c, c.replica, why)
	for _, t := range c.wanted {
		t.gone()
	}
	c.stream, c.replica, c.creating, c.watches, c.leaving, c.woken = nil, nil, nil, nil, nil, false
	c.whimAt = c.w.env.Now().Add(between(c.rand, 0, 20*time.Millisecond))
}

// connect opens a stream and asks for all watches again.
func (c *watcher) connect() {
	now := c.w.env.Now()
	c.whimAt = now.Add(5 * time.Millisecond)
	r := c.w.pick(c.rand)
	if r == nil || r.host == nil {
		return
	}
	c.replica, c.run = r, r.runs
	c.watches, c.leaving = map[int64]*watching{}, map[int64]bool{}
	c.guard(func() {
		var stream *watch.Stream
		stream = r.services.Watch(func() {
			if c.stream == stream {
				c.woken = true
			}
		})
		c.stream = stream
	})
	c.tickAt, c.whimAt = now.Add(c.w.swarm.watches.tick), now.Add(around(c.rand, c.w.swarm.watches.pause))
	c.w.trace.tell(now, "%v opens a stream on %v", c, r)
	for _, t := range c.wanted {
		c.create(t)
	}
}

// create asks for a watch.
func (c *watcher) create(t *watching) {
	t.asked = true
	r := t.request
	r.Key, r.End = slices.Clone(r.Key), slices.Clone(r.End)
	r.Start = t.next
	if c.rand.OneIn(2) {
		c.made++
		r.ID = int64(1000 + c.made)
	}
	c.creating = append(c.creating, t)
	c.w.trace.fold(eventWatch, uint64(c.id), uint64(t.next), uint64(c.replica.member))
	c.w.trace.tell(c.w.env.Now(), "%v -> %v  watch %v", c, c.replica, t)
	t.since = c.replica.applied
	c.guard(func() {
		if c.who != "" {
			r.Permit = c.replica.services.As(auth.Caller{User: c.who, Issued: math.MaxUint64}).MayWatch
		}
		c.stream.Create(&r)
	})
}

// whim changes something, or asks for a bookmark.
func (c *watcher) whim() {
	c.whimAt = c.w.env.Now().Add(around(c.rand, c.w.swarm.watches.pause))
	if c.w.calm {
		return
	}
	switch n := c.rand.Intn(8); {
	case len(c.wanted) == 0 || n < 3 && len(c.wanted) < c.w.swarm.watches.most:
		c.made++
		t := &watching{name: fmt.Sprintf("w%d.%d", c.id, c.made)}
		c.draw(t)
		c.wanted = append(c.wanted, t)
		c.create(t)
	case n < 4:
		c.cancel(c.wanted[c.rand.Intn(len(c.wanted))])
	case n < 6:
		c.guard(c.stream.Progress)
	default:
		c.guard(c.stream.Close)
		c.disconnect("at a whim")
	}
}

// draw draws what a watch is to see. The ranges are few, so that watches of a member
// share them.
func (c *watcher) draw(t *watching) {
	keys := c.w.swarm.load.keys
	r := &t.request
	switch c.rand.Intn(8) {
	case 0, 1:
		r.Key, r.End = []byte{0}, []byte{0}
	case 2:
		r.Key, r.End = []byte("k"), []byte("s")
	case 3:
		r.Key, r.End = []byte("p"), []byte{0}
	case 4:
		r.Key, r.End = []byte("l"), []byte("n")
	default:
		r.Key = fmt.Appendf(nil, "%s%d", oneOf(c.rand, "r", "r", "l"), c.rand.Int64N(keys))
	}
	r.PrevKV, r.Progress, r.Fragment = c.rand.OneIn(2), c.rand.OneIn(2), c.rand.OneIn(3)
	r.NoPuts, r.NoDeletes = c.rand.OneIn(8), c.rand.OneIn(8)
	now := c.w.history.revision
	switch c.rand.Intn(6) {
	case 0, 1:
		t.next = 0
	case 2:
		t.next = now + 1 + id.Revision(c.rand.Int64N(20))
	default:
		t.next = max(1, now-id.Revision(c.rand.Int64N(60)))
	}
}

// cancel ends a watch for good.
func (c *watcher) cancel(t *watching) {
	if !t.created {
		return // its ID is not known yet
	}
	c.wanted = slices.DeleteFunc(c.wanted, func(o *watching) bool { return o == t })
	c.leave(t.id)
	c.w.trace.tell(c.w.env.Now(), "%v -> %v  cancel %v", c, c.replica, t)
}

func (c *watcher) leave(watch int64) {
	c.leaving[watch] = true
	c.guard(func() { c.stream.Cancel(watch) })
}

// pull takes the next response, as the sender of a door does.
func (c *watcher) pull() {
	w, now := c.w, c.w.env.Now()
	c.woken = false
	var r watch.Response
	var ok bool
	var err error
	c.guard(func() { r, ok, err = c.stream.Next() })
	switch {
	case w.failure != nil || c.lost() || !ok && err == nil:
	case errors.Is(err, watch.ErrBusy):
		c.woken, c.pullAt = true, now.Add(5*time.Millisecond)
	case err != nil && c.replica.flipped != nil:
		c.disconnect(err.Error())
	case err != nil:
		w.fail("%v on %v: %v", c, c.replica, err)
	default:
		c.woken = true
		if c.rand.OneIn(4) && !w.calm {
			c.pullAt = now.Add(time.Duration(c.rand.Int64N(int64(w.swarm.watches.stall) + 1)))
		}
		w.trace.fold(eventWatched, uint64(c.id), uint64(r.ID), uint64(r.Revision), digest(r.Events))
		w.trace.tell(now, "%v <- %v  %s", c, c.replica, responseText(&r))
		w.check(c, c.take(&r))
	}
}

func responseText(r *watch.Response) string {
	text := fmt.Sprintf("watch %d at %d", r.ID, r.Revision)
	if r.Created {
		text += " created"
	}
	if r.Refused != nil {
		text += fmt.Sprintf(" refused: %v", r.Refused)
	}
	if r.Canceled {
		text += fmt.Sprintf(" cancelled, compacted %d", r.Compacted)
	}
	list, _ := decodeEvents(r.Events)
	for i := range list {
		text += fmt.Sprintf(" %q@%d", list[i].kv.Key, list[i].kv.ModRevision)
		if list[i].deleted {
			text += " deleted"
		}
	}
	if r.Fragment {
		text += " ..."
	}
	return text
}

// take judges a response.
func (c *watcher) take(r *watch.Response) error {
	l, shown := c.w.ledger, c.replica.state.View().State().Revision
	t := c.watches[r.ID]
	switch {
	case r.Created:
		return c.begun(r, shown)
	case r.ID == watch.NoID:
		return c.bookmarks(r, shown)
	case t == nil:
		return fmt.Errorf("a response of watch %d, which there is not", r.ID)
	case r.Canceled && c.leaving[r.ID] && (r.Compacted != 0 || r.Refused != nil):
		return nil // what its client has cancelled meanwhile
	case r.Canceled && c.leaving[r.ID]:
		delete(c.leaving, r.ID)
		delete(c.watches, r.ID)
		return nil
	case r.Refused != nil:
		c.w.trace.mark(markRevoked)
		delete(c.watches, r.ID)
		return c.forbidden(t, r.Refused)
	case r.Canceled:
		c.w.trace.mark(markOvertaken)
		if err := t.overtaken(l, r.Compacted); err != nil {
			return err
		}
		t.gone()
		c.leave(r.ID)
		c.create(t)
		return nil
	case len(r.Events) > 0 && c.may(t, c.replica.applied) != nil:
		return fmt.Errorf("%v: %q is told of events, and may not read them by what %v has applied: %v", t, c.who, c.replica, c.w.ledger.rightsAt(c.replica.applied))
	case len(r.Events) > 0:
		if _, recent := c.replica.state.KV().Recent(t.next); !recent {
			c.w.trace.mark(markPast)
		}
		return t.told(l, r, shown)
	}
	c.w.trace.mark(markBookmark)
	if r.Revision < t.header {
		return fmt.Errorf("%v: bookmark %d after header %d", t, r.Revision, t.header)
	}
	t.header = r.Revision
	return t.bookmark(l, r.Revision, shown)
}

// begun is the answer to the oldest creation that has none.
func (c *watcher) begun(r *watch.Response, shown id.Revision) error {
	if c.who != "" && len(c.creating) > 0 && r.Refused != nil {
		t := c.creating[0]
		c.creating = c.creating[1:]
		return c.forbidden(t, r.Refused)
	}
	if len(c.creating) == 0 || r.Refused != nil || c.watches[r.ID] != nil || r.Revision > shown {
		return fmt.Errorf("created: watch %d at %d, refused %v; %d are waited for, the member is at %d", r.ID, r.Revision, r.Refused, len(c.creating), shown)
	}
	t := c.creating[0]
	c.creating = c.creating[1:]
	t.id, t.created, t.header, t.request.Start = r.ID, true, r.Revision, t.next
	if t.next == 0 {
		t.next = r.Revision + 1
	}
	c.watches[r.ID] = t
	return nil
}

// may judges a watch by the users and roles of an index.
func (c *watcher) may(t *watching, index id.Index) error {
	if c.who == "" {
		return nil
	}
	who := rights.Caller{User: c.who, Issued: math.MaxUint64}
	return c.w.ledger.rightsAt(index).Keys(who, rights.Demand{Any: true, Read: []rights.Span{{Key: t.request.Key, End: t.request.End}}})
}

// forbidden judges the word that a watch is not permitted, and wants it no more.
func (c *watcher) forbidden(t *watching, refused error) error {
	for index := t.since; index <= c.replica.applied; index++ {
		if errors.Is(c.may(t, index), refused) {
			t.gone()
			c.wanted = slices.DeleteFunc(c.wanted, func(o *watching) bool { return o == t })
			return nil
		}
	}
	return fmt.Errorf("%v: is refused to %q with %w, which was never so from %d on", t, c.who, refused, t.since)
}

// bookmarks judges one for the whole stream.
func (c *watcher) bookmarks(r *watch.Response, shown id.Revision) error {
	for _, t := range c.wanted {
		if !t.created || t.request.Start > r.Revision {
			continue // it came after the bookmark was asked for
		}
		if err := t.bookmark(c.w.ledger, r.Revision, shown); err != nil {
			return err
		}
	}
	c.w.trace.mark(markBookmark)
	return nil
}

// unsettled returns a watch that has not seen everything, or was not told that it has;
// nil if there is none. One that waits for the future keeps the others of its stream
// from bookmarks that they have not asked for.
func (c *watcher) unsettled() *watching {
	last := c.w.ledger.oracle.Revision()
	future := slices.ContainsFunc(c.wanted, func(t *watching) bool { return t.request.Start > last })
	for _, t := range c.wanted {
		switch {
		case c.may(t, c.w.ledger.last()) != nil:
			return t // it is to end
		case !t.created, t.owed(c.w.ledger, last) != nil:
			return t
		case t.next <= last && (t.request.Progress || !future):
			return t
		}
	}
	return nil
}
