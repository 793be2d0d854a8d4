package sim

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
)

// plan is what is decided before a world begins.
type plan struct {
	swarm
	founders int
}

// plan draws what a world's options leave to the seed. The draws that follow are the
// world's.
func (o Options) plan() (p plan, draw *simenv.Rand) {
	// Worlds of one seed in several families have nothing in common.
	draw = simenv.NewRand(o.Seed, o.family())
	p.founders = o.Replicas
	if o.Cluster {
		p.swarm, p.founders = drawCluster(draw, o.Replicas)
	} else {
		p.swarm = drawSwarm(draw, o.Replicas)
	}
	p.drawLater(simenv.NewRand(o.Seed, o.family()+", later"), p.founders)
	p.drawWatches(simenv.NewRand(o.Seed, o.family()+", watches"))
	p.drawUsers(simenv.NewRand(o.Seed, o.family()+", users"))
	p.drawSpace(simenv.NewRand(o.Seed, o.family()+", space"))
	if o.Profile != nil {
		// What a profile is about, it brings: nobody else watches, has leases or a name, and there is room.
		p.watches, p.leases, p.users, p.space = watchSwarm{}, leaseSwarm{}, userSwarm{}, spaceSwarm{}
		p.unasked = 0
		o.Profile(&p.swarm)
	}
	for _, name := range o.Without {
		if c := cutNamed(name); c != nil {
			c.off(&p)
		}
	}
	return p, draw
}

// cut takes something from a world: a kind of fault, of call or of change, or half
// of what there is.
type cut struct {
	name string
	off  func(*plan)
}

// cuts are in the order in which they are tried: what explains most is taken first.
var cuts = slices.Concat(
	faultCuts(), networkCuts(), memberCuts(), watchCuts(), loadCuts(),
	[]cut{
		{"drift", func(p *plan) { p.driftPPM = 0 }},
		{"unasked", func(p *plan) { p.unasked = 0 }},
		{"lapses", func(p *plan) { p.lapsePermille = 0 }},
		{"half-the-storm", func(p *plan) { p.storm = max(p.storm/2, 50*time.Millisecond) }},
		{"half-the-clients", func(p *plan) { p.load.clients = max(1, p.load.clients/2) }},
		{"half-the-calls", func(p *plan) { p.load.calls = max(4, p.load.calls/2) }},
		{"half-the-keys", func(p *plan) { p.load.keys = max(1, p.load.keys/2) }},
		{"a-founder", func(p *plan) {
			if p.cluster {
				p.founders = max(1, p.founders-1)
			}
		}},
	},
)

func faultCuts() (list []cut) {
	for name, of := range map[string]func(*faultSwarm) *time.Duration{
		"crashes":       func(f *faultSwarm) *time.Duration { return &f.crash },
		"power-crashes": func(f *faultSwarm) *time.Duration { return &f.powerCrash },
		"op-crashes":    func(f *faultSwarm) *time.Duration { return &f.opCrash },
		"partitions":    func(f *faultSwarm) *time.Duration { return &f.part },
		"pauses":        func(f *faultSwarm) *time.Duration { return &f.pause },
		"stalls":        func(f *faultSwarm) *time.Duration { return &f.stall },
		"sync-errors":   func(f *faultSwarm) *time.Duration { return &f.syncError },
		"full-disks":    func(f *faultSwarm) *time.Duration { return &f.full },
		"flips":         func(f *faultSwarm) *time.Duration { return &f.flip },
		"slow-syncs":    func(f *faultSwarm) *time.Duration { return &f.slowSync },
		"splits":        func(f *faultSwarm) *time.Duration { return &f.split },
		"rolling":       func(f *faultSwarm) *time.Duration { return &f.rolling },
	} {
		list = append(list, cut{name, func(p *plan) { *of(&p.faults) = 0 }})
	}
	return sorted(append(list, permilles(map[string]func(*plan) *int64{
		"aim":     func(p *plan) *int64 { return &p.faults.aim },
		"coups":   func(p *plan) *int64 { return &p.faults.coup },
		"midload": func(p *plan) *int64 { return &p.faults.midload },
		"doubles": func(p *plan) *int64 { return &p.faults.doublePerm },
		"one-way": func(p *plan) *int64 { return &p.faults.oneWay },
		"bridges": func(p *plan) *int64 { return &p.faults.bridge },
	})...))
}

func networkCuts() []cut {
	return sorted(permilles(map[string]func(*plan) *int64{
		"losses":  func(p *plan) *int64 { return &p.network.losePermille },
		"repeats": func(p *plan) *int64 { return &p.network.repeatPermille },
		"delays":  func(p *plan) *int64 { return &p.network.slowPermille },
		"notices": func(p *plan) *int64 { return &p.network.noticePermille },
		"audits":  func(p *plan) *int64 { return &p.auditPermille },
	}))
}

// memberCuts leave operators something to do, or no operators.
func memberCuts() []cut {
	list := []cut{{"operators", func(p *plan) { p.members.operators = 0 }}}
	for _, c := range sorted(permilles(map[string]func(*plan) *int64{
		"adding":    func(p *plan) *int64 { return &p.members.add },
		"learners":  func(p *plan) *int64 { return &p.members.addLearner },
		"removing":  func(p *plan) *int64 { return &p.members.remove },
		"replacing": func(p *plan) *int64 { return &p.members.replace },
		"promoting": func(p *plan) *int64 { return &p.members.promote },
		"swapping":  func(p *plan) *int64 { return &p.members.swap },
		"updating":  func(p *plan) *int64 { return &p.members.update },
	})) {
		list = append(list, cut{c.name, func(p *plan) {
			before := p.members
			if c.off(p); p.members.total() == 0 {
				p.members = before
			}
		}})
	}
	return append(list, cut{"an-operator", func(p *plan) { p.members.operators = min(1, p.members.operators) }})
}

// watchCuts take those who watch, and those who have leases.
func watchCuts() []cut {
	return []cut{
		{"people", func(p *plan) { p.users = userSwarm{} }},
		{"scarcity", func(p *plan) { p.space = spaceSwarm{} }},
		{"scarce-disks", func(p *plan) { p.space.scarce = 0 }},
		{"hands", func(p *plan) { p.space.byHand = 0 }},
		{"a-spender", func(p *plan) { p.space.spenders = min(1, p.space.spenders) }},
		{"signatures", func(p *plan) { p.users.signed = false }},
		{"a-person", func(p *plan) { p.users.people = min(1, p.users.people) }},
		{"lessees", func(p *plan) { p.leases.lessees = 0 }},
		{"lockers", func(p *plan) { p.leases.lockers = 0 }},
		{"watchers", func(p *plan) { p.watches.clients = 0 }},
		{"checkpoints", func(p *plan) { p.leases.checkpoint = 0 }},
		{"a-lessee", func(p *plan) { p.leases.lessees = min(1, p.leases.lessees) }},
		{"a-locker", func(p *plan) { p.leases.lockers = min(1, p.leases.lockers) }},
		{"a-watcher", func(p *plan) { p.watches.clients = min(1, p.watches.clients) }},
		{"half-the-watches", func(p *plan) { p.watches.most = max(1, p.watches.most/2) }},
	}
}

// loadCuts leave clients something to do.
func loadCuts() (list []cut) {
	for _, c := range sorted(permilles(map[string]func(*plan) *int64{
		"registers":   func(p *plan) *int64 { return &p.load.registers },
		"pairs":       func(p *plan) *int64 { return &p.load.pairs },
		"anything":    func(p *plan) *int64 { return &p.load.anything },
		"reads":       func(p *plan) *int64 { return &p.load.reads },
		"history":     func(p *plan) *int64 { return &p.load.history },
		"compactions": func(p *plan) *int64 { return &p.load.compactions },
		"duties":      func(p *plan) *int64 { return &p.load.duties },
		"transfers":   func(p *plan) *int64 { return &p.load.transfers },
	})) {
		list = append(list, cut{c.name, func(p *plan) {
			before := p.load
			if c.off(p); p.load.total() == 0 {
				p.load = before
			}
		}})
	}
	return list
}

func permilles(of map[string]func(*plan) *int64) (list []cut) {
	for name, field := range of {
		list = append(list, cut{name, func(p *plan) { *field(p) = 0 }})
	}
	return list
}

// sorted puts cuts in an order that does not depend on the run.
func sorted(list []cut) []cut {
	slices.SortFunc(list, func(a, b cut) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return list
}

func cutNamed(name string) *cut {
	for i := range cuts {
		if cuts[i].name == name {
			return &cuts[i]
		}
	}
	return nil
}

const (
	// shrinkWorlds is how many worlds a search for a smaller one may run.
	shrinkWorlds = 800
	// shrinkSalts is how many courses of a smaller world are tried before what was
	// taken from it is given back.
	shrinkSalts = 6
)

// Shrink looks for a smaller world that fails as well: it takes one thing after the
// other away as long as a world without it fails, whatever with, and prefers the
// shortest. A world that lacks something goes another way, so a few courses of each
// are tried. It returns the options of the smallest that was found and its report.
func Shrink(o Options, out io.Writer) (Options, Report) {
	o.Tell, o.Out = false, nil
	best := Run(o)
	if best.Failure == nil {
		return o, best
	}
	worlds := 0
	fails := func(try Options) bool {
		for salt := range uint64(shrinkSalts) {
			if salt > 0 {
				try.Salt = salt
			}
			if worlds++; worlds > shrinkWorlds {
				return false
			}
			if r := Run(try); r.Failure != nil {
				o, best = try, r
				return true
			}
		}
		return false
	}
	for improved := true; improved && worlds < shrinkWorlds; {
		improved = false
		for _, c := range cuts {
			now, _ := o.plan()
			without := now
			if c.off(&without); without == now {
				continue
			}
			try := o
			try.Without = append(slices.Clone(o.Without), c.name)
			if fails(try) {
				improved = true
				fmt.Fprintf(out, "without %s it fails too, after %d steps: %.100s\n", c.name, best.Steps, best.Failure)
			}
		}
	}
	for salt := range uint64(4 * shrinkSalts) {
		try := o
		try.Salt = salt
		if r := Run(try); r.Failure != nil && r.Steps < best.Steps {
			o, best = try, r
		}
	}
	fmt.Fprintf(out, "%d worlds were tried\n", worlds)
	return o, best
}
