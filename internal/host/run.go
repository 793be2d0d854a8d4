package host

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
)

// stage is a Turner as the executor drives it.
type stage interface {
	// turn does a turn. more says that another would find work although nothing
	// arrives, wake when one is due in any case.
	turn(now env.Instant) (did, more bool, wake env.Instant)
}

// executor runs stages on up to as many workers. It conserves work: a worker that
// has ended a turn takes the next stage that is ready, in the order of One Put, so
// that with a single client step, persist and apply run in a row on one goroutine;
// another worker is woken only when a second stage is ready. No stage is ever run
// by two workers at once.
type executor struct {
	clock env.Clock
	run   [stages]stage
	// failed says that a stage has ended the host, crowded that several callers wait.
	failed, crowded func() bool

	mu sync.Mutex
	// ready stages have work, busy ones a worker, called ones a worker on its way;
	// due is when a stage's turn comes in any case.
	ready, busy, called [stages]bool
	due                 [stages]env.Instant
	// idle counts the workers that sleep and were not called.
	idle    int
	stopped bool
	fault   error
	work    sync.Cond
	timer   *time.Timer
	armed   env.Instant
}

func newExecutor(clock env.Clock, run [stages]stage, failed, crowded func() bool) *executor {
	x := &executor{clock: clock, run: run, failed: failed, crowded: crowded, armed: env.Never}
	x.work.L = &x.mu
	for i := range x.ready {
		x.ready[i], x.due[i] = true, env.Never
	}
	return x
}

// wake says that a stage has work that came from outside of a turn. A worker is
// woken unless the stage has one already, who will look again: others may be in a
// sync for a long time.
func (x *executor) wake(stage int) {
	x.mu.Lock()
	x.ready[stage] = true
	x.call(stage)
	x.mu.Unlock()
}

// call wakes a worker for a stage that is ready and has none.
func (x *executor) call(stage int) {
	if !x.busy[stage] && !x.called[stage] && x.idle > 0 {
		x.called[stage] = true
		x.idle--
		x.work.Signal()
	}
}

// mark says that a stage has work that came from the turn which the calling worker
// is in. That worker looks at it next, so nobody is woken.
func (x *executor) mark(stage int) {
	x.mu.Lock()
	x.ready[stage] = true
	x.mu.Unlock()
}

// stop ends the workers after the turns that they are in.
func (x *executor) stop(fault error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fault == nil {
		x.fault = fault
	}
	x.stopped = true
	if x.timer != nil {
		x.timer.Stop()
	}
	x.work.Broadcast()
}

// drive runs the stages until stop is called or a stage fails.
func (x *executor) drive() error {
	var workers sync.WaitGroup
	for range stages {
		workers.Add(1)
		go func() {
			defer workers.Done()
			x.worker()
		}()
	}
	workers.Wait()
	return x.fault
}

// worker takes turns with the stages that are ready, and sleeps when none is.
func (x *executor) worker() {
	defer func() {
		if broken := recover(); broken != nil {
			violation, ok := broken.(invariant.Violation)
			if !ok {
				panic(broken)
			}
			x.stop(violation)
		}
	}()
	last := stages - 1
	x.mu.Lock()
	defer x.mu.Unlock()
	for !x.stopped {
		next, other := x.pick(last)
		if next < 0 {
			x.idle++
			x.work.Wait()
			continue
		}
		x.ready[next], x.busy[next], x.called[next] = false, true, false
		if other >= 0 {
			x.call(other)
		}
		more, due := x.turn(next)
		x.busy[next] = false
		x.ready[next] = x.ready[next] || more
		x.due[next] = due
		x.arm()
		last = next
	}
}

// turn runs one turn without the lock. Where several callers wait, the connections
// that are ready to run go first: whoever wakes a worker is followed by it at once,
// and the turn would find what one connection brought, and not the others.
func (x *executor) turn(next int) (more bool, due env.Instant) {
	x.mu.Unlock()
	defer x.mu.Lock()
	if x.crowded() {
		runtime.Gosched()
	}
	_, more, due = x.run[next].turn(x.clock.Now())
	if x.failed() {
		// The lock is free: stop takes it.
		x.stop(nil)
	}
	return more, due
}

// pick returns the stage after last, in order, that is ready and has no worker;
// -1 if there is none. other is another one.
func (x *executor) pick(last int) (next, other int) {
	next = -1
	for i := 1; i <= stages; i++ {
		s := (last + i) % stages
		if !x.ready[s] || x.busy[s] {
			continue
		}
		if next >= 0 {
			return next, s
		}
		next = s
	}
	return next, -1
}

// arm sets the timer to the earliest due stage. A timer that would fire too early
// is left alone: it fires, finds nothing, and is set again.
func (x *executor) arm() {
	due := env.Never
	for _, d := range x.due {
		due = min(due, d)
	}
	if due >= x.armed || x.stopped {
		return
	}
	x.armed = due
	pause := max(0, due.Sub(x.clock.Now()))
	if x.timer == nil {
		x.timer = time.AfterFunc(pause, x.ring)
	} else {
		x.timer.Reset(pause)
	}
}

// ring makes the stages ready whose time has come.
func (x *executor) ring() {
	now := x.clock.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.armed = env.Never
	for s := range x.due {
		if x.due[s] <= now {
			x.due[s] = env.Never
			x.ready[s] = true
			x.call(s)
		}
	}
	x.arm()
}

// Run drives the stages until ctx ends or a stage fails, then ends every call
// with ErrStopped. The error names what failed; nil after ctx.
func (h *Host) Run(ctx context.Context) error {
	x := newExecutor(h.opts.Clock, [stages]stage{&h.stepper, &h.persister, &h.applier}, h.failed, h.crowded)
	h.executor.Store(x)
	release := context.AfterFunc(ctx, func() { x.stop(nil) })
	defer release()
	err := x.drive()
	h.executor.Store(nil)
	h.endSync()
	h.stop()
	if err == nil {
		err = h.Err()
	}
	if err == nil {
		until := time.Now().Add(flushPatience)
		err = h.flush(func() bool {
			time.Sleep(flushLook)
			return time.Now().Before(until)
		})
	}
	return err
}

// endSync waits for the sync that is under way when the stages have ended: the log may
// not be closed before.
func (h *Host) endSync() {
	p := &h.persister
	for p.progress.Load() == syncUnderWay {
		time.Sleep(flushLook)
	}
	if p.inSync && p.progress.Load() == syncDone {
		p.collect(h.opts.Clock.Now())
	}
}

// How long Run waits for the machines' last flush, and how often it looks.
const (
	flushPatience = 10 * time.Second
	flushLook     = time.Millisecond
)

// crowded says that more callers than one wait for a command: whoever waits alone is
// best served by one goroutine that does step after step and waits for the disk itself.
func (h *Host) crowded() bool {
	commands := int64(0)
	for _, g := range h.groups {
		commands += g.commands.Load()
	}
	return commands > 1
}

// Close flushes the machines as far as that needs no waiting (Run has waited),
// trims, closes the log. No stage runs any more. Of a host that has failed nothing
// is flushed: what the log holds is replayed.
func (h *Host) Close() error {
	var errs []error
	h.stop()
	for _, g := range h.groups {
		errs = append(errs, g.closeTransfers())
	}
	if !h.failed() {
		errs = append(errs, h.flush(func() bool { return false }))
	}
	errs = append(errs, h.opts.Log.Close())
	return errors.Join(errs...)
}

func (h *Host) flush(wait func() bool) error {
	var errs []error
	for _, g := range h.groups {
		if err := g.flush(wait); err != nil {
			errs = append(errs, fmt.Errorf("flush of group %d: %w", g.id, err))
		}
	}
	return errors.Join(errs...)
}

// flush makes all that is applied durable and lets the log go up to there. A
// store that does not get it done while wait is true is no error: the log has it
// all.
func (g *Group) flush(wait func() bool) error {
	target := g.machine.Mark()
	durable, err := g.machine.Durable()
	if err != nil {
		return err
	}
	if durable.Index < target.Index {
		if err := g.machine.StartFlush(); err != nil {
			return err
		}
	}
	for durable.Index < target.Index {
		worked, _ := g.machine.Turn(g.h.opts.Clock.Now())
		if durable, err = g.machine.Durable(); err != nil {
			return err
		}
		if !worked && durable.Index < target.Index && !wait() {
			break
		}
	}
	g.log.moved(durable.Index, 0)
	g.h.persister.retain(0)
	return nil
}
