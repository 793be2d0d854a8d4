package sim

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// locker takes the lock as the concurrency recipe does: a key of a lease of its own
// in the queue, created by a txn; the key that was created first holds the lock. What
// the holder does is guarded by its key. It believes that it holds the lock for as
// long as its lease lives by a clock that is right.
type locker struct {
	caller
	step   lockStep
	lease  id.Lease
	made   int
	key    []byte
	came   id.Revision // when its key was created
	writes int         // that the holder is to make
	wakeAt env.Instant
}

type lockStep int

const (
	lockIdle lockStep = iota
	lockGranted
	lockQueued
	lockHeld
	lockLeaving
)

func newLocker(w *world, n int) *locker {
	c := &locker{caller: newCaller(w, 100+n)}
	c.caller.writes.told = c.told
	return c
}

// due is when the client can do something.
func (c *locker) due() env.Instant {
	switch {
	case c.busy():
		return c.caller.due()
	case c.w.calm:
		return env.Never
	}
	return c.wakeAt
}

// act takes the next step.
func (c *locker) act() {
	if c.busy() {
		c.goOn()
		return
	}
	c.wakeAt = c.w.env.Now().Add(around(c.rand, c.w.swarm.leases.pause))
	if c.step > lockGranted && c.rand.OneIn(3) {
		c.ask(c.lease, true)
		return
	}
	switch c.step {
	case lockIdle:
		c.made++
		c.lease = id.Lease(1000*(c.caller.writes.id+1) + c.made)
		c.write(&command.LeaseGrant{ID: c.lease, TTL: 1 + c.rand.Int64N(c.w.swarm.leases.ttl)})
	case lockGranted:
		c.key = fmt.Appendf(nil, "%s%d", queuePrefix, c.lease)
		c.write(&command.TxnRequest{
			Compares: []command.Compare{{Key: c.key, Target: command.CompareCreate}},
			Success:  []command.Op{{Put: &command.PutRequest{Key: c.key, Lease: c.lease}}},
			Failure:  []command.Op{{Range: &command.RangeRequest{Key: c.key}}},
		})
	case lockQueued:
		c.caller.writes.begin(c.w.pick(c.rand), draft{request: &command.RangeRequest{Key: []byte(queuePrefix), End: []byte(queueEnd)}})
	case lockHeld:
		c.writes--
		c.write(&command.TxnRequest{
			Compares: []command.Compare{{Key: c.key, Target: command.CompareCreate, Number: int64(c.came)}},
			Success:  []command.Op{{Put: &command.PutRequest{Key: []byte(fencedKey), Value: fmt.Append(nil, int64(c.came))}}},
		})
	case lockLeaving:
		c.leave()
	}
}

// leave gives the lock up, in one of three ways.
func (c *locker) leave() {
	c.step = lockIdle
	switch c.rand.Intn(3) {
	case 0:
		c.write(&command.DeleteRangeRequest{Key: c.key})
	case 1:
		c.write(&command.LeaseRevoke{ID: c.lease})
	}
}

// told takes an answer; nil is none.
func (c *locker) told(request, response any) {
	switch c.step {
	case lockIdle:
		if _, granted := response.(*command.LeaseGrantResponse); granted {
			c.step = lockGranted
		}
	case lockGranted:
		c.entered(response)
	case lockQueued:
		c.queued(response)
	case lockHeld:
		txn, answered := response.(*command.TxnResponse)
		switch {
		case answered && !txn.Succeeded:
			c.step = lockIdle // it has been lost
		case c.writes <= 0:
			c.step = lockLeaving
		}
	}
}

// entered: the key is in the queue; or nobody knows, and the txn is made again.
func (c *locker) entered(response any) {
	txn, answered := response.(*command.TxnResponse)
	switch {
	case !answered:
		if t := c.w.ledger.tenures.lives[c.lease]; t == nil || t.over != 0 {
			c.step = lockIdle
		}
	case txn.Succeeded:
		c.step, c.came = lockQueued, txn.Responses[0].Put.Revision
	case len(txn.Responses[0].Range.KVs) == 1:
		c.step, c.came = lockQueued, txn.Responses[0].Range.KVs[0].CreateRevision
	}
}

// queued looks who came first.
func (c *locker) queued(response any) {
	list, answered := response.(*command.RangeResponse)
	if !answered {
		return
	}
	first, present := true, false
	for _, kv := range list.KVs {
		present = present || kv.CreateRevision == c.came && string(kv.Key) == string(c.key)
		first = first && kv.CreateRevision >= c.came
	}
	switch {
	case !present:
		c.step = lockIdle
	case first:
		c.step, c.writes = lockHeld, 1+c.rand.Intn(4)
		c.w.trace.mark(markLocked)
		c.w.trace.tell(c.w.env.Now(), "%v holds the lock, since revision %d", c.caller.writes, c.came)
		c.w.check(c.caller.writes, c.w.excludes(c))
	}
}

// excludes judges that nobody else believes to hold the lock, when one begins to.
func (w *world) excludes(now *locker) error {
	for _, c := range w.lockers {
		if c == now || c.step != lockHeld && c.step != lockLeaving {
			continue
		}
		l := &w.ledger.tenures
		t := l.lives[c.lease]
		if t.over == 0 && w.ledger.events.live[string(c.key)].CreateRevision != c.came {
			continue // a client has deleted its key
		}
		if until := l.earliest(t); w.env.Now() < until {
			return fmt.Errorf("holds the lock since revision %d, and %v holds it since %d until %v at least", now.came, c.caller.writes, c.came, until)
		}
	}
	return nil
}
