package server

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/lease"
)

// deadlines is the clock of the leases: the facts below, followed by their feed, and
// when each lease ends as this member sees it. Every member keeps one, so that
// becoming leader costs nothing per lease; only the leader's says when a lease ends.
//
// When a lease ends follows from three numbers, none of which is touched at a change
// of the leader:
//
//	renewed >= since   renewed + TTL
//	else               since + grace + TTL, or + what was checkpointed
//
// since is when this member learned that it leads in the term that it leads in, and
// renewed when the lease was granted or last renewed. So a lease never ends before
// its TTL has passed since the latest renewal that anybody was told of: a renewal by
// an earlier leader was confirmed before since (see renewals), and none of this one
// is before it.
//
// Renewals take mu for reading, everything else for writing and for a bounded time.
type deadlines struct {
	grace time.Duration

	mu    sync.RWMutex
	feed  *lease.Feed
	index map[id.Lease]uint32
	recs  []record
	free  []uint32
	wheel wheel
	// term is the one in which this member leads, 0 if it does not.
	term  id.Term
	since env.Instant
	// due are leases whose time is over and whose end is not proposed, in the order
	// in which that was noticed. Some may have been renewed since.
	due []uint32
	// held are the renewals of leases whose end is proposed.
	held map[uint32][]renewal
}

// record is one lease. It has no pointers for the garbage collector to follow.
type record struct {
	command.LeaseName // all zero: the record is free
	ttl, remaining    int64
	renewed           atomic.Int64 // an env.Instant
	// filed is the tick of the wheel that will look at it, 0 if none.
	filed int64
	stage stage
}

// stage is how far the end of a lease has come.
type stage uint8

const (
	running stage = iota
	isDue
	// ending: its end is proposed. Nobody can say whether it will be renewed.
	ending
)

func newDeadlines(feed *lease.Feed, grace time.Duration, now env.Instant) *deadlines {
	d := &deadlines{grace: grace, feed: feed, index: map[id.Lease]uint32{}, held: map[uint32][]renewal{}}
	d.wheel.start = now
	return d
}

// longest is what a TTL counts as at most: some 95 years.
const longest = 3_000_000_000

func seconds(n int64) time.Duration { return time.Duration(min(n, longest)) * time.Second }

// end is when a lease ends, if this member leads. Both locks will do.
func (d *deadlines) end(r *record) env.Instant {
	renewed := env.Instant(r.renewed.Load())
	switch {
	case renewed >= d.since:
		return renewed.Add(seconds(r.ttl))
	case r.remaining > 0:
		return d.since.Add(d.grace + seconds(r.remaining))
	}
	return d.since.Add(d.grace + seconds(r.ttl))
}

// follow takes in what has changed: who leads, and which leases there are. What is
// to be said to those who wait is appended to the results.
func (d *deadlines) follow(now env.Instant, term id.Term, to []ended) []ended {
	if term != d.term {
		d.term, d.since = term, now
	}
	for {
		changes, anew, ok := d.feed.Next()
		if !ok {
			return to
		}
		if anew {
			to = d.clear(to)
		}
		for i := range changes {
			if changes[i].Gone {
				to = d.remove(changes[i].LeaseName, to)
			} else {
				d.set(&changes[i].Facts, now)
			}
		}
	}
}

// clear forgets every lease: a snapshot brings others. Who waits may ask again.
func (d *deadlines) clear(to []ended) []ended {
	for _, i := range slices.Sorted(maps.Keys(d.held)) {
		to = endAll(to, d.held[i], raft.ErrNotLeader)
	}
	clear(d.held)
	clear(d.index)
	d.recs, d.free, d.due = nil, nil, nil
	d.wheel.empty()
	return to
}

func (d *deadlines) set(f *lease.Facts, now env.Instant) {
	i, known := d.index[f.ID]
	if !known {
		if n := len(d.free); n > 0 {
			i, d.free = d.free[n-1], d.free[:n-1]
		} else {
			i = uint32(len(d.recs))
			d.recs = append(d.recs, record{})
		}
		d.index[f.ID] = i
		d.recs[i].renewed.Store(int64(now))
	}
	r := &d.recs[i]
	r.LeaseName, r.ttl, r.remaining = f.LeaseName, f.TTL, f.Remaining
	within := seconds(r.ttl)
	if r.remaining > 0 {
		within = seconds(r.remaining)
	}
	if tick := d.wheel.tick(now.Add(within)); r.stage == running && (r.filed == 0 || tick < r.filed) {
		r.filed = d.wheel.file(i, tick)
	}
}

func (d *deadlines) remove(name command.LeaseName, to []ended) []ended {
	i, known := d.index[name.ID]
	if !known {
		return to
	}
	to = endAll(to, d.held[i], command.ErrLeaseNotFound)
	delete(d.held, i)
	delete(d.index, name.ID)
	r := &d.recs[i]
	r.LeaseName, r.filed, r.stage = command.LeaseName{}, 0, running
	d.free = append(d.free, i)
	return to
}

// turn moves the wheel on and finds what is due, looking at no more than most
// leases. more says that there are others to look at.
func (d *deadlines) turn(now env.Instant, most int) (more bool) {
	for {
		for slot := d.wheel.slot(); len(*slot) > 0; most-- {
			if most == 0 {
				return true
			}
			last := len(*slot) - 1
			i := (*slot)[last]
			*slot = (*slot)[:last]
			d.look(i, now)
		}
		if !d.wheel.next(now) {
			return false
		}
	}
}

// look files a lease anew, or finds that it is due. An entry of the wheel may be of
// an earlier filing, or of another lease that had the place.
func (d *deadlines) look(i uint32, now env.Instant) {
	if int(i) >= len(d.recs) || d.recs[i].filed != d.wheel.now {
		return
	}
	r := &d.recs[i]
	end := d.end(r)
	switch {
	case d.term == 0: // it will have all of its time, or what is left of it, from some later instant on
		within := seconds(r.ttl)
		if r.remaining > 0 {
			within = seconds(r.remaining)
		}
		r.filed = d.wheel.file(i, d.wheel.tick(now.Add(within)))
	case end > now:
		r.filed = d.wheel.file(i, d.wheel.tick(end))
	default:
		r.filed, r.stage = 0, isDue
		d.due = append(d.due, i)
	}
}

// take moves up to most leases that are due to ending, and names them.
func (d *deadlines) take(now env.Instant, most int) (list []command.LeaseName) {
	taken := 0
	for ; taken < len(d.due) && len(list) < most; taken++ {
		r := &d.recs[d.due[taken]]
		switch {
		case r.stage != isDue: // it is gone
		case d.term == 0 || d.end(r) > now:
			d.run(d.due[taken], now)
		default:
			r.stage = ending
			list = append(list, r.LeaseName)
		}
	}
	d.due = d.due[taken:]
	if len(d.due) == 0 {
		d.due = nil
	}
	return list
}

// spare undoes take for leases whose end was not proposed, or is known not to come.
func (d *deadlines) spare(list []command.LeaseName, now env.Instant, to []ended) []ended {
	for _, name := range list {
		i, known := d.index[name.ID]
		if !known || d.recs[i].stage != ending || d.recs[i].Birth != name.Birth {
			continue
		}
		d.run(i, now)
		to = endAll(to, d.held[i], raft.ErrNotLeader)
		delete(d.held, i)
	}
	return to
}

// run files a lease whose end does not come, for the next tick.
func (d *deadlines) run(i uint32, now env.Instant) {
	r := &d.recs[i]
	r.stage = running
	r.filed = d.wheel.file(i, d.wheel.tick(now))
}

// renew renews a lease as of an instant. held says that it cannot be said yet:
// the end of the lease is proposed, and the renewal is to be held.
func (d *deadlines) renew(name id.Lease, at env.Instant) (ttl int64, held, known bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	i, known := d.index[name]
	if !known {
		return 0, false, false
	}
	r := &d.recs[i]
	if r.stage == ending {
		return 0, true, true
	}
	for {
		before := r.renewed.Load()
		if before >= int64(at) || r.renewed.CompareAndSwap(before, int64(at)) {
			return r.ttl, false, true
		}
	}
}

// hold keeps a renewal until it is known whether its lease ends; false if there is
// nothing to wait for any more.
func (d *deadlines) hold(w renewal) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, known := d.index[w.lease]
	if !known || d.recs[i].stage != ending {
		return false
	}
	d.held[i] = append(d.held[i], w)
	return true
}

// left tells what a lease has left, in whole seconds, and what it was granted.
func (d *deadlines) left(name id.Lease, now env.Instant) (remaining, granted int64, known bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	i, known := d.index[name]
	if !known {
		return 0, 0, false
	}
	r := &d.recs[i]
	remaining = max(int64(d.end(r).Sub(now)/time.Second), 0)
	if r.ttl > longest {
		remaining += r.ttl - longest
	}
	return remaining, r.ttl, true
}

// all lists the leases, those that end first at the front; a member that does not
// lead cannot know and lists them by their numbers.
func (d *deadlines) all() []id.Lease {
	d.mu.RLock()
	defer d.mu.RUnlock()
	type leaseAt struct {
		lease id.Lease
		end   env.Instant
	}
	list := make([]leaseAt, 0, len(d.index))
	for i := range d.recs {
		if r := &d.recs[i]; r.ID != 0 {
			list = append(list, leaseAt{r.ID, 0})
			if d.term != 0 {
				list[len(list)-1].end = d.end(r)
			}
		}
	}
	slices.SortFunc(list, func(a, b leaseAt) int { return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.lease, b.lease)) })
	names := make([]id.Lease, len(list))
	for i := range list {
		names[i] = list[i].lease
	}
	return names
}

// ended is a call and what it ends with: results are pushed without a lock.
type ended struct {
	call host.Call
	err  error
}

func endAll(to []ended, list []renewal, err error) []ended {
	for i := range list {
		to = append(to, ended{list[i].call, err})
	}
	return to
}
