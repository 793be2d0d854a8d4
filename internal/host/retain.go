package host

import (
	"math"
	"sort"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// The log shrinks in a circle of three (rules 7, 8):
//
//	persister  weighs the log after the store's durable mark, asks for a flush
//	applier    flushes the store, sees the durable mark move, tells the persister
//	persister  lets go of the log before what is still needed, tells the stepper

// pinnedFor is how long entries that the store does not hold durably may keep a
// segment before a flush is asked for (rule 7).
const pinnedFor = 10 * time.Minute

// flushShare is the part of FlushBytes after which the log is weighed, and the
// durable mark looked at, again.
const flushShare = 16

func share(limit int64) int64 { return max(1, limit/flushShare) }

// retention is what the persister knows of the need for one group's log.
type retention struct {
	lastNumber uint64
	// durable is the store's mark, base where the log begins.
	durable, base id.Index
	didMove       bool
	// unweighed are the bytes written since the log was weighed; pinned is since
	// when there is log after the durable mark, Never if there is none.
	unweighed int64
	pinned    env.Instant
	asked     bool
}

// wrote notes that entries go into the log.
func (r *retention) wrote(entries []raft.Entry, now env.Instant) {
	if len(entries) == 0 {
		return
	}
	r.unweighed = min(r.unweighed, math.MaxInt64/2) + int64(weightOf(entries))
	r.pinned = min(r.pinned, now)
}

// moved notes a new durable mark.
func (r *retention) moved(durable id.Index, now env.Instant) {
	if durable > r.durable {
		r.durable = durable
		// More may have come meanwhile than the flush took along.
		r.unweighed = math.MaxInt64
	}
	r.didMove, r.asked = true, false
	r.pinned = now
}

// weigh asks for a flush of the groups that have much log after their mark.
func (p *persister) weigh(now env.Instant) {
	limit := p.h.opts.Limits.FlushBytes
	for _, g := range p.h.groups {
		l := &g.log
		if l.unweighed < share(limit) || l.asked {
			continue
		}
		l.unweighed = 0
		if p.h.opts.Log.BytesAfter(g.id, l.durable) >= limit {
			p.askFlush(g, now)
		}
	}
}

func (p *persister) askFlush(g *Group, now env.Instant) {
	g.log.asked = true
	g.log.pinned = now
	p.h.applier.queue.push(toApply{g: g, flush: true})
	p.h.mark(applyStage)
}

// retain lets go of what is no longer needed, and unpins what lies too long.
func (p *persister) retain(now env.Instant) (worked bool) {
	log := p.h.opts.Log
	for _, g := range p.h.groups {
		l := &g.log
		// The log of a damaged replica is what remembers the damage: it stays until
		// the replica has healed, whatever the store has (rule 5).
		if l.didMove && !g.damaged.Load() {
			l.didMove, worked = false, true
			if log.BytesAfter(g.id, l.durable) == 0 {
				l.pinned = env.Never
			}
			p.house = now // segments may be free now
			p.weigh(now)
			base := log.Retain(g.id, l.durable, p.keepFrom(g))
			g.logged.Store(log.BytesAfter(g.id, base.Index))
			if base.Index > l.base {
				l.base = base.Index
				p.h.stepper.inbox.report(report{kind: reportTrimmed, g: g, base: base})
				p.h.mark(stepStage)
			}
		}
		if l.pinned.Add(pinnedFor) <= now {
			worked = true
			p.askFlush(g, now)
		}
	}
	return worked
}

// keepFrom is the first index that followers may yet want: what is retained, and
// what one that is sent a state will need after it, however much that is. Else a
// store that takes long to send could never be joined under load.
func (p *persister) keepFrom(g *Group) id.Index {
	keep, held := p.retained(g), id.Index(g.held.Load())
	if held == 0 {
		g.hurry.Store(0)
		return keep
	}
	hurry := int64(mostHurry)
	if held >= keep {
		hurry = min(hurry, mostHurry*p.h.opts.Log.BytesAfter(g.id, held-1)/max(1, p.h.opts.Limits.RetainBytes))
	}
	g.hurry.Store(int32(hurry))
	return min(keep, held)
}

// retained is where what is kept in any case begins: after what the store holds
// durably when there is no other member, or when the log has damage that is repaired
// and shall not be met again; else with the last RetainBytes (rule 8).
func (p *persister) retained(g *Group) id.Index {
	l := &g.log
	if g.alone.Load() || p.h.opts.Log.Damage() != nil {
		return l.durable + 1
	}
	if l.durable <= l.base {
		return l.base + 1
	}
	n := sort.Search(int(l.durable-l.base), func(i int) bool {
		return p.h.opts.Log.BytesAfter(g.id, l.base+id.Index(i)) <= p.h.opts.Limits.RetainBytes
	})
	return l.base + id.Index(n) + 1
}

func (p *persister) retainWake() env.Instant {
	wake := env.Never
	for _, g := range p.h.groups {
		wake = min(wake, g.log.pinned.Add(pinnedFor))
	}
	return wake
}

// flushing is what the applier knows of the store's durability.
type flushing struct {
	durable id.Index
	// busy: a flush is under way that makes target durable; look is when to look
	// for it again.
	busy   bool
	target id.Index
	look   env.Instant
	// unseen are the bytes applied since the durable mark was looked at: the store
	// flushes on its own too.
	unseen int64
}

// flushPause is how often the durable mark is looked at while a flush is under
// way: there is no call-back from inside the store (rule 7).
const flushPause = 20 * time.Millisecond

// startFlush begins to make the state durable.
func (a *applier) startFlush(g *Group, now env.Instant) {
	if err := g.machine.StartFlush(); err != nil {
		a.h.fail(err)
		return
	}
	g.apply.busy, g.apply.target, g.apply.look = true, g.machine.Mark().Index, now
}

// lookDurable reads the durable mark back when it may have moved.
func (a *applier) lookDurable(g *Group, now env.Instant) (worked bool) {
	f := &g.apply.flushing
	due := f.busy && f.look <= now
	if !due && f.unseen < share(a.h.opts.Limits.FlushBytes) {
		return false
	}
	f.unseen = 0
	f.look = now.Add(flushPause)
	at, err := g.machine.Durable()
	if err != nil {
		a.h.fail(err)
		return false
	}
	if defect.On(defect.TrimPastDurable) {
		at = g.machine.Mark()
	}
	ended := f.busy && at.Index >= f.target
	f.busy = f.busy && !ended
	if at.Index > f.durable || ended {
		f.durable, worked = at.Index, true
		a.h.persister.queue.push(toPersist{g: g, durable: at.Index})
		a.h.mark(persistStage)
	}
	return worked
}

// freezing is told of a state that was saved, in the applier's turn, or why it could
// not be: it must not wait.
type freezing func(Frozen, error)

// beginFreeze has the store flushed at its leisure before the state is frozen: what
// is then left to be flushed, while the applier waits, is little.
func (a *applier) beginFreeze(g *Group, told freezing, now env.Instant) {
	g.apply.freezes = append(g.apply.freezes, told)
	a.startFlush(g, now)
}

// freeze saves the state for those that wait for it.
func (a *applier) freeze(g *Group) (worked bool) {
	if g.apply.busy || len(g.apply.freezes) == 0 || a.h.failed() {
		return false
	}
	for _, told := range g.apply.freezes {
		told(g.machine.(Snapshots).Freeze())
	}
	g.apply.freezes = nil
	return true
}

// frozenFor hands a saved state to the transfer to a follower.
func (h *Host) frozenFor(g *Group, o *outgoing) freezing {
	return func(frozen Frozen, err error) {
		if o.frozen, o.err = frozen, err; err == nil {
			o.loan = &loan{close: frozen.Close}
		}
		h.stepper.inbox.report(report{kind: reportFrozen, g: g, more: o})
		h.mark(stepStage)
	}
}

// Freeze has the state saved as it will be in a moment, with everything that is
// applied by now, and hands it to told: once, in the applier's turn, where nothing may
// wait. Whoever is told closes the state, before the machine's store is closed. It is
// never told by a host that does not run any more. Errors: what the machine's Freeze
// returns; ErrNoSnapshots.
func (g *Group) Freeze(told func(Frozen, error)) {
	if _, able := g.machine.(Snapshots); !able {
		told(nil, ErrNoSnapshots)
		return
	}
	g.h.applier.queue.push(toApply{g: g, freeze: told})
	g.h.wake(applyStage)
}

func (f *flushing) wake() env.Instant {
	if !f.busy {
		return env.Never
	}
	return f.look
}
