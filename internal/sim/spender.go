package sim

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// spender is a client who writes through the services as the doors do, where room is
// scarce. It has keys of its own, s..., and what it writes is unlike everything else.
type spender struct {
	w       *world
	rand    *simenv.Rand
	id      int
	current *talk
	errand  *errand
	made    int
	wakeAt  env.Instant
}

// The keys of spenders, which the keeper deletes.
const spentFirst, spentEnd = "s", "t"

func newSpender(w *world, n int) *spender {
	return &spender{w: w, rand: w.env.Rand(fmt.Sprintf("spender %d", n)), id: n}
}

func (c *spender) String() string { return fmt.Sprintf("spender %d", c.id) }

func (c *spender) hangUp() {
	if c.current != nil {
		c.current.hangUp()
	}
}

func (c *spender) due() env.Instant {
	switch {
	case c.current != nil:
		return c.current.due()
	case c.w.calm:
		return env.Never
	}
	return c.wakeAt
}

func (c *spender) act() {
	if c.current == nil {
		c.wakeAt = c.w.env.Now().Add(around(c.rand, c.w.swarm.space.pause))
		c.begins(c.w.pick(c.rand), func(t *talk) { _, _ = c.runs(t, c.draw(t)) })
		return
	}
	if c.current.goOn() {
		c.current, c.errand = nil, nil
	}
}

// begins begins to talk with a member, if that is up.
func (c *spender) begins(r *replica, say func(*talk)) {
	if r == nil || r.host == nil {
		return
	}
	c.current = newTalk(c.w, c.String(), r, say)
	if c.current.goOn() {
		c.current, c.errand = nil, nil
	}
}

// runs makes one call.
func (c *spender) runs(t *talk, body command.Body) (host.Result, error) {
	c.errand = c.w.newErrand(c.String(), t, body)
	return c.errand.run()
}

func (c *spender) key() []byte { return fmt.Appendf(nil, "%s%d", spentFirst, c.rand.Intn(6)) }

// put writes something large, big something of about bigBytes.
func (c *spender) put() *command.PutRequest { return c.sized(c.rand.Intn(1000)) }
func (c *spender) big() *command.PutRequest { return c.sized(bigBytes) }

const bigBytes = 1600

func (c *spender) sized(n int) *command.PutRequest {
	c.made++
	value := fmt.Appendf(nil, "%v.%d", c, c.made)
	return &command.PutRequest{Key: c.key(), Value: append(value, bytes.Repeat([]byte("$"), n)...)}
}

func (c *spender) deletion() *command.DeleteRangeRequest {
	if c.rand.OneIn(3) {
		return &command.DeleteRangeRequest{Key: []byte(spentFirst), End: []byte(spentEnd)}
	}
	return &command.DeleteRangeRequest{Key: c.key()}
}

// draw draws a request: those that cost, wherever it is that they do, and those that do
// not.
func (c *spender) draw(t *talk) command.Body {
	switch n := c.rand.Intn(20); {
	case n < 8:
		return c.put()
	case n < 10:
		return &command.TxnRequest{Success: []command.Op{{Put: c.put()}}}
	case n < 12: // in a branch of a txn in a branch that is not taken
		inner := &command.TxnRequest{Success: []command.Op{{Delete: c.deletion()}}, Failure: []command.Op{{Put: c.put()}}}
		return &command.TxnRequest{Success: []command.Op{{Range: &command.RangeRequest{Key: c.key()}}}, Failure: []command.Op{{Txn: inner}}}
	case n < 14:
		return c.deletion()
	case n < 16:
		return &command.TxnRequest{Success: []command.Op{{Delete: c.deletion()}}}
	case n < 17:
		return &command.CompactRequest{Revision: t.replica.services.Revision()}
	case n < 19 && c.w.swarm.leases.some():
		c.made++
		return &command.LeaseGrant{ID: c.lease(c.made), TTL: 1 + c.rand.Int64N(2)}
	case c.w.swarm.leases.some():
		return &command.LeaseRevoke{ID: c.lease(c.made - c.rand.Intn(4))}
	}
	if c.rand.OneIn(2) {
		return c.deletion()
	}
	invalid := c.put() // for want of space he is told of that
	invalid.Key = nil
	return invalid
}

// lease is the ID of a lease that is granted once.
func (c *spender) lease(n int) id.Lease { return id.Lease(1_000_000*(c.id+1) + max(n, 0)) }

// insist makes calls at a member until one comes to an end that is certain: done, or
// refused for want of space.
func (c *spender) insist(end env.Instant, r *replica, draw func() command.Body) (refused bool) {
	for certain := false; !certain && c.w.failure == nil; {
		if r.host == nil || c.w.env.Now() >= end {
			c.w.fail("no progress %v after the faults stopped: %v does not answer %v%s", c.w.calmBound(), r, c, c.w.standing())
			return false
		}
		c.begins(r, func(t *talk) {
			_, err := c.runs(t, draw())
			refused = errors.Is(err, command.ErrNoSpace)
			if certain = err == nil || refused; !certain {
				t.rest(c.w.swarm.heartbeat)
			}
		})
		c.w.await(end, fmt.Sprintf("%v answers %v", r, c), func() bool { return c.current == nil })
	}
	return refused
}
