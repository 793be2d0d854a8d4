// Package osenv is the real body of the outside world: the machine's clock,
// strong randomness, goroutines, and the operating system's files by way of
// Pebble's vfs.Default. It is the only package of the lower floors that touches
// os, time, random sources or the go statement (rule 31).
package osenv

import (
	"time"

	"github.com/kvorum/kvorum/internal/env"
)

// World is the real world of one process.
type World struct {
	env.World
	tasks *Tasks
}

// New makes the world of this process. Its clock starts at 0 now.
func New() *World {
	tasks := NewTasks()
	return &World{
		World: env.World{Clock: NewClock(), Rand: NewRand(), Tasks: tasks, FS: FS()},
		tasks: tasks,
	}
}

// Stop ends the background tasks between two steps and returns when none runs
// any more. Tasks begun afterwards never run.
func (w *World) Stop() { w.tasks.Stop() }

// Clock is the machine's clock.
type Clock struct{ start time.Time }

// NewClock returns a clock whose Now is 0 at this moment.
func NewClock() Clock { return Clock{start: time.Now()} }

// Now returns the nanoseconds since the clock was made, measured on the
// monotonic clock: setting the calendar does not move it.
func (c Clock) Now() env.Instant { return env.Instant(time.Since(c.start)) }

// Wall returns the calendar's time without a monotonic reading.
func (c Clock) Wall() time.Time { return time.Now().Round(0) }
