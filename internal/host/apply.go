package host

import (
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// applier is the third stage: committed entries go into the machines, results go
// to the calls that wait for them.
type applier struct {
	h       *Host
	queue   queue[toApply]
	batch   []raft.Entry
	results []ended
}

// toApply is one order to the applier: exactly one field besides g is set.
type toApply struct {
	g       *Group
	entries []raft.Entry
	install *incoming
	freeze  freezing
	flush   bool
}

// applyState is what the applier knows of one group.
type applyState struct {
	todo []toApply
	// term is that of the last entry applied.
	term id.Term
	// freezes wait for the end of a flush.
	freezes []freezing
	flushing
}

// One turn applies at most about this much of a group, so that results leave and
// others get their turn.
const (
	applyBytes   = 1 << 20
	applyEntries = 1024
)

// Turn implements env.Turner.
func (a *applier) Turn(now env.Instant) (worked bool, wake env.Instant) {
	did, more, wake := a.turn(now)
	return did || more, wake
}

func (a *applier) turn(now env.Instant) (did, more bool, wake env.Instant) {
	wake = env.Never
	if a.h.failed() {
		return false, false, wake
	}
	items := a.queue.take()
	for i := range items {
		g := items[i].g
		g.apply.todo = append(g.apply.todo, items[i])
	}
	if len(items) > 0 {
		a.queue.give(items)
	}
	for _, g := range a.h.groups {
		if len(g.apply.todo) > 0 {
			did = true
			a.next(g, now)
			more = more || len(g.apply.todo) > 0
		}
		if a.h.failed() {
			return did, false, env.Never
		}
		worked, due := g.machine.Turn(now)
		if a.lookDurable(g, now) {
			did = true
		}
		if a.freeze(g) {
			did = true
		}
		more = more || worked
		wake = min(wake, due, g.apply.wake())
	}
	if a.h.failed() {
		return did, false, env.Never
	}
	return did, more, wake
}

// next does the oldest order of a group, or as many entries as one turn allows.
func (a *applier) next(g *Group, now env.Instant) {
	todo := g.apply.todo
	first := todo[0]
	if len(first.entries) > 0 {
		a.apply(g)
		return
	}
	g.apply.todo = append(todo[:0], todo[1:]...)
	switch {
	case first.install != nil:
		a.install(g, first.install)
	case first.freeze != nil:
		a.beginFreeze(g, first.freeze, now)
	case first.flush:
		a.startFlush(g, now)
	}
}

// take removes from the front of the orders the entries of one turn.
func (a *applier) take(s *applyState) []raft.Entry {
	taken, bytes := 0, 0
	var only []raft.Entry
	a.batch = a.batch[:0]
	for taken < len(s.todo) && len(s.todo[taken].entries) > 0 {
		entries := s.todo[taken].entries
		n := 0
		for n < len(entries) && (bytes == 0 || bytes+len(entries[n].Data) <= applyBytes) && len(a.batch)+len(only)+n < applyEntries {
			bytes += entryWeight + len(entries[n].Data)
			n++
		}
		switch {
		case n == 0:
		case taken == 0:
			only = entries[:n]
		default:
			if only != nil {
				a.batch = append(a.batch, only...)
				only = nil
			}
			a.batch = append(a.batch, entries[:n]...)
		}
		if n < len(entries) {
			s.todo[taken].entries = entries[n:]
			break
		}
		taken++
	}
	rest := copy(s.todo, s.todo[taken:])
	clear(s.todo[rest:])
	s.todo = s.todo[:rest]
	if only != nil {
		return only
	}
	return a.batch
}

// apply applies what one turn may, and ends the calls that waited for it.
func (a *applier) apply(g *Group) {
	entries := a.take(&g.apply)
	begun := a.h.opts.Clock.Now()
	outcomes, err := g.machine.Apply(entries)
	if err != nil {
		a.h.fail(err)
		return
	}
	a.measureApply(g, begun, entries, len(outcomes))
	last := entries[len(entries)-1]
	weight := weightOf(entries)
	// Visible before acknowledged: readers go by this index.
	g.lastDone.Store(uint64(last.Index))
	g.backlog.Add(-int64(weight))
	g.apply.unseen += int64(weight)

	var count, bytes int
	a.results, count, bytes = g.pending.settle(a.results, outcomes, a.h.opts.Member, a.h.boot)
	g.admitted(-count, -bytes)
	if last.Term > g.apply.term {
		g.apply.term = last.Term
		a.lose(g, last.Term)
	}
	a.results = g.changes.settle(a.results, entries, outcomes)
	a.visible(g, last.Index)
	clear(a.batch)
}

// lose lets what is known to be lost be proposed again (rule 13).
func (a *applier) lose(g *Group, term id.Term) {
	var count, bytes int
	var again bool
	a.results, count, bytes, again = g.pending.lose(a.results, term)
	a.h.measured.FailedProposals.Add(uint64(count))
	g.admitted(-count, -bytes)
	if again {
		a.h.stepper.inbox.report(report{kind: reportLook, g: g})
	}
}

// visible ends the reads whose index is visible now, pushes all results, and
// tells the stepper.
func (a *applier) visible(g *Group, index id.Index) {
	var count int
	a.results, count = g.reads.applied(a.results, index)
	g.questions.Add(-int64(count))
	push(a.results)
	a.results = recycle(a.results)
	a.h.stepper.inbox.report(report{kind: reportApplied, g: g, index: index})
	a.h.mark(stepStage)
}
