package watch

import (
	"slices"
	"sync"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
)

// cache keeps the latest runs of groups that have several subscriptions, and those
// that were read ahead.
type cache struct {
	mu    sync.Mutex
	queue []*run // oldest first
	bytes int
	// ahead is how many bytes are read ahead. It is halved when a run that was read
	// ahead has to go before anybody has asked for it: then more watches are behind than
	// there is room for. It grows by a quarter with each read for which none had to.
	ahead int
	// reading is how many bytes reads that are under way may keep.
	reading int
	// mean is how many bytes of memory an event took in the latest read.
	mean int
}

// firstMean is what an event is taken for before the first read.
const firstMean = 1 << 10

// find returns the run that has a revision, nil if there is none. take takes it out:
// nobody else will ask for it.
func (c *cache) find(g *group, from id.Revision, take bool) *run {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(g.runs) - 1; i >= 0; i-- {
		r := g.runs[i]
		if r.from > from && !defect.On(defect.GroupSkipsAhead) || from > r.upto {
			continue
		}
		r.used = true
		if take {
			c.queue = slices.DeleteFunc(c.queue, func(other *run) bool { return other == r })
			c.release(r)
			g.forget(r)
		}
		return r
	}
	return nil
}

func (r *run) bytes() int { return 128 + len(r.revisions)*16 + cap(r.events) }

// charge counts what keeping a run takes. A batch counts as a whole as long as any of
// its runs is kept.
func (c *cache) charge(r *run) {
	switch b := r.batch; {
	case b == nil:
		c.bytes += r.bytes()
	case b.runs == 0:
		c.bytes += b.bytes
		fallthrough
	default:
		b.runs++
	}
}

// release is charge of a run that is kept no more.
func (c *cache) release(r *run) {
	switch b := r.batch; {
	case b == nil:
		c.bytes -= r.bytes()
	case b.runs == 1:
		c.bytes -= b.bytes
		fallthrough
	default:
		b.runs--
	}
}

// add keeps a run, and says whether one had to go unread for it.
func (c *cache) add(r *run, most int) (unread bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.group.runs = append(r.group.runs, r)
	r.group.kept.Store(int64(len(r.group.runs)))
	c.queue = append(c.queue, r)
	c.charge(r)
	for c.bytes > most && len(c.queue) > 0 {
		oldest := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.release(oldest)
		if oldest.group.forget(oldest) && oldest.past && !oldest.used {
			unread = true
		}
	}
	return unread
}

// forget takes a run off its group, if it is there; it is among the oldest ones.
func (g *group) forget(r *run) bool {
	i := slices.Index(g.runs, r)
	if i < 0 {
		return false
	}
	g.runs = slices.Delete(g.runs, i, i+1)
	g.kept.Store(int64(len(g.runs)))
	return true
}

// drop forgets a group that has no subscription any more, and its runs.
func (c *cache) drop(g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(g.runs) == 0 {
		return
	}
	c.queue = slices.DeleteFunc(c.queue, func(r *run) bool {
		if r.group == g {
			c.release(r)
		}
		return r.group == g
	})
	g.runs = nil
	g.kept.Store(0)
}

// allowance is how many bytes, and about how many events, are to be read ahead:
// at least least bytes, at most most of all who read at a time. Who has it
// calls readAhead.
func (c *cache) allowance(least, most int) (bytes, events int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = max(min(c.ahead, most), least)
	bytes = max(min(c.ahead, most-c.reading), least)
	c.reading += bytes
	return bytes, max(bytes/max(c.mean, 1), 1)
}

// readAhead keeps runs that were read ahead within an allowance, and learns how much
// memory events take of which so many took bytes.
func (c *cache) readAhead(g *group, list []*run, allowance, events, bytes, most int) {
	unread := false
	for _, r := range list {
		if !r.used || g.shared.Load() {
			unread = c.add(r, most) || unread
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if unread {
		c.ahead /= 2
	} else {
		c.ahead += c.ahead / 4
	}
	c.reading -= allowance
	if events > 0 {
		c.mean = bytes / events
	}
}
