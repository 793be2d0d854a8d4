package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// errand is a call through a member's services where room is scarce, with all that its
// answer is judged by (spec 6.4):
//
//	growth     is refused by a member without room, and while an alarm is in force; then
//	           it was never done, and gets into the log only if the alarm came after it
//	refusals   are right at a moment between call and answer
//	the rest   what costs nothing is never refused for want of space
type errand struct {
	w    *world
	who  string
	t    *talk
	body command.Body
	// low is the first index that a refusal may be of, at when the call was made.
	low id.Index
	at  env.Instant
	// full and scarce say that the member had no room by its quota or on its disk when it
	// was asked. What can change that is a removal, or a state from elsewhere.
	full, scarce bool
	removed      int64
	forgotten    id.Index
	// peak is the most that the member has held since.
	peak int64
}

func (w *world) newErrand(who string, t *talk, body command.Body) *errand {
	r := t.replica
	e := &errand{
		w: w, who: who, t: t, body: body, low: w.ledger.last(), at: w.env.Now(), removed: r.freed(), forgotten: r.forgotten,
		peak: r.bytes(), scarce: body.Cost() > 0 && r.room.low,
	}
	e.full = body.Cost() > 0 && e.peak+body.Cost() >= r.room.quota
	t.known = r.applied
	w.trace.fold(eventCall, 1<<35, t.number, uint64(r.member))
	w.trace.tell(w.env.Now(), "%s -> %v (%d)  %s", who, r, t.number, model.Text(body))
	return e
}

// run makes the call and judges the answer.
func (e *errand) run() (host.Result, error) {
	as := e.t.replica.services.As(e.w.master())
	result, err := e.t.await(func(call host.Call) {
		switch b := e.body.(type) {
		case *command.PutRequest:
			as.Put(call, b)
		case *command.DeleteRangeRequest:
			as.DeleteRange(call, b)
		case *command.TxnRequest:
			as.Txn(call, b)
		case *command.CompactRequest:
			as.Compact(call, b)
		case *command.LeaseGrant:
			as.LeaseGrant(call, b)
		case *command.LeaseRevoke:
			as.LeaseRevoke(call, b.ID)
		default:
			as.ChangeAlarm(call, b)
		}
	})
	if errors.Is(err, errHungUp) {
		return result, err
	}
	w := e.w
	w.trace.fold(eventReturn, 1<<35, e.t.number, uint64(result.Index), digestString(answerText(result.Response, err)))
	w.trace.tell(w.env.Now(), "%s <- %v (%d)  index %d, %s", e.who, e.t.replica, e.t.number, result.Index, answerText(result.Response, err))
	if wrong := e.judge(result, err); wrong != nil {
		w.fail("%s: %.200s: %v", e.who, model.Text(e.body), wrong)
	}
	return result, err
}

func (e *errand) judge(result host.Result, err error) error {
	l := e.w.ledger
	switch took := e.t.told.Sub(e.t.asked); {
	case took > e.w.longest():
		return fmt.Errorf("it took %v, where calls may take %v", took, e.w.swarm.load.timeout)
	case result.Index != 0:
		return e.placed(result, err)
	case err == nil:
		return errors.New("it was acknowledged, but not where")
	case errors.Is(err, command.ErrNoSpace):
		return e.noSpace()
	case errors.Is(err, command.ErrCorrupt):
		if !isKV(e.body) || !l.alarmedIn(command.AlarmCorrupt, e.low, l.last()) {
			return fmt.Errorf("it is refused with %w, which is never so from %d on", err, e.low)
		}
		e.w.trace.mark(markAlarmed)
	}
	return nil
}

// never is longer than any world.
const never = 1000 * time.Hour

// longest is how long a call may take: the time for one, and again for the alarm that a
// refused one waits for. Where members stand still now and then it is not judged.
func (w *world) longest() time.Duration {
	if f := &w.swarm.faults; f.pause > 0 || f.stall > 0 {
		return never
	}
	return w.swarm.load.timeout*11/5 + 300*time.Millisecond
}

// placed judges the answer to what is in the log: where it was applied the ledger has
// judged it, here it is whether it should have got there.
func (e *errand) placed(result host.Result, err error) error {
	l, r := e.w.ledger, e.t.replica
	if _, wrong := l.answered(rights.Root, e.body, result); wrong != nil {
		return wrong
	}
	if result.Index <= e.low {
		return fmt.Errorf("it was applied at %d, before it was asked for at %d", result.Index, e.low)
	}
	if errors.Is(err, command.ErrNoSpace) || errors.Is(err, command.ErrCorrupt) {
		e.w.trace.mark(markStopped)
		for index := e.t.known; stops(l.alarmsAt(index), e.body); index++ {
			if index == result.Index-1 {
				return fmt.Errorf("it is in the log at %d, and alarms have stopped it from index %d on, which its member had applied: %v", result.Index, e.t.known, l.alarmsAt(index))
			}
		}
	}
	switch unchanged := r.freed() == e.removed && r.forgotten == e.forgotten; {
	case err != nil || e.body.Cost() == 0:
	case e.full && unchanged:
		return fmt.Errorf("it is done at %d; its member has a quota of %d bytes and held %d when it was asked", result.Index, r.room.quota, r.bytes())
	case e.scarce && r.room.low && r.room.over < e.at:
		return fmt.Errorf("it is done at %d, and the disk of its member has had less left than its reserve all the time", result.Index)
	}
	return nil
}

// noSpace judges a refusal before anything was proposed.
func (e *errand) noSpace() error {
	l, r, cost := e.w.ledger, e.t.replica, e.body.Cost()
	switch {
	case cost == 0:
		return errors.New("it costs nothing, and is refused for want of space")
	case l.alarmedIn(command.AlarmNoSpace, e.low, l.last()):
		e.w.trace.mark(markAlarmed)
	case e.peak+cost >= r.room.quota:
	case e.scarce || r.room.low || r.room.over >= e.at:
	default:
		return fmt.Errorf("it is refused for want of space: there was no alarm from %d on, %v has held %d of %d bytes at most, and its disk has room", e.low, r, e.peak, r.room.quota)
	}
	if e.full {
		e.w.trace.mark(markFull)
	}
	if e.scarce {
		e.w.trace.mark(markScarce)
	}
	text := model.Text(e.body)
	l.alarms.refused[text] = e.who
	for _, p := range l.commands {
		if p.index > e.low && p.err == nil && p.name == "" && sameRequest(p.request, e.body) {
			return fmt.Errorf("it is refused for want of space, and was done at %d", p.index)
		}
	}
	return nil
}
