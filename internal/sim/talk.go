package sim

import (
	"errors"
	"iter"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
)

// talk is what one client and one member say to each other, written as a door has it:
// one thing after the other, waiting in between. It runs on a coroutine, which goes on
// when the schedule says so and never beside anything else; the world stays one
// sequence of events. It implements host.Completions.
type talk struct {
	w       *world
	name    string
	number  uint64
	replica *replica
	run     int
	next    func() (struct{}, bool)
	stop    func()
	pause   func(struct{}) bool

	// began is the last index that anyone had applied when the talk began, known the last
	// one that the member had.
	began, known id.Index
	// waiting is for an answer, resting until restUntil for nothing.
	waiting   bool
	restUntil env.Instant
	tag       uint64
	result    host.Result
	answered  bool
	// asked and told are when the latest call was made and answered.
	asked, told env.Instant
	giveUp      env.Instant
}

// errHungUp is what a talk hears whose member has died.
var errHungUp = errors.New("sim: connection lost")

// newTalk begins to talk with a member; nothing is said yet.
func newTalk(w *world, name string, r *replica, say func(*talk)) *talk {
	w.talks++
	t := &talk{w: w, name: name, number: w.talks, replica: r, run: r.runs, began: w.ledger.last(), known: r.applied}
	t.next, t.stop = iter.Pull(func(pause func(struct{}) bool) {
		t.pause = pause
		say(t)
	})
	return t
}

// lost says that the member has died.
func (t *talk) lost() bool { return t.replica.host == nil || t.replica.runs != t.run }

// due is when the talk goes on.
func (t *talk) due() env.Instant {
	switch {
	case t.lost():
		return 0
	case !t.waiting || t.answered:
		return t.restUntil
	}
	return max(t.giveUp, t.replica.machine.BusyUntil().Add(patience))
}

// goOn goes on until the talk waits again; over says that it has ended.
func (t *talk) goOn() (over bool) {
	if t.lost() {
		t.hangUp()
		return true
	}
	if t.waiting && !t.answered {
		t.w.fail("%s: a call at %v never ended", t.name, t.replica)
		return true
	}
	more := false
	t.replica.guard(func() { _, more = t.next() })
	if t.replica.host != nil {
		t.replica.wake()
	}
	return !more
}

// hangUp ends the talk where it waits.
func (t *talk) hangUp() { t.stop() }

// await starts a call and waits for its result, as the doors do.
func (t *talk) await(start func(host.Call)) (host.Result, error) {
	timeout := t.w.swarm.load.timeout
	t.tag++
	t.waiting, t.answered = true, false
	t.asked = t.w.env.Now()
	t.giveUp = t.asked.Add(timeout + patience)
	start(host.Call{To: t, Tag: t.tag, Deadline: t.replica.process.Clock.Now().Add(timeout)})
	if !t.pause(struct{}{}) {
		return host.Result{}, errHungUp
	}
	t.waiting = false
	return t.result, t.result.Err
}

// rest lets time pass; it is false if the talk is over.
func (t *talk) rest(d time.Duration) bool {
	t.restUntil = t.w.env.Now().Add(d)
	return t.pause(struct{}{})
}

// Push implements host.Completions.
func (t *talk) Push(r host.Result) {
	if t.answered || r.Tag != t.tag {
		t.w.fail("%s: a call has ended twice, or after its member did: %+v", t.name, r)
		return
	}
	t.answered, t.result, t.told = true, r, t.w.env.Now()
}
