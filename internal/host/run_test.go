package host

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
)

// wallClock is a clock for tests of the executor.
type wallClock struct{ start time.Time }

func (c wallClock) Now() env.Instant { return env.Instant(time.Since(c.start)) }
func (c wallClock) Wall() time.Time  { return time.Now() }

// fakeStage hands items on to the next stage and checks that it has one worker.
type fakeStage struct {
	t      *testing.T
	inTurn atomic.Bool
	queue  queue[int]
	turns  atomic.Int64
	do     func(items []int, now env.Instant) (more bool, wake env.Instant)
}

func (f *fakeStage) turn(now env.Instant) (did, more bool, wake env.Instant) {
	if f.inTurn.Swap(true) {
		f.t.Error("two workers are in one stage")
	}
	defer f.inTurn.Store(false)
	f.turns.Add(1)
	items := f.queue.take()
	did = len(items) > 0
	more, wake = f.do(items, now)
	f.queue.give(items)
	return did, more, wake
}

// fakeWorld is an executor over three fake stages.
type fakeWorld struct {
	*executor
	stages          [stages]*fakeStage
	failed, crowded atomic.Bool
	ended           chan error
}

func newFakeWorld(t *testing.T) *fakeWorld {
	w := &fakeWorld{ended: make(chan error, 1)}
	var run [stages]stage
	for i := range w.stages {
		w.stages[i] = &fakeStage{t: t, do: func([]int, env.Instant) (bool, env.Instant) { return false, env.Never }}
		run[i] = w.stages[i]
	}
	w.executor = newExecutor(wallClock{time.Now()}, run, w.failed.Load, w.crowded.Load)
	return w
}

func (w *fakeWorld) start(t *testing.T) {
	go func() { w.ended <- w.drive() }()
	t.Cleanup(func() { w.stop(nil) })
}

// settle returns when all workers sleep.
func (w *fakeWorld) settle(t *testing.T) {
	t.Helper()
	waitFor(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.idle == stages
	})
}

// waitFor yields until what is true, or fails the test.
func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !what(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("waited for too long")
		}
	}
}

func goroutine() string {
	buf := make([]byte, 64)
	return string(bytes.Fields(buf[:runtime.Stack(buf, false)])[1])
}

// Many producers, short and long turns: every item goes through all stages, so no
// wake-up was lost, and no stage ever had two workers.
func TestExecutorLosesNoWakeUp(t *testing.T) {
	const producers, items = 8, 3000
	w := newFakeWorld(t)
	var done atomic.Int64
	pass := func(to int) func([]int, env.Instant) (bool, env.Instant) {
		return func(items []int, _ env.Instant) (bool, env.Instant) {
			for _, x := range items {
				w.stages[to].queue.push(x)
				w.mark(to)
				if x%97 == 0 {
					runtime.Gosched()
				}
			}
			return false, env.Never
		}
	}
	w.stages[0].do, w.stages[1].do = pass(1), pass(2)
	w.stages[2].do = func(items []int, _ env.Instant) (bool, env.Instant) {
		done.Add(int64(len(items)))
		return false, env.Never
	}
	w.start(t)
	var group sync.WaitGroup
	for p := range producers {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range items {
				w.stages[0].queue.push(p*items + i)
				w.wake(0)
				if i%(p+2) == 0 {
					runtime.Gosched()
				}
			}
		}()
	}
	group.Wait()
	waitFor(t, func() bool { return done.Load() == producers*items })
	w.settle(t)
}

// One item at a time: the stages run in a row on one goroutine, and when it has
// gone through nobody runs any more.
func TestOneClientNeedsOneWorker(t *testing.T) {
	w := newFakeWorld(t)
	w.start(t)
	w.settle(t)
	done := make(chan []string, 1)
	var ran []string
	hand := func(to int) func([]int, env.Instant) (bool, env.Instant) {
		return func(items []int, _ env.Instant) (bool, env.Instant) {
			for _, x := range items {
				ran = append(ran, goroutine())
				if to == stages {
					done <- ran
					ran = nil
					continue
				}
				w.stages[to].queue.push(x)
				w.mark(to)
			}
			return false, env.Never
		}
	}
	for i := range stages {
		w.stages[i].do = hand(i + 1)
	}
	for range 50 {
		w.stages[0].queue.push(1)
		w.wake(0)
		if ran := <-done; ran[0] != ran[1] || ran[1] != ran[2] {
			t.Fatalf("the stages ran on goroutines %v", ran)
		}
		w.settle(t)
	}
	var before, after int64
	for _, s := range w.stages {
		before += s.turns.Load()
	}
	w.settle(t)
	for _, s := range w.stages {
		after += s.turns.Load()
	}
	if before != after {
		t.Fatal("stages turn although nothing arrives")
	}
}

// Of many connections that bring something at once the first wakes the stepper, whose
// turn would come before the others' with what that one brought.
func TestATurnAmongManyComesAfterThoseWhoAreReady(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const connections = 60
	w := newFakeWorld(t)
	w.crowded.Store(true)
	w.start(t)
	w.settle(t)
	before := w.stages[0].turns.Load()
	var brought sync.WaitGroup
	for range connections {
		brought.Add(1)
		go func() {
			defer brought.Done()
			w.stages[0].queue.push(1)
			w.wake(0)
		}()
	}
	brought.Wait()
	w.settle(t)
	if turns := w.stages[0].turns.Load() - before; turns > connections/6 {
		t.Fatalf("%d turns for what %d connections brought together", turns, connections)
	}
}

// A worker that waits for a disk does not keep the stepper from its work.
func TestASecondWorkerStepsWhileOneSyncs(t *testing.T) {
	w := newFakeWorld(t)
	syncing, synced, stepped := make(chan bool), make(chan bool), make(chan bool)
	w.stages[1].do = func(items []int, _ env.Instant) (bool, env.Instant) {
		if len(items) > 0 {
			syncing <- true
			<-synced
		}
		return false, env.Never
	}
	w.stages[0].do = func(items []int, _ env.Instant) (bool, env.Instant) {
		if len(items) > 0 {
			stepped <- true
		}
		return false, env.Never
	}
	w.start(t)
	w.stages[1].queue.push(1)
	w.wake(1)
	<-syncing
	w.stages[0].queue.push(1)
	w.wake(0)
	<-stepped
	close(synced)
	w.settle(t)
}

// Two stages that are ready get two workers: the second does not wait for the end
// of a long turn of the first.
func TestTwoReadyStagesGetTwoWorkers(t *testing.T) {
	w := newFakeWorld(t)
	meet := make(chan bool)
	met := make(chan bool, 1)
	w.stages[0].do = func(items []int, _ env.Instant) (bool, env.Instant) {
		if len(items) > 0 {
			w.stages[1].queue.push(1)
			w.stages[2].queue.push(1)
			w.mark(1)
			w.mark(2)
		}
		return false, env.Never
	}
	w.stages[1].do = func(items []int, _ env.Instant) (bool, env.Instant) {
		if len(items) > 0 {
			meet <- true
		}
		return false, env.Never
	}
	w.stages[2].do = func(items []int, _ env.Instant) (bool, env.Instant) {
		if len(items) > 0 {
			met <- <-meet
		}
		return false, env.Never
	}
	w.start(t)
	w.stages[0].queue.push(1)
	w.wake(0)
	<-met
	w.settle(t)
}

func TestStagesTurnWhenTheyAreDue(t *testing.T) {
	w := newFakeWorld(t)
	late := make(chan env.Instant, 1)
	const pause = env.Instant(20 * time.Millisecond)
	var due env.Instant
	w.stages[2].do = func(_ []int, now env.Instant) (bool, env.Instant) {
		switch {
		case due == 0:
			due = now + pause
			return false, due
		case now < due:
			return false, due
		}
		late <- now - due
		return false, env.Never
	}
	// Another stage wants its turn earlier, once.
	first := true
	w.stages[0].do = func(_ []int, now env.Instant) (bool, env.Instant) {
		if first {
			first = false
			return true, now + pause/4
		}
		return false, env.Never
	}
	w.start(t)
	if by := <-late; by < 0 {
		t.Fatalf("a stage had its turn %d before it was due", -by)
	}
	w.settle(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed != env.Never {
		t.Fatal("the timer is set although no stage is due")
	}
}

func TestAStageThatFailsEndsTheWorkers(t *testing.T) {
	w := newFakeWorld(t)
	w.stages[1].do = func(items []int, _ env.Instant) (bool, env.Instant) {
		if len(items) > 0 {
			w.failed.Store(true)
		}
		return false, env.Never
	}
	w.start(t)
	w.settle(t)
	w.stages[1].queue.push(1)
	w.wake(1)
	if err := <-w.ended; err != nil {
		t.Fatalf("ended with %v", err)
	}
}

func TestABrokenInvariantEndsTheWorkers(t *testing.T) {
	w := newFakeWorld(t)
	w.stages[2].do = func(items []int, _ env.Instant) (bool, env.Instant) {
		invariant.Check(len(items) == 0, "there are %d", len(items))
		return false, env.Never
	}
	w.start(t)
	w.settle(t)
	w.stages[2].queue.push(1)
	w.wake(2)
	var broken invariant.Violation
	if err := <-w.ended; !errors.As(err, &broken) || broken.Message != "there are 1" {
		t.Fatalf("ended with %v", err)
	}
}
