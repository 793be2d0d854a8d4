package simenv

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
)

// firstDay is the calendar's time when a world begins.
var firstDay = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Options shape a world.
type Options struct {
	Disk DiskOptions
	// MaxWallOffset bounds how far a machine's calendar is off, either way.
	MaxWallOffset time.Duration
	// MaxDriftPPM bounds how much faster or slower a machine's clocks run, in
	// parts per million, either way.
	MaxDriftPPM int64
}

// World is everything outside the processes of one simulation: the true time and
// the machines. It belongs to one goroutine.
type World struct {
	seed     uint64
	options  Options
	now      atomic.Int64 // a disk's user may be another goroutine, as Pebble's are
	machines []*Machine
}

// New begins a world. The same seed and the same calls give the same world.
func New(seed uint64, options Options) *World {
	return &World{seed: seed, options: options}
}

// Rand returns a stream of the world's seed, for the simulator itself.
func (w *World) Rand(stream string) *Rand { return NewRand(w.seed, stream) }

// Now is the world's true time since its beginning; no process sees it.
func (w *World) Now() env.Instant { return env.Instant(w.now.Load()) }

// AdvanceTo moves the true time forward.
func (w *World) AdvanceTo(t env.Instant) {
	require(t >= w.Now(), "time would run backwards from %d to %d", w.Now(), t)
	w.now.Store(int64(t))
}

// NextDue is when the first sync under way on any machine completes, in true
// time; env.Never if there is none.
func (w *World) NextDue() env.Instant {
	next := env.Never
	for _, m := range w.machines {
		next = min(next, m.disk.NextDue())
	}
	return next
}

// Trace folds the traces of all disks and the time.
func (w *World) Trace() uint64 {
	t := mix(uint64(w.Now()))
	for _, m := range w.machines {
		t = mix(t ^ m.disk.Trace())
	}
	return t
}

// Machine is what outlives the runs of one process: its disk, its calendar, and
// how busy it is.
type Machine struct {
	w     *World
	name  string
	disk  *Disk
	wall  time.Duration // the calendar's error
	drift int64         // parts per million
	busy  atomic.Int64  // an env.Instant of true time
	runs  int
	run   *Process
}

// Machine makes a machine; its name picks its stream of the seed.
func (w *World) Machine(name string) *Machine {
	draw := w.Rand("machine " + name)
	around := func(limit int64) int64 { return draw.Int64N(2*limit+1) - limit }
	m := &Machine{
		w: w, name: name,
		disk:  newDisk(w.Rand("disk "+name), w.options.Disk, w.Now),
		wall:  time.Duration(around(int64(w.options.MaxWallOffset))),
		drift: around(w.options.MaxDriftPPM),
	}
	m.disk.stall = m.Pause
	w.machines = append(w.machines, m)
	return m
}

// Name is the machine's name.
func (m *Machine) Name() string { return m.name }

// Disk is the machine's disk.
func (m *Machine) Disk() *Disk { return m.disk }

// Process is the run that is alive, or nil.
func (m *Machine) Process() *Process { return m.run }

// Pause makes the machine busy for another d: neither turns nor tasks of its
// process should run before BusyUntil. Its clocks go on, as for a stopped process.
func (m *Machine) Pause(d time.Duration) {
	for {
		busy := m.busy.Load()
		until := max(env.Instant(busy), m.w.Now()).Add(d)
		if m.busy.CompareAndSwap(busy, int64(until)) {
			return
		}
	}
}

// BusyUntil is when, in true time, the process may go on after the last pause or
// stall of the disk; it may lie in the past.
func (m *Machine) BusyUntil() env.Instant { return env.Instant(m.busy.Load()) }

// SetWall sets how far the machine's calendar is off from now on.
func (m *Machine) SetWall(offset time.Duration) { m.wall = offset }

// Start begins the next run of the machine's process. The run before must have
// ended by Crash or Stop.
func (m *Machine) Start() *Process {
	require(m.run == nil, "machine %s runs already", m.name)
	m.runs++
	rand := m.w.Rand("run " + m.name + " " + strconv.Itoa(m.runs))
	m.run = &Process{
		Tasks: &Tasks{},
		Clock: &Clock{m: m, start: m.w.Now(), origin: env.Instant(rand.Int64N(int64(time.Hour)))},
		rand:  rand,
		fs:    m.disk.Mount(),
	}
	m.busy.Store(m.w.now.Load())
	return m.run
}

// Crash ends the run, if any, and crashes the disk.
func (m *Machine) Crash(c Crash) {
	m.Stop()
	m.disk.Crash(c)
}

// Stop ends the run in order: tasks are forgotten, the disk is left alone but
// for the run's file system, which dies as in a process crash.
func (m *Machine) Stop() {
	if m.run != nil {
		m.run.Tasks.kill()
		m.run = nil
		m.disk.Crash(ProcessCrash)
	}
}

// Process is one run of a machine's process.
type Process struct {
	Tasks *Tasks
	Clock *Clock
	rand  *Rand
	fs    env.FS
}

// World is what the process is given at its birth.
func (p *Process) World() env.World {
	return env.World{Clock: p.Clock, Rand: p.rand, Tasks: p.Tasks, FS: p.fs}
}

// Clock is the clock of one run. Its origin and its speed differ from those of
// other runs.
type Clock struct {
	m      *Machine
	start  env.Instant // true time of the run's beginning
	origin env.Instant // what Now was then
}

// Now implements env.Clock.
func (c *Clock) Now() env.Instant { return c.at(c.m.w.Now()) }

func (c *Clock) at(world env.Instant) env.Instant {
	elapsed := int64(world - c.start)
	return c.origin + env.Instant(elapsed+elapsed/1e6*c.m.drift+elapsed%1e6*c.m.drift/1e6)
}

// Wall implements env.Clock.
func (c *Clock) Wall() time.Time {
	elapsed := int64(c.m.w.Now())
	return firstDay.Add(c.m.wall + time.Duration(elapsed+elapsed/1e6*c.m.drift))
}

// WorldTime is a true time at which Now is at least local, a few nanoseconds late
// at most: when to wake a stage that asked for local. Never stays Never; the past
// gives the present.
func (c *Clock) WorldTime(local env.Instant) env.Instant {
	if local == env.Never {
		return env.Never
	}
	if local <= c.Now() {
		return c.m.w.Now()
	}
	wanted := int64(local - c.origin)
	world := c.start + env.Instant(wanted-wanted/(1e6+c.m.drift)*c.m.drift)
	for c.at(world) > local && world > c.m.w.Now() {
		world -= env.Instant(c.at(world)-local)/2 + 1
	}
	for c.at(world) < local {
		world += max(1, env.Instant(local-c.at(world))/2)
	}
	return max(world, c.m.w.Now())
}
