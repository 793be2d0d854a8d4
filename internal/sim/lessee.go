package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// caller makes the calls of one who has leases: writes as clients make them, by call,
// and renewals and questions that the leader answers, by ask. One at a time.
type caller struct {
	w      *world
	rand   *simenv.Rand
	writes *client
	asking *asking
}

// asking is a renewal, or a question how much is left, on its way. It implements
// host.Completions; what comes after it was given up is nobody's.
type asking struct {
	c       *caller
	replica *replica
	run     int
	lease   id.Lease
	began   env.Instant
	giveUp  env.Instant
	result  host.Result
	ended   bool
}

// Push implements host.Completions.
func (a *asking) Push(r host.Result) {
	if a.ended {
		a.c.w.fail("a renewal of lease %d is answered twice", a.lease)
	}
	a.ended, a.result = true, r
}

// firstCaller is the number of the first client that belongs to a caller.
const firstCaller = 100

func newCaller(w *world, n int) caller {
	return caller{w: w, rand: w.env.Rand(fmt.Sprintf("caller %d", n)), writes: newClient(w, firstCaller+n)}
}

// busy says that a call is under way.
func (c *caller) busy() bool { return c.writes.current != nil || c.asking != nil }

// due is when the call under way goes on.
func (c *caller) due() env.Instant {
	switch a := c.asking; {
	case a == nil:
		return c.writes.due()
	case a.ended || a.replica.host == nil || a.replica.runs != a.run:
		return 0
	default:
		return a.giveUp
	}
}

// write begins a write at some member, if that is up.
func (c *caller) write(request command.Body) bool {
	c.writes.begin(c.w.pick(c.rand), draft{request: request})
	return c.writes.current != nil
}

// ask begins a renewal, or a question, at some member, if that is up.
func (c *caller) ask(lease id.Lease, renew bool) {
	if r := c.w.pick(c.rand); r != nil && r.host != nil {
		c.askAt(r, lease, renew)
	}
}

func (c *caller) askAt(r *replica, lease id.Lease, renew bool) {
	w := c.w
	timeout := w.swarm.load.timeout
	a := &asking{c: c, replica: r, run: r.runs, lease: lease, began: w.env.Now(), giveUp: w.env.Now().Add(timeout)}
	c.asking = a
	w.trace.fold(eventCall, uint64(c.writes.id), uint64(lease), uint64(r.member))
	w.trace.tell(w.env.Now(), "%v -> %v  lease %d: renew %v", c.writes, r, lease, renew)
	call := host.Call{To: a, Deadline: r.process.Clock.Now().Add(timeout)}
	r.guard(func() {
		if renew {
			r.services.LeaseRenew(call, lease)
		} else {
			r.services.LeaseTimeToLive(call, lease)
		}
	})
	r.wake()
}

// goOn takes the call under way on; the result is that of ask, if one has ended.
func (c *caller) goOn() {
	if c.asking == nil {
		c.writes.act()
		return
	}
	a := c.asking
	c.asking = nil
	w, l := c.w, &c.w.ledger.tenures
	err, found := a.result.Err, false
	switch answer := a.result.Response.(type) {
	case *server.LeaseRenewed:
		found = true
		if w.check(c.writes, l.told(a.lease, a.began, true)); w.failure == nil {
			l.renewed(a.lease, a.began)
		}
	case *server.LeaseLeft:
		found = true
		w.check(c.writes, l.left(a.lease, a.began, answer))
	default:
		if a.ended && errors.Is(err, command.ErrLeaseNotFound) {
			w.check(c.writes, l.told(a.lease, a.began, false))
		}
	}
	upto := w.env.Now()
	if !a.ended { // it may wait for its turn yet, at the leader or at a member that is paused
		upto = max(upto.Add(w.swarm.load.timeout), w.pausedUntil())
	}
	l.tried(a.lease, upto)
	w.trace.fold(eventReturn, uint64(c.writes.id), uint64(a.lease), digestString(fmt.Sprint(found, err)))
	w.trace.tell(w.env.Now(), "%v <- %v  lease %d: found %v, %v, answered %v", c.writes, a.replica, a.lease, found, err, a.ended)
}

// pausedUntil is when every member that is paused now goes on; it may lie in the past.
func (w *world) pausedUntil() (until env.Instant) {
	for _, r := range w.replicas {
		until = max(until, r.machine.BusyUntil())
	}
	return until
}

// left judges how much a lease is said to have left.
func (l *tenures) left(lease id.Lease, began env.Instant, answer *server.LeaseLeft) error {
	if err := l.told(lease, began, true); err != nil {
		return err
	}
	t := l.lives[lease]
	if t.granted >= began {
		return nil // it may be of the life before
	}
	least := l.earliest(t).Sub(l.now()) - 2*time.Second // cut to seconds, and as of a little earlier
	most := l.most(seconds(t.ttl)+l.grace) + time.Second
	if got := seconds(answer.Remaining); answer.Granted != t.ttl || got < least || got > most {
		return fmt.Errorf("lease %d of %d s is said to have %d of %d s left; at least %v, at most %v", lease, t.ttl, answer.Remaining, answer.Granted, least, most)
	}
	return nil
}

// lessee is a client with leases: it grants them, keeps some alive and lets others
// go, hangs keys on them, and asks about them.
type lessee struct {
	caller
	id     int
	held   []*holding
	made   int
	wakeAt env.Instant
}

// holding is a lease as its client sees it.
type holding struct {
	lease id.Lease
	ttl   int64
	// renewals is how often it is still to be renewed, renewAt when next.
	renewals int
	renewAt  env.Instant
}

func newLessee(w *world, n int) *lessee {
	return &lessee{caller: newCaller(w, n), id: n}
}

// due is when the client can do something.
func (c *lessee) due() env.Instant {
	switch {
	case c.busy():
		return c.caller.due()
	case c.w.calm:
		return env.Never
	}
	due := c.wakeAt
	for _, h := range c.held {
		if h.renewals > 0 {
			due = min(due, h.renewAt)
		}
	}
	return due
}

// act does the next thing: renewals first.
func (c *lessee) act() {
	now := c.w.env.Now()
	if c.busy() {
		c.goOn()
		return
	}
	for _, h := range c.held {
		if h.renewals > 0 && h.renewAt <= now {
			h.renewals--
			h.renewAt = now.Add(c.pause(h))
			c.ask(h.lease, true)
			return
		}
	}
	c.wakeAt = now.Add(around(c.rand, c.w.swarm.leases.pause))
	c.forget()
	if len(c.held) == 0 || len(c.held) < 3 && c.rand.OneIn(4) {
		c.grant()
		return
	}
	c.use(c.held[c.rand.Intn(len(c.held))])
}

// pause draws the time between two renewals.
func (c *lessee) pause(h *holding) time.Duration {
	return around(c.rand, seconds(h.ttl)*time.Duration(c.w.swarm.leases.every)/1000)
}

// forget drops leases whose end has been seen by anybody: their IDs may come again.
func (c *lessee) forget() {
	c.held = slices.DeleteFunc(c.held, func(h *holding) bool {
		t := c.w.ledger.tenures.lives[h.lease]
		return t != nil && t.over != 0 && c.rand.OneIn(3)
	})
}

func (c *lessee) grant() {
	s := &c.w.swarm.leases
	h := &holding{lease: id.Lease(1 + c.id*4 + c.made%4), ttl: 1 + c.rand.Int64N(s.ttl)}
	c.made++
	if c.rand.Int64N(1000) < s.kept {
		h.renewals = 1 + c.rand.Intn(20)
	}
	h.renewAt = c.w.env.Now().Add(c.pause(h))
	if c.write(&command.LeaseGrant{ID: h.lease, TTL: h.ttl}) {
		c.held = slices.DeleteFunc(c.held, func(o *holding) bool { return o.lease == h.lease })
		c.held = append(c.held, h)
	}
}

// use does something with a lease.
func (c *lessee) use(h *holding) {
	key := fmt.Appendf(nil, "l%d", c.rand.Int64N(c.w.swarm.load.keys+2))
	switch n := c.rand.Intn(20); {
	case n < 9:
		c.write(&command.PutRequest{Key: key, Value: c.writes.load.value(), Lease: h.lease, PrevKV: c.rand.OneIn(4)})
	case n < 11: // the key lives on without its lease
		c.write(&command.PutRequest{Key: key, Value: c.writes.load.value()})
	case n < 12:
		c.write(&command.PutRequest{Key: key, Value: c.writes.load.value(), IgnoreLease: true})
	case n < 13:
		c.write(&command.DeleteRangeRequest{Key: key})
	case n < 15:
		c.write(&command.LeaseRevoke{ID: h.lease})
	case n < 17:
		c.ask(h.lease, false)
	case n < 18:
		c.ask(h.lease, true)
	default:
		c.look(h)
	}
}

// look asks a member that has applied everything for its leases and for the keys of
// one.
func (c *lessee) look(h *holding) {
	w, r := c.w, c.w.pick(c.rand)
	if r == nil || r.host == nil || r.applied != w.ledger.last() {
		return
	}
	var list []id.Lease
	var keys [][]byte
	var err error
	r.guard(func() {
		as := r.services.As(w.master())
		if list, err = as.Leases(); err == nil {
			keys, err = as.LeaseKeys(h.lease)
		}
	})
	if w.failure != nil || r.host == nil || r.flipped != nil {
		return
	}
	slices.Sort(list)
	if want := w.ledger.oracle.Leases(); !slices.Equal(list, want) {
		w.fail("%v lists the leases %v, there are %v", r, list, want)
	}
	if want := w.ledger.oracle.Attached(h.lease); err != nil || fmt.Sprintf("%q", keys) != fmt.Sprintf("%q", want) {
		w.fail("%v lists the keys of lease %d as %q, %v; there are %q", r, h.lease, keys, err, want)
	}
}
