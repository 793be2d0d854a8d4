package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/linear"
)

// settle is the calm: faults stop, everything heals, and within a bounded time
// every member must serve a write and a read and reach the same state. Half of
// the worlds then lose the power of all members at once and settle again.
func (w *world) settle() {
	w.calm = true
	w.faults.end()
	w.converge()
	if w.failure == nil && w.rand.OneIn(2) {
		w.trace.mark(markPowerAll)
		for _, r := range w.replicas {
			r.crash(simenv.PowerCrash, "loses power with all others")
		}
		w.converge()
	}
	w.spaceHolds()
	w.peopleAreKnown()
	w.leasesEnd()
	w.watchesEnd()
}

// peopleAreKnown has everybody whose password is known log in at one member and show the
// token to all.
func (w *world) peopleAreKnown() {
	end := w.env.Now().Add(w.calmBound())
	for _, p := range w.people {
		if w.failure != nil || !w.ledger.rights.now.Enabled || w.admin.passwordOf(p.String()) == "" {
			continue
		}
		p.careful, p.tokens = true, nil
		w.await(end, fmt.Sprintf("%v has a token", p), func() bool {
			if p.current == nil && len(p.tokens) == 0 {
				p.begins(w.pick(p.rand), p.logIn)
			}
			return len(p.tokens) > 0 && p.current == nil
		})
		for _, r := range w.replicas {
			if w.failure == nil && r.host != nil && w.serves(r) {
				p.begins(r, p.call)
				w.await(end, fmt.Sprintf("%v answers %v", r, p), func() bool { return p.current == nil })
			}
		}
	}
}

// leasesEnd waits until all leases have ended, each in its time: nobody renews them.
func (w *world) leasesEnd() {
	l := &w.ledger.tenures
	for l.settled = w.env.Now(); w.failure == nil; {
		t := l.living()
		if t == nil {
			return
		}
		w.runUntil(l.due(t).Add(lateBound+1), func() bool { return t.over != 0 })
		if w.failure == nil && t.over == 0 {
			w.check("in the calm", l.late(t, w.env.Now()))
		}
	}
}

// watchesEnd waits until all watches have seen everything and been told so. That time
// begins when all members have applied the ends of leases, too: one that lacks more than
// its leader remembers is read the log back, at its pace.
func (w *world) watchesEnd() {
	if w.failure == nil {
		w.rest(w.env.Now().Add(w.calmBound()))
	}
	if w.failure != nil {
		return
	}
	var waits *watching
	done := func() bool {
		for _, c := range w.watchers {
			if waits = c.unsettled(); waits != nil {
				return false
			}
		}
		return true
	}
	if w.runUntil(w.env.Now().Add(w.watchBound()), done); w.failure == nil && !done() {
		w.fail("a watch has not seen everything %v after the world came to rest at revision %d, or was not told that it has: %v, next %v",
			w.watchBound(), w.ledger.oracle.Revision(), waits, waits.owed(w.ledger, w.ledger.oracle.Revision()))
	}
}

// watchBound is how long a watch may take at rest.
func (w *world) watchBound() time.Duration {
	return time.Second + 4*w.swarm.watches.tick + w.swarm.watches.stall
}

// keyPatience is how long porcupine may search for the order of one key.
const keyPatience = 300 * time.Millisecond

// calmBound is how long a healed group may take until it serves. States that go row
// by row go at the pace of chunks, some hundred to each who lags, one after the other.
func (w *world) calmBound() time.Duration {
	bound := 20*w.swarm.election + 10*time.Second
	if w.swarm.appendBytes == 1 {
		bound += time.Duration(len(w.replicas)) * 10 * time.Second
	}
	return bound
}

// converge lets calls that are under way end, makes a write and a read at each
// member, and waits until all members have applied all.
func (w *world) converge() {
	end := w.env.Now().Add(w.calmBound())
	w.await(end, "calls end", func() bool { return w.idle() && w.lost == nil })
	for _, r := range w.replicas {
		if !w.serves(r) {
			continue
		}
		key := []byte(fmt.Sprintf("final%d", r.number))
		w.probe(end, r, func() any {
			return &command.PutRequest{Key: key, Value: fmt.Appendf(nil, "%d", w.history.tick())}
		})
		w.probe(end, r, func() any { return &command.RangeRequest{Key: []byte{0}, End: []byte{0}} })
	}
	w.rest(end)
}

// rest waits until all members have applied everything.
func (w *world) rest(end env.Instant) {
	w.await(end, "members reach the same index", func() bool {
		for _, r := range w.replicas {
			if !w.settled(r) {
				return false
			}
		}
		return !w.ledger.conf().Conf.Joint()
	})
}

// serves says whether a member must serve: it votes.
func (w *world) serves(r *replica) bool { return w.ledger.conf().Conf.Votes(r.member) }

// settled says whether a machine is what it has to be in the end: a member that
// has applied everything and goes by the last configuration, or none any more.
func (w *world) settled(r *replica) bool {
	conf := w.ledger.conf()
	switch {
	case !conf.Conf.Has(r.member):
		return r.gone || !r.born
	case r.host == nil || r.applied != w.ledger.last() || r.group.Status().ConfIndex != conf.Index:
		return false
	}
	return r.published || !w.swarm.cluster
}

// await lets the world go on until something is true; it must be by end.
func (w *world) await(end env.Instant, what string, done func() bool) {
	w.runUntil(end, done)
	if w.failure == nil && !done() {
		w.fail("no progress %v after the faults stopped: waiting until %s%s", w.calmBound(), what, w.standing())
	}
}

// probe calls a member until it answers without error.
func (w *world) probe(end env.Instant, r *replica, request func() any) {
	c := w.clients[0]
	for served := false; !served && w.failure == nil && w.serves(r); {
		w.await(end, fmt.Sprintf("%v is up", r), func() bool { return r.host != nil || !w.serves(r) })
		if w.failure != nil || r.host == nil {
			return
		}
		calls := len(w.history.calls)
		c.begin(r, draft{request: request()})
		w.await(end, fmt.Sprintf("%v serves", r), func() bool { return c.current == nil })
		served = len(w.history.calls) > calls && w.history.calls[calls].Err == nil && !w.history.calls[calls].Unknown
		if !served {
			w.runUntil(min(end, w.env.Now().Add(w.swarm.election/4)), nil)
			if w.env.Now() >= end {
				w.fail("no progress %v after the faults stopped: %v does not serve%s", w.calmBound(), r, w.standing())
			}
		}
	}
}

// standing tells how the members stand, for a story.
func (w *world) standing() string {
	text := ""
	for _, r := range w.replicas {
		text += "\n\t" + r.describe()
	}
	if w.swarm.cluster {
		text += fmt.Sprintf("\n\tthe configuration is %+v at %d", w.ledger.conf().Conf, w.ledger.conf().Index)
	}
	return text
}

// judge passes the verdict on a world at rest.
func (w *world) judge() {
	for _, r := range w.replicas {
		if r.host != nil {
			r.guard(func() { w.check(r, r.judge()) })
		}
	}
	if w.failure != nil {
		return
	}
	all := w.history.resolved(w.ledger)
	for _, op := range all {
		if op.Return == linear.Forever && op.Place != 0 {
			w.trace.mark(markUnknownApplied)
		}
	}
	if _, err := linear.CheckOrder(all); err != nil {
		w.fail("not linearizable: %v", err)
		return
	}
	// What leases end is nobody's call: their keys are not searched for an order.
	all = slices.DeleteFunc(all, func(op linear.Operation) bool { return op.Client < 0 || op.Client >= firstCaller })
	givenUp, err := linear.CheckKeys(all, keyPatience)
	if err != nil {
		w.fail("%v", err)
	}
	if givenUp > 0 {
		w.trace.mark(markGivenUp)
	}
}
