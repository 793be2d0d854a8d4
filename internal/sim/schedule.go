package sim

import (
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/raft"
)

// stage is one of a host's stages as the schedule sees it.
type stage struct {
	env.Turner
	// ready says that something may have arrived since its last turn found nothing.
	ready bool
	// due is when it wants a turn although nothing arrives, in true time.
	due env.Instant
}

// runnable is something that could happen now.
type runnable struct {
	kind    runKind
	replica *replica
	n       int
}

type runKind uint8

const (
	runTurn runKind = iota
	runTask
	runSync
	runDelivery
	runClient
	runFault
	runStart
	runOperator
	runOverseer
	runActor
	runExpire
	runSpace
)

// maxSteps ends a world that never comes to rest at one time.
const maxSteps = 4_000_000

// runUntil lets things happen until a time, or until done says so.
func (w *world) runUntil(end env.Instant, done func() bool) {
	var choices []runnable
	for w.failure == nil && w.env.Now() < end && (done == nil || !done()) {
		choices = w.choices(choices[:0])
		if len(choices) == 0 {
			w.env.AdvanceTo(max(w.env.Now(), min(end, w.nextDue())))
			continue
		}
		w.happen(choices[w.rand.Intn(len(choices))])
		w.env.AdvanceTo(w.env.Now() + 1 + env.Instant(w.rand.Int64N(int64(w.swarm.turnCost))))
		if w.steps++; w.steps > maxSteps {
			w.fail("the world does not come to rest: %d steps", w.steps)
		}
	}
}

// choices lists all that could happen now.
func (w *world) choices(list []runnable) []runnable {
	now := w.env.Now()
	for _, r := range w.replicas {
		if r.host == nil {
			if r.startAt <= now {
				list = append(list, runnable{runStart, r, 0})
			}
			continue
		}
		if r.syncDue() <= now {
			list = append(list, runnable{runSync, r, 0})
		}
		if r.machine.BusyUntil() > now {
			continue
		}
		if r.expireAt <= now {
			list = append(list, runnable{runExpire, r, 0})
		}
		if r.room.due <= now {
			list = append(list, runnable{runSpace, r, 0})
		}
		for i := range r.stages {
			if s := &r.stages[i]; s.ready || s.due <= now {
				list = append(list, runnable{runTurn, r, i})
			}
		}
		for i := range r.process.Tasks.Pending() {
			list = append(list, runnable{runTask, r, i})
		}
	}
	if w.network.nextDue() <= now {
		list = append(list, runnable{kind: runDelivery})
	}
	for i, c := range w.clients {
		if c.due() <= now {
			list = append(list, runnable{runClient, nil, i})
		}
	}
	for i, o := range w.operators {
		if o.due() <= now {
			list = append(list, runnable{runOperator, nil, i})
		}
	}
	for i, a := range w.actors {
		if a.due() <= now {
			list = append(list, runnable{runActor, nil, i})
		}
	}
	if w.overseer.next <= now {
		list = append(list, runnable{kind: runOverseer})
	}
	if w.faults.nextDue() <= now {
		list = append(list, runnable{kind: runFault})
	}
	return list
}

// nextDue is when the next thing can happen if nothing can now.
func (w *world) nextDue() env.Instant {
	next := min(w.network.nextDue(), w.faults.nextDue(), w.overseer.next)
	for _, r := range w.replicas {
		if r.host == nil {
			next = min(next, r.startAt)
			continue
		}
		next = min(next, r.syncDue())
		idle := min(r.expireAt, r.room.due)
		for i := range r.stages {
			if r.stages[i].ready {
				idle = 0
			}
			idle = min(idle, r.stages[i].due)
		}
		if r.process.Tasks.Pending() > 0 {
			idle = 0
		}
		next = min(next, max(idle, r.machine.BusyUntil()))
	}
	for _, c := range w.clients {
		next = min(next, c.due())
	}
	for _, o := range w.operators {
		next = min(next, o.due())
	}
	for _, a := range w.actors {
		next = min(next, a.due())
	}
	return max(next, w.env.Now()+1)
}

// happen does one of the choices.
func (w *world) happen(c runnable) {
	r := c.replica
	switch c.kind {
	case runTurn:
		r.turn(c.n)
	case runTask:
		w.trace.fold(eventTask, uint64(r.member), uint64(c.n))
		w.trace.tellDetail(w.env.Now(), "%v task %s", r, r.process.Tasks.Name(c.n))
		r.guard(func() { r.process.Tasks.RunOne(c.n) })
		r.wake()
	case runSync:
		w.trace.fold(eventSync, uint64(r.member))
		w.trace.tellDetail(w.env.Now(), "%v sync done", r)
		r.guard(func() { r.machine.Disk().CompleteDue(w.env.Now()) })
		r.wake()
	case runDelivery:
		w.network.deliver()
	case runClient:
		w.clients[c.n].act()
	case runFault:
		w.faults.strike()
	case runStart:
		r.start()
	case runOperator:
		w.operators[c.n].act()
	case runOverseer:
		w.overseer.act()
	case runActor:
		w.actors[c.n].act()
	case runExpire:
		r.expire()
	case runSpace:
		r.keepSpace()
	}
	for _, r := range w.replicas {
		r.afterwards()
	}
}

// syncDue is when the first sync of the disk completes; while the disk is slow,
// none does.
func (r *replica) syncDue() env.Instant {
	due := r.machine.Disk().NextDue()
	if due == env.Never {
		return due
	}
	return max(due, r.slowUntil)
}

// expire lets the time of leases go on.
func (r *replica) expire() {
	var again env.Instant
	r.guard(func() { again = r.services.Expire() })
	r.w.trace.fold(eventExpire, uint64(r.member), uint64(again))
	if r.host != nil {
		if s := r.group.Status(); s.Role == raft.Leader && r.state.Mark().Term == s.Hard.Term {
			r.w.ledger.tenures.rules(s.Hard.Term)
		}
		r.expireAt = r.process.Clock.WorldTime(again)
		r.wake()
	}
}

// turn gives a stage its turn.
func (r *replica) turn(i int) {
	s := &r.stages[i]
	worked, wake := false, env.Never
	r.guard(func() { worked, wake = s.Turn(r.process.Clock.Now()) })
	r.w.trace.fold(eventTurn, uint64(r.member), uint64(i), uint64(wake))
	if r.host == nil {
		return // the turn was its last
	}
	s.ready, s.due = false, r.process.Clock.WorldTime(wake)
	if worked {
		r.wake()
	}
}

// wake makes every stage look for work: something has arrived.
func (r *replica) wake() {
	for i := range r.stages {
		r.stages[i].ready = true
	}
}

// patience is how much longer than promised a call may take before the world
// says that it will never end.
const patience = 3 * time.Second
