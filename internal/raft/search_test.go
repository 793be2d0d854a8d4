package raft

import (
	"flag"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

var deepFlag = flag.Int("deep", 0, "how many states of each small world to visit at most; 0 is the short search")

// smallWorld is where a search begins and what may happen in it.
type smallWorld struct {
	name           string
	voters, spares int
	// led: 1 leads and has committed the first entry of its term; then it made first
	// the configuration, if that is set.
	led   bool
	first *Conf
	// opening, if it is set, is what happens before the search begins.
	opening func(*small) *small
	rules   smallRules
	left    budget
	// deep is what may happen in a long search.
	deep budget
}

var three = members(1, 2, 3)

// begin makes the first state.
func (w *smallWorld) begin(tell *string) *small {
	s := newSmall(w.voters, w.spares, &w.rules)
	if w.led {
		s = s.elect(1, members(2, 3)).settled()
		if w.first != nil {
			s = s.with(1, func(_ *small, r *smallReplica) {
				if _, err := r.node.ProposeConf(smallNow, 0, *w.first, nil); err != nil {
					panic(err)
				}
			}).settled()
		}
	}
	if w.opening != nil {
		s = w.opening(s)
	}
	s.left, s.tell = w.left, tell
	return s
}

// each calls visit with every state that is one step away.
func (s *small) each(visit func(*small)) {
	for k := range s.net {
		if k > 0 && s.net[k].link() == s.net[k-1].link() {
			continue
		}
		link := 1
		for k+link < len(s.net) && s.net[k].link() == s.net[k+link].link() {
			link++
		}
		visit(s.flow(k, link, false))
		if link > 1 {
			visit(s.flow(k, 1, false))
		}
		if s.left.doubles > 0 {
			visit(s.flow(k, link, true))
		}
		if s.left.losses > 0 {
			t := s.after()
			if t.tell != nil {
				t.say("%v -> %v loses all", s.net[k].m.From, s.net[k].m.To)
			}
			t.left.losses--
			t.pick(func(m Message) bool { return packet{m: m}.link() == s.net[k].link() })
			visit(t)
		}
	}
	for _, r := range s.replicas {
		s.eachElection(r, visit)
		s.eachOf(r, visit)
		if r.node.role == Leader {
			s.eachOfLeader(r, visit)
		}
	}
}

// eachElection lets a replica stand, and each part of the others hear of it.
func (s *small) eachElection(r *smallReplica, visit func(*small)) {
	n := r.node
	if s.left.stands == 0 || n.role == Leader || !n.mayStand() {
		return
	}
	others := slices.DeleteFunc(n.electors(), func(m id.Member) bool { return m == r.id })
	for set := range 1 << len(others) {
		var voters []id.Member
		for i, m := range others {
			if set>>i&1 != 0 {
				voters = append(voters, m)
			}
		}
		visit(s.elect(r.id, voters))
	}
}

// eachOf crashes and syncs a replica.
func (s *small) eachOf(r *smallReplica, visit func(*small)) {
	if s.left.crashes > 0 && (r.node.hard.Term > 0 || len(r.node.log.entries) > 0) {
		t := s.after()
		if t.tell != nil {
			t.say("%v crashes and is back", r.id)
		}
		t.left.crashes--
		t.pick(func(m Message) bool { return m.To == r.id || m.From == r.id })
		t.change(r.id, func(r *smallReplica) { r.start(t.rules) })
		visit(t)
	}
	if len(r.flights) > 0 {
		t := s.after()
		if t.tell != nil {
			t.say("%v has synced", r.id)
		}
		t.change(r.id, func(r *smallReplica) { t.sync(r) })
		visit(t)
	}
}

// eachOfLeader is what a leader may be asked.
func (s *small) eachOfLeader(r *smallReplica, visit func(*small)) {
	if s.left.proposals > 0 {
		t := s.after()
		if t.tell != nil {
			t.say("%v proposes", r.id)
		}
		t.left.proposals--
		t.change(r.id, func(r *smallReplica) { r.node.Propose(smallNow, r.node.hard.Term, []byte("x")) })
		visit(t)
	}
	if s.left.reminds > 0 {
		t := s.after()
		if t.tell != nil {
			t.say("%v sends heartbeats", r.id)
		}
		t.left.reminds--
		t.change(r.id, func(r *smallReplica) { r.node.remindAll() })
		visit(t)
	}
	for i := 0; s.left.changes > 0 && i < len(s.rules.targets); i++ {
		t := s.after()
		c := s.rules.targets[i]
		if t.tell != nil {
			t.say("%v changes to %s", r.id, describeConf(c))
		}
		t.left.changes--
		var err error
		t.change(r.id, func(r *smallReplica) { err = s.rules.propose(r.node, c) })
		if err == nil {
			visit(t)
		}
	}
}

// remindAll is what a leader does when heartbeats are due.
func (n *Node) remindAll() {
	for i := range n.followers {
		f := &n.followers[i]
		f.Due, n.dirty = true, true
		f.AskAgain()
	}
}

func (rules *smallRules) propose(n *Node, c Conf) error {
	latest := n.confs[len(n.confs)-1]
	if rules.change != nil {
		return rules.change(n, c)
	}
	_, err := n.ProposeConf(smallNow, latest.Index, c, nil)
	return err
}

// trail is how a state came about: by which of the steps from the one before.
type trail struct {
	before *trail
	step   int
}

type visited struct {
	*small
	*trail
}

// found is what a search has seen. depth is how many steps away all states were
// visited; complete that there are no others; story is how one that must not be came
// about, if one was met.
type found struct {
	states, depth int
	complete      bool
	story         string
}

// search visits the states of a small world, nearest first, up to a number of them,
// of which it keeps so many at a time to go on from.
func (w *smallWorld) search(limit, keep int) (f found) {
	first := w.begin(nil)
	seen := map[uint64]struct{}{first.hash(): {}}
	level := []visited{{first, &trail{}}}
	step := 0
	var at visited
	defer func() {
		f.states = len(seen)
		if v := recover(); v != nil {
			violation, ok := v.(invariant.Violation)
			if !ok {
				panic(v)
			}
			f.story = w.story(&trail{at.trail, step}) + "\n" + violation.Message
		}
	}()
	whole := true
	for ; len(level) > 0; f.depth++ {
		var next []visited
		for i := range level {
			at, step = level[i], 0
			level[i] = visited{}
			at.each(func(t *small) {
				t.forgetStale()
				h := t.hash()
				if _, known := seen[h]; !known {
					seen[h] = struct{}{}
					if len(next) < keep {
						next = append(next, visited{t, &trail{at.trail, step}})
					} else {
						whole = false
					}
				}
				step++
			})
			if len(seen) >= limit {
				return f
			}
		}
		if !whole {
			return f
		}
		level = next
	}
	f.complete = true
	return f
}

// story tells how a state came about, by letting it happen again.
func (w *smallWorld) story(t *trail) string {
	var steps []int
	for ; t.before != nil; t = t.before {
		steps = append(steps, t.step)
	}
	slices.Reverse(steps)
	var line string
	var lines []string
	s := w.begin(&line)
	for _, step := range steps {
		count := 0
		var next *small
		func() {
			defer func() { _ = recover() }() // the last step goes wrong, that is the point
			s.each(func(t *small) {
				if count == step {
					t.forgetStale()
					next = t
					lines = append(lines, line)
				}
				count++
			})
		}()
		if next == nil {
			lines = append(lines, line)
			break
		}
		s = next
	}
	return strings.Join(lines, "\n")
}
