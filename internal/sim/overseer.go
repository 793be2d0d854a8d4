package sim

import (
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// overseer does what follows a change of the membership: it starts the members
// that were added and shuts down those that were removed, unless they stop by
// themselves; and it goes on with what a member does when it starts.
type overseer struct {
	w    *world
	rand *simenv.Rand
	next env.Instant
}

func newOverseer(w *world) *overseer {
	o := &overseer{w: w, rand: w.env.Rand("overseer"), next: env.Never}
	if w.swarm.cluster {
		o.next = 0
	}
	return o
}

func (o *overseer) act() {
	w := o.w
	now := w.env.Now()
	o.next = now.Add(between(o.rand, 5*time.Millisecond, 40*time.Millisecond))
	for _, r := range w.replicas {
		removed := w.ledger.removed(r.member)
		switch {
		case r.gone:
			if removed && r == w.lost {
				w.lost = nil
			}
		case !r.born:
			if w.ledger.listed(r.member) {
				r.born, r.startAt = true, now
				if !w.calm {
					r.startAt = now.Add(around(o.rand, w.swarm.faults.outage))
				}
			}
		case removed && r.shutAt == 0:
			r.shutAt = now.Add(w.shutdownAfter())
		case removed && r.shutAt <= now:
			w.trace.mark(markShutDown)
			r.retire(simenv.ProcessCrash, "was removed and is shut down")
		case r.host != nil:
			r.publish()
		}
	}
}

// retire ends a member for good.
func (r *replica) retire(how simenv.Crash, why string) {
	r.crash(how, why)
	r.gone, r.startAt = true, env.Never
}

// publishing is a member's word about itself, as embed gives it before it opens
// its doors: it implements host.Completions.
type publishing struct {
	r    *replica
	run  int
	step int
	open bool
}

// Push implements host.Completions.
func (p *publishing) Push(result host.Result) {
	p.open = false
	if result.Err == nil {
		p.step++
	}
}

// publish takes the next step.
func (r *replica) publish() {
	p := &r.publishing
	if p.run != r.runs {
		*p = publishing{r: r, run: r.runs}
	}
	if p.open || r.published {
		return
	}
	p.open = true
	call := host.Call{To: p, Deadline: r.process.Clock.Now().Add(r.w.swarm.load.timeout)}
	done := false
	r.guard(func() {
		switch p.step {
		case 0:
			r.services.Barrier(call)
		case 1:
			done = !r.founding || r.services.Found(call, r.w.genesis())
		case 2:
			url := r.String()
			done = r.services.Publish(call, command.MemberPublish{Name: url, PeerURLs: []string{"p" + url[1:]}, ClientURLs: []string{"c" + url[1:]}})
		default:
			p.open, r.published = false, true
			r.w.trace.tell(r.w.env.Now(), "%v is published and serves", r)
		}
	})
	if done {
		p.Push(host.Result{})
	}
	if r.host != nil {
		r.wake()
	}
}

func (w *world) genesis() *command.MemberGenesis {
	g := &command.MemberGenesis{}
	for _, m := range w.ledger.confs[0].Conf.Voters {
		g.Members = append(g.Members, command.GenesisMember{Member: m, PeerURLs: []string{"p" + w.replicaOf(m).String()[1:]}})
	}
	return g
}

// pick draws one of the machines that run a member or are to run it again; nil if
// there is none.
func (w *world) pick(rand *simenv.Rand) *replica {
	present := w.replicas
	if w.swarm.cluster {
		present = slices.DeleteFunc(slices.Clone(present), func(r *replica) bool { return r.gone || !r.born })
	}
	if len(present) == 0 {
		return nil
	}
	return present[rand.Intn(len(present))]
}

func is(member id.Member) func(id.Member) bool {
	return func(m id.Member) bool { return m == member }
}
