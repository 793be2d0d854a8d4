package server

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
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
//	else               since + grace + TTL, or + what was checkpointed before since
//
// since is when this member learned that it leads in the term that it leads in, and
// had applied all that earlier leaders have said (Member.leads); renewed when the
// lease was granted or last renewed. So a lease never ends before its TTL has passed
// since the latest renewal that anybody was told of: a renewal by an earlier leader
// was confirmed before since (see renewals), and none of this one is before it.
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
	// in which that was noticed, but for the first ordered ones, which are by their
	// IDs. Some may have been renewed since. What is before first has been taken.
	due            []uint32
	first, ordered int
	// held are the renewals of leases whose end or checkpoint is proposed.
	held map[uint32][]renewal
	// noted is how far the present round of checkpoints has come.
	noted int
}

// record is one lease. It has no pointers for the garbage collector to follow.
type record struct {
	command.LeaseName // all zero: the record is free
	ttl               int64
	// remaining is what was checkpointed last, 0 for nothing; former is what it was
	// before the term in, in which this member leads or led.
	remaining, former int64
	in                id.Term
	renewed           atomic.Int64 // an env.Instant
	// filed is the tick of the wheel that will look at it, 0 if none.
	filed  int64
	stage  stage
	weight lease.Weight
}

// stage is how far the end of a lease has come.
type stage uint8

const (
	running stage = iota
	isDue
	// ending: its end is proposed. Nobody can say whether it will be renewed.
	ending
	// noting: what it has left is proposed to be known to the next leader. A renewal
	// of now must be told to that one after it.
	noting
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
	if defect.On(defect.CheckpointIgnored) && renewed < d.since {
		return d.since.Add(d.grace + seconds(r.ttl))
	}
	switch {
	case renewed >= d.since:
		return renewed.Add(seconds(r.ttl))
	case d.term != 0 && r.in == d.term:
		return d.since.Add(d.grace + seconds(cmp.Or(r.former, r.ttl)))
	}
	return d.since.Add(d.grace + seconds(cmp.Or(r.remaining, r.ttl)))
}

// follow takes in what has changed: which leases there are, and who leads. What is to
// be said to those who wait is appended to the results.
func (d *deadlines) follow(now env.Instant, term id.Term, to []ended) []ended {
	to = d.read(now, to)
	if term != d.term { // after the changes: none of them is of a term that begins here
		d.term = term
		if !defect.On(defect.DeadlineOfFollower) {
			d.since = now
		}
	}
	return to
}

// read takes in which leases there are.
func (d *deadlines) read(now env.Instant, to []ended) []ended {
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
				d.set(&changes[i], now)
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
	d.recs, d.free, d.due, d.first, d.ordered, d.noted = nil, nil, nil, 0, 0, 0
	d.wheel.empty()
	return to
}

func (d *deadlines) set(f *lease.Change, now env.Instant) {
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
	if r.remaining != f.Remaining && r.in != d.term {
		r.former, r.in = r.remaining, d.term // what a leader tells the next one is nothing to itself
	}
	r.LeaseName, r.ttl, r.remaining, r.weight = f.LeaseName, f.TTL, f.Remaining, f.Weight
	if tick := d.wheel.tick(now.Add(seconds(cmp.Or(r.remaining, r.ttl)))); (r.stage == running || r.stage == noting) && (r.filed == 0 || tick < r.filed) {
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
	r.remaining, r.former, r.in = 0, 0, 0
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
	if d.term != 0 && end <= now && r.stage != noting {
		r.filed, r.stage = 0, isDue
		d.due = append(d.due, i)
		return
	}
	// If another term of this member begins, it will have this much from then on.
	next := now.Add(seconds(cmp.Or(r.remaining, r.ttl)))
	if d.term != 0 {
		next = min(next, end)
	}
	r.filed = d.wheel.file(i, d.wheel.tick(next))
}

// orderedAtOnce is how many leases that are due are put in order in one go: about a
// millisecond's work.
const orderedAtOnce = 16384

// order puts the first of those that are due in the order of their IDs: facts of
// neighbours lie side by side, and are found and deleted in half the time.
func (d *deadlines) order() {
	type named struct {
		id id.Lease
		i  uint32
	}
	due := d.due[d.first:]
	list := make([]named, min(len(due), orderedAtOnce))
	for k := range list {
		list[k] = named{d.recs[due[k]].ID, due[k]}
	}
	slices.SortFunc(list, func(a, b named) int { return cmp.Compare(a.id, b.id) })
	for k := range list {
		due[k] = list[k].i
	}
	d.ordered = len(list)
}

// waiting is how many leases are due, some of which may have been renewed since.
func (d *deadlines) waiting() int { return len(d.due) - d.first }

// take moves leases that are due to ending, and names them, as long as they fit.
func (d *deadlines) take(now env.Instant, fits func(lease.Weight) bool) (list []command.LeaseName) {
	for ; d.first < len(d.due); d.first++ {
		if d.ordered == 0 {
			d.order()
		}
		i := d.due[d.first]
		switch r := &d.recs[i]; {
		case r.stage != isDue: // it is gone
		case d.term == 0 || d.end(r) > now:
			d.run(i, now)
		case !fits(r.weight):
			return list
		default:
			r.stage = ending
			list = append(list, r.LeaseName)
		}
		d.ordered--
	}
	d.due, d.first, d.ordered = nil, 0, 0
	return list
}

// spare lets leases run whose end is known not to come.
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

// What came of a renewal.
type verdict uint8

const (
	isGone verdict = iota
	isRenewed
	// isHeld: its end or checkpoint is proposed, and the renewal is to be held.
	isHeld
	// isNoted: it is renewed here, but the next leader knows of a checkpoint that
	// must be taken back before anybody is told.
	isNoted
)

// renew renews a lease as of an instant.
func (d *deadlines) renew(name id.Lease, at env.Instant) (of command.LeaseName, ttl int64, v verdict) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	i, known := d.index[name]
	if !known {
		return command.LeaseName{}, 0, isGone
	}
	r := &d.recs[i]
	if (r.stage == ending && !defect.On(defect.RenewedWhileEnding)) || r.stage == noting {
		return command.LeaseName{}, 0, isHeld
	}
	for before := r.renewed.Load(); before < int64(at); before = r.renewed.Load() {
		if r.renewed.CompareAndSwap(before, int64(at)) {
			break
		}
	}
	if r.remaining > 0 && !defect.On(defect.CheckpointKept) {
		return r.LeaseName, r.ttl, isNoted
	}
	return r.LeaseName, r.ttl, isRenewed
}

// note names leases with what they have left, as far as that is less than their TTL
// and this is longer than the time between checkpoints, looking at no more than most;
// more says that the round is not at its end.
func (d *deadlines) note(now env.Instant, every time.Duration, most int) (list []command.LeaseRemaining, more bool) {
	for ; d.noted < len(d.recs) && most > 0 && len(list) < checkpointLeases; most-- {
		r := &d.recs[d.noted]
		d.noted++
		if r.ID == 0 || r.stage != running || seconds(r.ttl) <= every || r.ttl > longest {
			continue
		}
		left := d.end(r).Sub(now)
		remaining := int64((left + time.Second - 1) / time.Second)
		if remaining > 0 && remaining < r.ttl {
			r.stage = noting
			list = append(list, command.LeaseRemaining{LeaseName: r.LeaseName, Remaining: remaining})
		}
	}
	if d.noted < len(d.recs) {
		return list, true
	}
	d.noted = 0
	return list, false
}

// unnote ends the checkpoint of leases: who wanted one renewed meanwhile asks again.
func (d *deadlines) unnote(list []command.LeaseRemaining, to []ended) []ended {
	for _, name := range list {
		i, known := d.index[name.ID]
		if !known || d.recs[i].stage != noting || d.recs[i].Birth != name.Birth {
			continue
		}
		d.recs[i].stage = running
		to = endAll(to, d.held[i], raft.ErrNotLeader)
		delete(d.held, i)
	}
	return to
}

// hold keeps a renewal until it is known whether its lease ends; false if there is
// nothing to wait for any more.
func (d *deadlines) hold(w renewal) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, known := d.index[w.lease]
	if !known || d.recs[i].stage != ending && d.recs[i].stage != noting {
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
