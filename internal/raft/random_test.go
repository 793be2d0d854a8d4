package raft

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "first seed of the random worlds")
	countFlag = flag.Int("worlds", 0, "how many random worlds; 0 is the short run")
)

// dice is a world that goes wrong at random: messages are lost, doubled and
// reordered, replicas crash with whatever they had persisted, syncs and applies
// are late, links are cut, voters and learners come and go. world's checkers watch every
// step. Then the faults stop and progress is demanded.
type dice struct {
	*world
	rng *rand.Rand
	// cut holds the links that are down.
	cut map[[2]id.Member]bool
	// loss is how many of 100 messages are lost.
	loss int
	// trouble is how many of 1000 steps are faults.
	trouble int
	// storm makes most faults those that change leaders, moving many of them those
	// that change members.
	storm, moving bool
	// damage allows one replica to lose the end of its log (rule 5); steady worlds
	// keep their voters, so that the damaged one is never needed.
	damage, steady bool
	proposed       int
	reached        map[string]int
}

func newDice(seed uint64, reached map[string]int) *dice {
	rng := rand.New(rand.NewPCG(seed, 7))
	d := &dice{world: newWorld(1 + rng.IntN(5)), rng: rng, cut: map[[2]id.Member]bool{}, reached: reached}
	d.world.draw = rng.Int64N
	d.loss = rng.IntN(3) * 10
	d.trouble = 5 + rng.IntN(40)
	d.storm = rng.IntN(3) == 0
	if d.storm {
		d.trouble = 50 + rng.IntN(200)
	}
	d.moving = rng.IntN(3) == 0
	if d.moving {
		d.trouble = max(d.trouble, 60)
	}
	d.slowApply = rng.IntN(2) == 0
	d.damage = rng.IntN(4) == 0 && len(d.replicas) >= 3
	d.steady = d.damage
	small, least := rng.IntN(2) == 0, 40+rng.IntN(80)
	// In a quarter of the worlds some replicas, or all, stand without a pre-vote. The draws
	// are apart, so that the other worlds are what they were.
	apart, unasked := rand.New(rand.NewPCG(seed, 8)), 0
	if apart.IntN(4) == 0 {
		unasked = []int{0xff, apart.IntN(0x100)}[apart.IntN(2)]
		reached["unasked"]++
	}
	d.tune = func(c *Config) {
		c.NoPreVote = unasked>>c.ID&1 == 1
		if small {
			c.MaxAppendBytes, c.MaxInflightBytes, c.MaxInflightMessages, c.CacheBytes = least, 200, 3, 100
		}
	}
	for len(d.replicas) < 5 {
		d.add(id.Member(len(d.replicas)+1), Conf{}) // may be voted in later
	}
	for _, r := range d.replicas {
		r.start()
	}
	return d
}

func (d *dice) pick() *replica { return d.replicas[d.rng.IntN(len(d.replicas))] }

// step does one thing of those that can happen.
func (d *dice) step() {
	r := d.pick()
	if !r.up() {
		if d.rng.IntN(3) == 0 {
			r.start()
		}
		return
	}
	switch p := d.rng.IntN(1000); {
	case p < 450:
		d.message()
	case p < 650:
		r.persist(1 + d.rng.IntN(3))
	case p < 730:
		r.reportApplied()
		if d.rng.IntN(3) == 0 {
			r.flushed = r.applied
		}
		r.pump()
	case p < 790:
		r.load()
		r.save(d.rng.IntN(4) == 0)
	case p < 850:
		d.pass(time.Duration(d.rng.IntN(200)) * time.Millisecond)
	case p < 930:
		d.proposed++
		if l := d.leader(); l != nil && d.rng.IntN(2) == 0 {
			r = l
		}
		r.propose(fmt.Sprintf("p%d", d.proposed))
	case p < 1000-d.trouble:
		r.read()
	default:
		d.fault(r)
	}
}

func (d *dice) fault(r *replica) {
	kind := d.rng.IntN(12)
	if d.storm && d.rng.IntN(4) != 0 {
		kind = []int{0, 2, 3, 12}[d.rng.IntN(4)]
	}
	if d.moving && d.rng.IntN(2) == 0 {
		kind = 7
		if l := d.leader(); l != nil {
			r = l
		}
	}
	switch kind {
	case 0, 1:
		d.crash(r)
	case 2:
		d.isolate(r)
	case 3, 4:
		clear(d.cut)
	case 5:
		r.trim(r.applied - min(r.applied, id.Index(d.rng.IntN(4))))
	case 6:
		r.node.Transfer(d.now, id.Member(d.rng.IntN(6)))
		r.pump()
	case 7, 8:
		if d.steady {
			return
		}
		d.change(r)
	case 9:
		r.node.LeaderUnreachable(d.now)
		r.pump()
	case 10:
		r.node.PeerUnreachable(d.pick().id)
		r.pump()
	case 11:
		r.node.Campaign(d.now)
		r.pump()
	case 12:
		d.coup()
	}
}

// coup lets the leader be silent until others stand, and delivers nothing but
// votes: leaders change quickly, and with little replicated in between (figure 8
// of the paper needs three of them in a row).
func (d *dice) coup() {
	d.pass(time.Second)
	for range 4 {
		d.pass(time.Duration(d.rng.IntN(150)) * time.Millisecond)
		for range 4 {
			for _, r := range d.replicas {
				if r.up() {
					r.persist(len(r.flights))
				}
			}
			sent := d.net
			d.net = nil
			for _, m := range sent {
				switch m.Body.(type) {
				case *VoteRequest, *VoteReply:
					if !d.cut[[2]id.Member{m.From, m.To}] {
						d.receive(m)
					}
				}
			}
		}
	}
}

// isolate cuts some links of a replica, often all; often the leader's. The
// others may notice at once that their connections broke.
func (d *dice) isolate(r *replica) {
	if l := d.leader(); l != nil && d.rng.IntN(2) == 0 {
		r = l
	}
	whole := d.rng.IntN(2) == 0
	for _, other := range d.replicas {
		if whole || d.rng.IntN(3) == 0 {
			d.cut[[2]id.Member{r.id, other.id}] = true
		}
		if whole || d.rng.IntN(3) == 0 {
			d.cut[[2]id.Member{other.id, r.id}] = true
		}
		if whole && other != r && other.up() && d.rng.IntN(2) == 0 {
			other.node.LeaderUnreachable(d.now)
			other.pump()
		}
	}
}

// crash may take away the end of the log as well: then the replica knows that it
// is damaged. Only one ever is, or the others could not vote.
func (d *dice) crash(r *replica) {
	r.crash()
	if !d.damage || d.rng.IntN(2) == 0 || !slices.Contains(d.replicas[0].disk.confs()[0].Conf.Voters, r.id) {
		return
	}
	d.damage = false
	if keep := max(r.flushed, r.disk.base.Index); keep < r.disk.last() {
		r.disk.entries = r.disk.entries[:keep-r.disk.base.Index]
		r.damaged = true
		d.reached["damage"]++
	}
}

// change proposes another configuration and notes what kind it was of.
func (d *dice) change(r *replica) {
	old := r.node.conf().clone()
	next := d.otherConf(old)
	if _, err := r.node.ProposeConf(d.now, r.node.effective().Index, next, nil); err != nil {
		return
	}
	switch promoted := slices.ContainsFunc(next.Voters, func(m id.Member) bool { return slices.Contains(old.Learners, m) }); {
	case r.node.conf().Joint():
		d.reached["joint"]++
	case promoted:
		d.reached["promoted"]++
	case !slices.Equal(next.Learners, old.Learners):
		d.reached["learners changed"]++
	}
	r.pump()
}

// otherConf takes one member into or out of a list, or moves a learner to the
// voters, or makes a new configuration of everybody.
func (d *dice) otherConf(c Conf) Conf {
	next := c.clone()
	next.Outgoing = nil
	m := d.pick().id
	without := func(list []id.Member) []id.Member {
		return slices.DeleteFunc(list, func(x id.Member) bool { return x == m })
	}
	next.Voters, next.Learners = without(next.Voters), without(next.Learners)
	switch d.rng.IntN(5) {
	case 0, 1: // one voter more, a learner perhaps until now, or less
		if !c.Votes(m) {
			next.Voters = append(next.Voters, m)
		}
	case 2: // one learner more or less; or a voter becomes one
		if !slices.Contains(c.Learners, m) {
			next.Learners = append(next.Learners, m)
		}
	default:
		next = Conf{}
		for _, r := range d.replicas {
			switch p := d.rng.IntN(4); {
			case p < 2:
				next.Voters = append(next.Voters, r.id)
			case p == 2 && (d.rng.IntN(4) == 0 || !c.Votes(r.id)):
				next.Learners = append(next.Learners, r.id)
			}
		}
		if d.rng.IntN(2) == 0 {
			// The same voters, and all others may be learners at once.
			next.Voters = slices.Clone(c.Voters)
			next.Learners = slices.DeleteFunc(next.Learners, c.Votes)
		}
	}
	slices.Sort(next.Voters)
	slices.Sort(next.Learners)
	return next
}

// message loses, doubles, or delivers one message, mostly an early one.
func (d *dice) message() {
	if len(d.net) == 0 {
		return
	}
	i := d.rng.IntN(min(len(d.net), 4))
	if d.rng.IntN(10) == 0 {
		i = d.rng.IntN(len(d.net))
	}
	m := d.net[i]
	switch p := d.rng.IntN(100); {
	case p < d.loss || d.cut[[2]id.Member{m.From, m.To}]:
		d.net = slices.Delete(d.net, i, i+1)
	case p > 95:
		d.receive(m)
	default:
		d.deliver(i)
	}
	if len(d.net) > 200 {
		d.net = d.net[100:]
	}
}

// calm ends all faults and demands that a leader appears, commits something new,
// and that every member applies it, every read ends, and no configuration stays
// joint.
func (d *dice) calm() error {
	clear(d.cut)
	for _, r := range d.replicas {
		if !r.up() {
			r.start()
		}
	}
	deadline := d.now.Add(30 * time.Second)
	var want id.Index
	for d.now < deadline {
		d.settle(nil)
		d.pass(100 * time.Millisecond)
		leader := d.leader()
		if leader == nil {
			continue
		}
		if want == 0 {
			want, _ = leader.propose("calm")
			leader.read()
			continue
		}
		done := int(want) <= len(d.committed) && len(d.reads) == 0 && !leader.node.conf().Joint()
		for _, m := range leader.node.conf().Members() {
			done = done && d.replica(m).applied >= want
		}
		if done {
			if got := string(d.committed[want-1].Data); got != "calm" {
				want = 0 // another leader took over; ask it
				continue
			}
			return nil
		}
		if d.now.Sub(env.Instant(0))%(5*time.Second) < 100*time.Millisecond {
			want = 0
		}
	}
	story := fmt.Sprintf("no progress: %d committed, waiting for %d, reads %v", len(d.committed), want, d.reads)
	for _, r := range d.replicas {
		story += fmt.Sprintf("\n%+v, wakes in %v", r.node.Status(), r.node.Wake().Sub(d.now))
	}
	return errors.New(story)
}

func runWorld(seed uint64, steps int, reached map[string]int, tell func(string, ...any)) (err error) {
	defer func() {
		if v := recover(); v != nil {
			if violation, ok := v.(invariant.Violation); ok {
				err = fmt.Errorf("%w\n%s", violation, debug.Stack())
			} else {
				err = fmt.Errorf("%v\n%s", v, debug.Stack())
			}
		}
	}()
	d := newDice(seed, reached)
	d.tell = tell
	for range steps {
		d.step()
	}
	d.logMatching()
	reached["committed"] += len(d.committed)
	reached["terms"] += len(d.leaders)
	reached["removed"] += len(d.removed)
	err = d.calm()
	d.logMatching()
	for _, r := range d.replicas {
		if r.disk.base.Index > 0 {
			reached["trimmed"]++
		}
	}
	for _, f := range d.fates {
		if f.Err == nil {
			reached["reads"]++
		} else {
			reached["reads refused"]++
		}
	}
	return err
}

func TestRandomWorlds(t *testing.T) {
	count := *countFlag
	if count == 0 {
		count = 3000
		if invariant.Dear {
			count = 300
		}
	}
	reached := map[string]int{}
	var tell func(string, ...any)
	if count == 1 {
		tell = t.Logf // one world tells its story
	}
	for seed := *seedFlag; seed < *seedFlag+uint64(count); seed++ {
		if err := runWorld(seed, 1000, reached, tell); err != nil {
			t.Fatalf("seed %d (go test -run TestRandomWorlds -seed %d -worlds 1): %v", seed, seed, err)
		}
	}
	t.Logf("reached: %v", reached)
	for _, what := range []string{"committed", "terms", "reads", "reads refused", "trimmed", "damage",
		"joint", "promoted", "learners changed", "removed", "unasked"} {
		if reached[what] == 0 && count >= 300 {
			t.Errorf("no world ever saw %s: the worlds are too tame", what)
		}
	}
}
