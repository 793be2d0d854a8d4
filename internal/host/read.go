package host

import (
	"sync"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
)

// reads are the linearizable reads of one group that wait. All that wait in one
// turn share one read of raft (rule 11):
//
//	waiting --asked of raft--> asked --index confirmed--> confirmed --applied--> ended
//	   ^                         |
//	   +-------------------------+  the leader changed: a read that was not
//	                                answered may always be asked again
//
// The stepper moves them on, the applier ends those whose index is applied.
type reads struct {
	mu        sync.Mutex
	waiting   []Call
	asked     []*readBatch
	confirmed []*readBatch
	free      []*readBatch
	next      id.Seq
	live      int
	// No deadline is before earliest.
	earliest env.Instant
}

// readBatch is the calls that share one read of raft.
type readBatch struct {
	seq   id.Seq
	index id.Index
	since env.Instant // it was asked of raft
	calls []Call
}

func (r *reads) init() { r.next, r.earliest = 1, env.Never }

func (r *reads) add(c Call) {
	r.mu.Lock()
	r.waiting = append(r.waiting, c)
	r.live++
	r.earliest = min(r.earliest, deadlineOf(c))
	r.mu.Unlock()
}

// ask moves all that wait into one batch and returns its sequence; 0 if none
// waits.
func (r *reads) ask(now env.Instant) id.Seq {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		return 0
	}
	b := r.batch()
	b.seq, b.since = r.next, now
	r.next++
	b.calls, r.waiting = r.waiting, b.calls
	r.asked = append(r.asked, b)
	return b.seq
}

func (r *reads) batch() *readBatch {
	n := len(r.free)
	if n == 0 {
		return &readBatch{}
	}
	b := r.free[n-1]
	r.free = r.free[:n-1]
	return b
}

// release keeps an ended batch for use again.
func (r *reads) release(b *readBatch) {
	b.calls = recycle(b.calls)
	b.seq, b.index = 0, 0
	r.free = append(r.free, b)
}

// again puts the calls of a batch back among those that wait.
func (r *reads) again(seq id.Seq) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.takeAsked(seq); b != nil {
		r.waiting = append(r.waiting, b.calls...)
		r.release(b)
	}
}

func (r *reads) takeAsked(seq id.Seq) *readBatch {
	for i, b := range r.asked {
		if b.seq == seq {
			r.asked = append(r.asked[:i], r.asked[i+1:]...)
			return b
		}
	}
	return nil
}

// confirm says that a batch may look once index is applied, which isApplied
// knows; what may look at once is appended to the results. since is when it was
// asked; env.Never for one that is not known.
func (r *reads) confirm(to []ended, seq id.Seq, index id.Index, isApplied func() id.Index) (results []ended, count int, since env.Instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.takeAsked(seq)
	if b == nil {
		return to, 0, env.Never
	}
	b.index, since = index, b.since
	// Asked under the lock: the applier publishes its index before it takes it.
	if index <= isApplied() || defect.On(defect.ServeReadAtOnce) {
		results, count = r.endBatch(to, b, nil)
		return results, count, since
	}
	r.confirmed = append(r.confirmed, b)
	return to, 0, since
}

func (r *reads) endBatch(to []ended, b *readBatch, err error) (results []ended, count int) {
	for _, c := range b.calls {
		to = append(to, ended{c.To, Result{Tag: c.Tag, Index: b.index, Err: err}})
	}
	count = len(b.calls)
	r.live -= count
	r.release(b)
	return to, count
}

// applied ends the batches whose index is applied.
func (r *reads) applied(to []ended, index id.Index) (results []ended, count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	keep := r.confirmed[:0]
	for _, b := range r.confirmed {
		if b.index > index {
			keep = append(keep, b)
			continue
		}
		var n int
		to, n = r.endBatch(to, b, nil)
		count += n
	}
	clear(r.confirmed[len(keep):])
	r.confirmed = keep
	return to, count
}

// expire ends the calls whose deadline has passed.
func (r *reads) expire(to []ended, now env.Instant) (results []ended, count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now < r.earliest {
		return to, 0
	}
	r.earliest = env.Never
	expired := func(calls []Call) []Call {
		keep := calls[:0]
		for _, c := range calls {
			if d := deadlineOf(c); d > now {
				r.earliest = min(r.earliest, d)
				keep = append(keep, c)
				continue
			}
			to = append(to, ended{c.To, Result{Tag: c.Tag, Err: ErrTimeout}})
			count++
		}
		clear(calls[len(keep):])
		return keep
	}
	r.waiting = expired(r.waiting)
	for _, b := range r.asked {
		b.calls = expired(b.calls)
	}
	for _, b := range r.confirmed {
		b.calls = expired(b.calls)
	}
	r.live -= count
	return to, count
}

// endAll ends every call.
func (r *reads) endAll(to []ended, err error) (results []ended, count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	batches := append(r.asked, r.confirmed...)
	batches = append(batches, &readBatch{calls: r.waiting})
	r.asked, r.confirmed, r.waiting = nil, nil, nil
	for _, b := range batches {
		var n int
		to, n = r.endBatch(to, b, err)
		count += n
	}
	return to, count
}

// wake is when a deadline may have passed.
func (r *reads) wake() env.Instant {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == 0 {
		return env.Never
	}
	return r.earliest
}
