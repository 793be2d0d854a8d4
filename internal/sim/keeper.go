package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// keeper is the operator of a world where room is scarce. It looks at the alarms, lets
// them be for a while, and then does what etcd's guide says: deletes, compacts, has a
// member defragment, disarms; sometimes it disarms first. It raises alarms by hand too.
// In the calm it goes on until no alarm is in force.
type keeper struct {
	w       *world
	rand    *simenv.Rand
	current *talk
	wakeAt  env.Instant
	// still: it does nothing of its own accord.
	still bool
}

func newKeeper(w *world) *keeper { return &keeper{w: w, rand: w.env.Rand("keeper")} }

func (k *keeper) String() string { return "the keeper" }

func (k *keeper) hangUp() {
	if k.current != nil {
		k.current.hangUp()
	}
}

func (k *keeper) due() env.Instant {
	switch {
	case k.current != nil:
		return k.current.due()
	case k.still, k.w.calm && len(k.w.ledger.alarms.now) == 0:
		return env.Never
	}
	return k.wakeAt
}

func (k *keeper) act() {
	if k.current != nil {
		if k.current.goOn() {
			k.current = nil
		}
		return
	}
	pause := k.w.swarm.space.keep
	if k.w.calm {
		pause = 20 * time.Millisecond
	}
	k.wakeAt = k.w.env.Now().Add(around(k.rand, pause))
	k.begins(k.w.pick(k.rand), k.look)
}

func (k *keeper) begins(r *replica, say func(*talk)) {
	if r == nil || r.host == nil {
		return
	}
	k.current = newTalk(k.w, k.String(), r, say)
	if k.current.goOn() {
		k.current = nil
	}
}

// look looks at the alarms through a member, and does something about them.
func (k *keeper) look(t *talk) {
	w, r := k.w, t.replica
	if _, err := t.await(r.services.Barrier); err != nil {
		return
	}
	list := slices.Clone(r.services.Alarms())
	w.check(r, r.judgeAlarms(r.applied))
	s := &w.swarm.space
	switch {
	case w.failure != nil:
	case !w.calm && s.byHand > 0 && k.rand.Int64N(1000) < s.byHand:
		// A member that there is, or one that there is not.
		a := command.Alarm{Member: id.Member(k.rand.Intn(len(w.replicas) + 2)), Type: oneOf(k.rand, command.AlarmNoSpace, command.AlarmNoSpace, command.AlarmCorrupt, 7, command.AlarmNone)}
		k.runs(t, &command.AlarmRaise{Alarm: a})
	case len(list) == 0:
	case !w.calm && k.rand.OneIn(3): // it lasts
	case k.rand.OneIn(4):
		if k.disarm(t, list) {
			k.tidy(t)
		}
	default:
		if k.tidy(t) {
			k.disarm(t, list)
		}
	}
}

// runs makes a call; it is false if the talk is over.
func (k *keeper) runs(t *talk, body command.Body) bool {
	_, err := k.w.newErrand(k.String(), t, body).run()
	return !errors.Is(err, errHungUp) && k.w.failure == nil
}

// tidy frees what spenders have written, and waits until one member has removed it.
func (k *keeper) tidy(t *talk) bool {
	services := t.replica.services
	if !k.runs(t, &command.DeleteRangeRequest{Key: []byte(spentFirst), End: []byte(spentEnd)}) {
		return false
	}
	to := services.Revision()
	if !k.runs(t, &command.CompactRequest{Revision: to}) {
		return false
	}
	enough := services.HurryRemoval()
	defer enough()
	for range 100 {
		if _, removed := services.Removal(); removed >= to {
			break
		}
		if !t.rest(5 * time.Millisecond) {
			return false
		}
	}
	return true
}

// disarm ends alarms one by one.
func (k *keeper) disarm(t *talk, list []command.Alarm) bool {
	for _, a := range list {
		if !k.runs(t, &command.AlarmDisarm{Alarm: a}) {
			return false
		}
		k.w.trace.mark(markDisarmed)
	}
	return true
}

// spaceHolds has a healed group run out of room and find the way back: somebody writes at
// a member until there is no room, its alarm is told, every member refuses growth and
// takes deletions; who disarms first is left alone; and when room was given back everybody
// may write again. With back-pressure the alarm ends by itself.
func (w *world) spaceHolds() {
	s := &w.swarm.space
	if !s.some() || w.failure != nil {
		return
	}
	end := w.env.Now().Add(w.calmBound())
	calm := func() bool { return len(w.ledger.alarms.now) == 0 && w.keeper.current == nil }
	if w.await(end, "no alarm is in force", calm); w.failure != nil {
		return
	}
	w.keeper.still = true
	r := oneOf(w.keeper.rand, w.voters()...)
	if s.backPressure {
		w.alarmEnds(end, r)
	} else {
		w.fills(end, r)
	}
	w.keeper.still = false
	w.await(end, "no alarm is in force any more", calm)
}

// voters are the members that must serve.
func (w *world) voters() (list []*replica) {
	for _, r := range w.replicas {
		if w.serves(r) && r.host != nil {
			list = append(list, r)
		}
	}
	return list
}

// present are all that belong to the group, learners too.
func (w *world) present() (list []*replica) {
	for _, r := range w.replicas {
		if w.ledger.conf().Conf.Has(r.member) && r.host != nil {
			list = append(list, r)
		}
	}
	return list
}

// fills fills a member: what he writes himself it admits up to its quota, what another one
// has admitted may lead beyond.
func (w *world) fills(end env.Instant, r *replica) {
	c := w.spenders[0]
	beyond := w.keeper.rand.OneIn(2)
	full := func() bool { return anyAlarm(w.ledger.alarms.now, command.AlarmNoSpace) }
	for w.failure == nil && !full() {
		switch over := func() bool { return r.bytes() >= r.room.quota }; {
		case beyond && over() && r.room.beyond: // unless removal is faster than its next look
			w.await(end, "the alarm of who is beyond his quota is told", func() bool { return full() || !over() })
		case beyond && r.bytes()+2*bigBytes >= r.room.quota:
			w.puts(end, r, c.big())
		case c.insist(end, r, func() command.Body { return c.big() }):
			w.await(end, "the alarm is told to who was refused", full)
		}
	}
	// A learner that lags finds out later than others that it is full, too.
	w.rest(end)
	w.looks()
	for _, m := range w.voters() {
		if w.failure == nil && !c.insist(end, m, func() command.Body { return c.put() }) {
			w.fail("%v takes more while an alarm is in force: %v", m, w.ledger.alarms.now)
		}
		if w.failure == nil && c.insist(end, m, func() command.Body { return c.deletion() }) {
			w.fail("%v refuses a deletion for want of space", m)
		}
	}
	w.keeps(end, r, func(t *talk) { w.keeper.disarm(t, slices.Clone(w.ledger.alarms.now)) })
	ended := w.ledger.last()
	grew := func(m *replica) bool { return m.room.grown > ended } // a locker's call may have been under way
	if w.looks(); w.failure == nil && full() && !slices.ContainsFunc(w.present(), grew) {
		w.fail("alarms are back, though nothing has grown since they were ended: %v", w.ledger.alarms.now)
	}
	var upto id.Revision
	w.keeps(end, r, func(t *talk) { w.keeper.tidy(t); upto = w.ledger.oracle.Compacted() })
	for _, m := range w.present() {
		w.await(end, fmt.Sprintf("%v has removed everything up to %d", m, upto), func() bool {
			_, removed := m.services.Removal()
			return removed >= upto
		})
	}
	w.keeps(end, r, func(t *talk) { w.keeper.disarm(t, slices.Clone(w.ledger.alarms.now)) })
	// What grows at one before another has removed is right to bring the other's alarm back.
	if slices.ContainsFunc(w.present(), func(m *replica) bool { return m.bytes()+2000 >= m.room.quota }) {
		return
	}
	for _, m := range w.voters() {
		if w.failure == nil && c.insist(end, m, func() command.Body { return c.put() }) {
			w.fail("%v refuses what there is room for again: it holds %d of %d bytes, the alarms are %v", m, m.bytes(), m.room.quota, w.ledger.alarms.now)
		}
	}
}

// puts has somebody else write, past admission, whatever comes of it.
func (w *world) puts(end env.Instant, r *replica, request *command.PutRequest) {
	k := w.clients[0]
	k.begin(r, draft{request: request})
	w.await(end, fmt.Sprintf("%v answers %v", r, k), func() bool { return k.current == nil })
	w.runUntil(min(end, w.env.Now().Add(w.swarm.heartbeat)), nil)
	if w.failure == nil && w.env.Now() >= end {
		w.fail("no progress %v after the faults stopped: %v holds %d of %d bytes", w.calmBound(), r, r.bytes(), r.room.quota)
	}
}

// alarmEnds raises a member's alarm by hand.
func (w *world) alarmEnds(end env.Instant, r *replica) {
	w.keeps(end, r, func(t *talk) { w.keeper.tidy(t) })
	if w.failure != nil || r.bytes() >= r.room.quota/100*80 {
		return
	}
	a := command.Alarm{Member: r.member, Type: command.AlarmNoSpace}
	w.keeps(end, r, func(t *talk) { w.keeper.runs(t, &command.AlarmRaise{Alarm: a}) })
	w.await(end, fmt.Sprintf("the alarm of %v ends by itself", r), func() bool { return !slices.Contains(w.ledger.alarms.now, a) })
}

// keeps has the keeper do something at a member.
func (w *world) keeps(end env.Instant, r *replica, say func(*talk)) {
	if w.failure != nil {
		return
	}
	w.await(end, "the keeper has time", func() bool { return w.keeper.current == nil })
	w.keeper.begins(r, say)
	w.await(end, fmt.Sprintf("%v answers the keeper", r), func() bool { return w.keeper.current == nil })
}

// looks lets time pass in which every member looks at what it holds.
func (w *world) looks() { w.runUntil(w.env.Now().Add(400*time.Millisecond), nil) }
