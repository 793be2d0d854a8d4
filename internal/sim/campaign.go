package sim

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"
)

// Options say which world to run.
type Options struct {
	// Seed decides everything in the world.
	Seed uint64
	// Replicas is how many members found the group, 1 to 7; in a cluster 0 lets the
	// seed draw it.
	Replicas int
	// Cluster makes it a world of the third family, in which members may come and
	// go. The worlds of one seed in the families of one, of three and of clusters
	// have nothing in common.
	Cluster bool
	// Without names what is taken from the world that the seed drew (see cuts).
	Without []string
	// Salt, unless it is 0, lets the same world take another course.
	Salt uint64
	// Brief leaves what a reader seldom wants out of the story.
	Brief bool
	// Tell keeps the tail of the story; it changes nothing in the world.
	Tell bool
	// Out, when set, is told the whole story while it happens.
	Out io.Writer
	// Profile, when set, tilts what the seed drew.
	Profile func(*swarm)
}

// family names what a world is drawn from.
func (o Options) family() string {
	if o.Cluster {
		return "swarm of a cluster"
	}
	return fmt.Sprintf("swarm of %d", o.Replicas)
}

// kind tells the family to a reader.
func (o Options) kind() string {
	switch {
	case o.Cluster && o.Replicas == 0:
		return "clusters"
	case o.Cluster:
		return fmt.Sprintf("clusters of %d", o.Replicas)
	}
	return fmt.Sprintf("%d members", o.Replicas)
}

// Report is what became of a world.
type Report struct {
	Seed     uint64
	Replicas int
	Cluster  bool
	// Failure is the broken promise, or nil.
	Failure *Failure
	// Hash is that of the trace: equal for equal seeds.
	Hash uint64
	// Events, Steps, Calls, Commands and Starts say how eventful the world was.
	Events, Steps, Calls, Commands, Starts uint64
	// Simulated is how long the world lasted, in its own time.
	Simulated time.Duration
	// Latest is how late a lease has ended at most, once the faults had stopped.
	Latest time.Duration
	Story  string
	// Marks counts the rare things that were reached.
	Marks map[string]uint64
}

// Run runs one world.
func Run(o Options) Report {
	w := newWorld(o)
	w.run()
	report := Report{
		Seed: o.Seed, Replicas: o.Replicas, Cluster: o.Cluster, Failure: w.failure, Hash: w.trace.hash, Story: w.trace.story(), Marks: w.trace.marks,
		Events: w.trace.events, Steps: w.steps, Calls: uint64(len(w.history.calls)), Commands: uint64(len(w.ledger.commands)),
		Simulated: time.Duration(w.env.Now()), Latest: w.ledger.tenures.latest,
	}
	for _, r := range w.replicas {
		report.Starts += uint64(r.runs)
	}
	return report
}

// Campaign runs count worlds from a seed on, several at once, each on a goroutine
// of its own. It hands over the reports in the order of their seeds and stops
// soon after one for which done is true.
func Campaign(first Options, count uint64, each func(Report) (stop bool)) {
	type slot struct {
		report Report
		ready  chan struct{}
	}
	workers := runtime.GOMAXPROCS(0)
	slots := make(chan *slot, 2*workers)
	work := make(chan func(), 2*workers)
	var stopped sync.Once
	quit := make(chan struct{})
	for range workers {
		go func() {
			for f := range work {
				f()
			}
		}()
	}
	go func() {
		defer close(slots)
		defer close(work)
		for i := range count {
			o, s := first, &slot{ready: make(chan struct{})}
			o.Seed += i
			select {
			case <-quit:
				return
			case slots <- s:
			}
			work <- func() {
				defer close(s.ready)
				s.report = Run(o)
			}
		}
	}()
	for s := range slots {
		<-s.ready
		select {
		case <-quit:
			continue
		default:
		}
		if each(s.report) {
			stopped.Do(func() { close(quit) })
		}
	}
}
