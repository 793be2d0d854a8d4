package sim

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
)

// world is one simulation.
type world struct {
	replicas []*replica
	clients  []*client
	// operators change the membership; overseer follows it up.
	operators []*operator
	// watchers watch; lessees and lockers have leases. All of them are actors.
	watchers []*watcher
	lessees  []*lessee
	lockers  []*locker
	talks    uint64
	// people have to say who they are, admin says what they may.
	people []*person
	admin  *administrator
	// spenders write where room is scarce, keeper gives it back.
	spenders []*spender
	keeper   *keeper
	actors   []actor
	overseer *overseer
	// lost is the member whose machine is gone for good while it is a member yet.
	lost *replica
	// leaving counts, for each member, the changes that would take its vote and were
	// not refused.
	leaving map[id.Member]int
	network *network
	faults  *faults
	ledger  *ledger
	auditor *auditor
	witness *witness
	history *history
	leaders map[id.Term]leadership

	env   *simenv.World
	rand  *simenv.Rand // the schedule
	runs  *simenv.Rand // the limits of runs
	swarm swarm
	trace trace

	calm    bool // the storm is over
	steps   uint64
	failure *Failure
}

// Failure is a promise that a world saw broken.
type Failure struct {
	At     env.Instant
	Reason string
}

// Error tells what went wrong and when.
func (f *Failure) Error() string {
	return fmt.Sprintf("at %.6f s: %s", float64(f.At)/1e9, f.Reason)
}

// leadership is who led in a term, in which run of its process.
type leadership struct {
	leader *replica
	run    int
}

// newWorld builds a world of a seed. Nothing has happened yet.
func newWorld(o Options) *world {
	w := &world{ledger: newLedger(), leaders: map[id.Term]leadership{}, leaving: map[id.Member]int{}}
	p, draw := o.plan()
	w.swarm = p.swarm
	w.env = simenv.New(draw.Uint64()^mix(o.Salt), simenv.Options{
		Disk:          w.swarm.disk,
		MaxDriftPPM:   w.swarm.driftPPM,
		MaxWallOffset: time.Hour,
	})
	w.rand, w.runs = w.env.Rand("schedule"), w.env.Rand("runs")
	w.trace.telling, w.trace.brief, w.trace.out = o.Tell, o.Brief, o.Out
	w.network = newNetwork(w)
	for range p.founders {
		w.addReplica()
	}
	for _, r := range w.replicas {
		r.born = true
	}
	w.ledger.found(w.members())
	w.history = &history{}
	w.witness = newWitness(w)
	for i := range w.swarm.load.clients {
		w.clients = append(w.clients, newClient(w, i))
	}
	for i := range w.swarm.members.operators {
		w.operators = append(w.operators, newOperator(w, i))
	}
	w.populate()
	w.overseer = newOverseer(w)
	w.faults = newFaults(w)
	w.auditor = newAuditor(w)
	return w
}

// actor is one of those who do something of their own accord.
type actor interface {
	due() env.Instant
	act()
}

// populate makes those who watch and those who have leases.
func (w *world) populate() {
	l := &w.ledger.tenures
	l.now, l.mark, l.drift, l.grace = w.env.Now, w.trace.mark, w.swarm.driftPPM, w.swarm.leases.grace
	for i := range w.swarm.watches.clients {
		w.watchers = append(w.watchers, newWatcher(w, i))
		w.actors = append(w.actors, w.watchers[i])
	}
	for i := range w.swarm.leases.lessees {
		w.lessees = append(w.lessees, newLessee(w, i))
		w.actors = append(w.actors, w.lessees[i])
	}
	for i := range w.swarm.leases.lockers {
		w.lockers = append(w.lockers, newLocker(w, i))
		w.actors = append(w.actors, w.lockers[i])
	}
	if w.swarm.users.some() {
		w.admin = newAdministrator(w)
		w.actors = append(w.actors, w.admin)
	}
	for i := range w.swarm.users.people {
		w.people = append(w.people, newPerson(w, i))
		w.actors = append(w.actors, w.people[i])
	}
	for i := range w.swarm.space.spenders {
		w.spenders = append(w.spenders, newSpender(w, i))
		w.actors = append(w.actors, w.spenders[i])
	}
	if w.swarm.space.some() {
		w.keeper = newKeeper(w)
		w.actors = append(w.actors, w.keeper)
	}
}

// idle says that no call is under way.
func (w *world) idle() bool {
	for _, c := range w.clients {
		if c.current != nil {
			return false
		}
	}
	for _, o := range w.operators {
		if o.current != nil {
			return false
		}
	}
	for _, c := range w.lessees {
		if c.busy() {
			return false
		}
	}
	for _, c := range w.lockers {
		if c.busy() {
			return false
		}
	}
	for _, c := range w.people {
		if c.current != nil {
			return false
		}
	}
	for _, c := range w.spenders {
		if c.current != nil {
			return false
		}
	}
	return w.admin == nil || w.admin.current == nil
}

// hangUp ends what people are saying: the world is over.
func (w *world) hangUp() {
	for _, c := range w.people {
		c.hangUp()
	}
	if w.admin != nil {
		w.admin.hangUp()
	}
	for _, c := range w.spenders {
		c.hangUp()
	}
	if w.keeper != nil {
		w.keeper.hangUp()
	}
}

// members are the ids of all machines.
func (w *world) members() (all []id.Member) {
	for _, r := range w.replicas {
		all = append(all, r.member)
	}
	return all
}

// addReplica gives the world another machine, with an empty disk.
func (w *world) addReplica() *replica {
	r := newReplica(w, len(w.replicas))
	w.replicas = append(w.replicas, r)
	w.network.grow(len(w.replicas))
	return r
}

// run lets the world live: the storm, the calm and the verdict.
func (w *world) run() {
	w.trace.tell(0, "%d members; %v", len(w.replicas), w.swarm)
	for _, r := range w.replicas {
		r.start()
	}
	w.runUntil(env.Instant(w.swarm.storm), nil)
	if w.failure == nil {
		w.settle()
	}
	if w.failure == nil {
		w.judge()
	}
	w.hangUp()
	w.trace.fold(eventEnd, w.env.Trace(), uint64(w.ledger.last()), uint64(w.ledger.oracle.Revision()))
}

// fail ends the world. Only the first failure counts: what comes after it may be
// its consequence.
func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = &Failure{At: w.env.Now(), Reason: fmt.Sprintf(format, args...)}
		w.trace.tell(w.env.Now(), "FAILED: %s", w.failure.Reason)
	}
}

// check fails the world if err is an error.
func (w *world) check(who any, err error) {
	if err != nil {
		w.fail("%v: %v", who, err)
	}
}

// guard runs code of a replica's process. A panic is a failure of the world,
// unless the process has just died under it.
func (r *replica) guard(f func()) {
	defer func() {
		if p := recover(); p != nil && !r.machine.Disk().Down() {
			r.w.fail("%v panics: %v\n%s", r, p, debug.Stack())
		}
	}()
	f()
}

// elected takes note of a new leader (election safety: one for each term, and
// not twice the same; leader completeness: it has all that was decided before).
func (w *world) elected(r *replica, term id.Term) {
	w.trace.fold(eventRole, uint64(r.member), uint64(term))
	w.trace.tell(w.env.Now(), "%v leads in term %d", r, term)
	now := leadership{r, r.runs}
	if former, taken := w.leaders[term]; taken && former != now {
		w.fail("election safety: %v (run %d) and %v (run %d) both led in term %d",
			former.leader, former.run, r, r.runs, term)
	}
	w.leaders[term] = now
	w.witness.elected(r, term)
	w.ledger.tenures.leads(term)
	w.faults.coup(r)
}
