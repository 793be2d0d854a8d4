package raft

import (
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/id"
)

// small is one state of a small world: a few replicas, the messages between them,
// and what was ever committed. It is never changed: a step makes another one, which
// shares every replica but those that the step is about.
//
// Time stands still in it, and that makes it worse than the real one: any voter may
// stand at any moment without a pre-vote, and is heard by those who hear their
// leader (as if asked by the leader to stand). An election is one step, with any
// part of the others hearing of it: votes of one election commute with all that
// could come between. Links keep the order of messages; a step delivers the first
// message on a link or all of them. What is never delivered is lost; what is lost
// before others arrive is lost by a step of its own.
type small struct {
	replicas  []*smallReplica
	net       []packet // by link, in the order of sending
	committed []Entry
	leaders   []id.Member // by term
	left      budget
	rules     *smallRules
	// tell, where it is not nil, takes what the latest step was.
	tell *string
}

// smallRules are what is the same in all states of a world.
type smallRules struct {
	targets []Conf
	// late makes syncs steps of their own; a crash loses what is not synced.
	late bool
	// narrow has one entry on its way to each follower, not all of them.
	narrow bool
	// safetyOnly checks what clients would notice: one leader of a term, one
	// history, nothing lost. Otherwise it is also checked how that is brought about.
	safetyOnly bool
	// change appends a change; nil is Node.ProposeConf.
	change func(n *Node, c Conf) error
}

// budget is what may still happen in a small world, besides deliveries.
type budget struct {
	stands, crashes, losses, doubles, proposals, changes int
	// reminds are heartbeats that come due at a leader.
	reminds int
}

// packet is a message and its encoding.
type packet struct {
	key string
	m   Message
}

// smallReplica is a node and its disk. hash stands for all of it.
type smallReplica struct {
	id      id.Member
	node    *Node
	disk    disk
	flights []Output
	given   id.Index
	hash    uint64
}

// newSmall is a world of voters 1, 2, ... and of spares after them.
func newSmall(voters, spares int, rules *smallRules) *small {
	s := &small{rules: rules}
	var conf Conf
	for i := range voters {
		conf.Voters = append(conf.Voters, id.Member(i+1))
	}
	for i := range voters + spares {
		r := &smallReplica{id: id.Member(i + 1)}
		if i < voters {
			r.disk.conf = PlacedConf{Conf: conf}
		}
		r.start(rules)
		r.seal()
		s.replicas = append(s.replicas, r)
	}
	return s
}

func (r *smallReplica) start(rules *smallRules) {
	r.given, r.flights = 0, nil
	cfg := Config{ID: r.id, Group: 1, Election: time.Second, Heartbeat: 100 * time.Millisecond,
		MaxAppendBytes: 1 << 20, MaxInflightBytes: 1 << 22, MaxInflightMessages: 64, CacheBytes: 1 << 20,
		Draw: func(int64) int64 { return 0 }, Sum: testSum}
	if rules.narrow {
		cfg.MaxAppendBytes, cfg.MaxInflightMessages = 1, 1
	}
	r.node = New(cfg, r.disk.start(0, false), smallNow)
}

// after is a world to be changed by a step.
func (s *small) after() *small {
	t := *s
	if t.tell != nil {
		*t.tell = ""
	}
	t.replicas = slices.Clone(s.replicas)
	return &t
}

func (s *small) say(format string, args ...any) { *s.tell += fmt.Sprintf(format, args...) }

// change does something to a replica of a world that is being made.
func (s *small) change(m id.Member, do func(r *smallReplica)) *smallReplica {
	r := *s.replicas[m-1]
	r.node = r.node.copied()
	s.replicas[m-1] = &r
	do(&r)
	s.pump(&r)
	r.seal()
	s.judge(&r)
	return &r
}

// with is the world after a step that changes one replica.
func (s *small) with(m id.Member, step func(t *small, r *smallReplica)) *small {
	t := s.after()
	t.change(m, func(r *smallReplica) { step(t, r) })
	return t
}

// settled is the world after everything was delivered.
func (s *small) settled() *small {
	for len(s.net) > 0 || slices.ContainsFunc(s.replicas, func(r *smallReplica) bool { return len(r.flights) > 0 }) {
		for _, r := range s.replicas {
			if len(r.flights) > 0 {
				s = s.with(r.id, func(t *small, r *smallReplica) { t.sync(r) })
			}
		}
		if len(s.net) > 0 {
			s = s.flow(0, len(s.net), false)
		}
	}
	return s
}

// flow delivers up to so many messages of the link of packet k.
func (s *small) flow(k, upTo int, again bool) *small {
	link, count := s.net[k].link(), 0
	t := s.after()
	if t.tell != nil {
		t.say("%v -> %v", s.net[k].m.From, s.net[k].m.To)
	}
	for _, m := range t.pick(func(m Message) bool {
		if (packet{m: m}).link() != link || count == upTo {
			return false
		}
		count++
		return true
	}) {
		if t.tell != nil {
			t.say(" | term %d: %s", m.Term, describeBody(m.Body))
		}
		t.change(m.To, func(r *smallReplica) { r.node.Step(smallNow, m) })
		if again {
			t.post([]Message{m})
		}
	}
	if again {
		t.left.doubles--
		if t.tell != nil {
			t.say(" | and again later")
		}
	}
	return t
}

// elect is the world after m stood and those in voters heard of it and were heard.
func (s *small) elect(m id.Member, voters []id.Member) *small {
	t := s.after()
	if t.tell != nil {
		t.say("%v stands and %v hear of it", m, voters)
	}
	t.left.stands--
	var requests []Message
	t.change(m, func(r *smallReplica) {
		r.node.campaign(true)
		requests = t.syncUntil(r, func(x Message) bool { _, ok := x.Body.(*VoteRequest); return ok && x.From == m })
	})
	for _, x := range requests {
		if !slices.Contains(voters, x.To) {
			continue
		}
		var replies []Message
		t.change(x.To, func(r *smallReplica) {
			r.node.Step(smallNow, x)
			replies = t.syncUntil(r, func(y Message) bool {
				_, ok := y.Body.(*VoteReply)
				return ok && y.From == x.To && y.To == m
			})
		})
		for _, y := range replies {
			t.change(m, func(r *smallReplica) { r.node.Step(smallNow, y) })
		}
	}
	return t
}

// syncUntil syncs just as much of a replica as it takes to make it send something,
// and takes that off the network.
func (s *small) syncUntil(r *smallReplica, which func(Message) bool) []Message {
	for {
		s.pump(r)
		if sent := s.pick(which); len(sent) > 0 || len(r.flights) == 0 {
			return sent
		}
		s.sync(r)
	}
}

// pick takes messages off the network.
func (s *small) pick(which func(Message) bool) (picked []Message) {
	all := s.net
	for i := range all {
		switch {
		case which(all[i].m):
			if len(picked) == 0 {
				s.net = slices.Clone(all[:i])
			}
			picked = append(picked, all[i].m)
		case len(picked) > 0:
			s.net = append(s.net, all[i])
		}
	}
	return picked
}

// pump takes the outputs of a replica.
func (s *small) pump(r *smallReplica) {
	for {
		out, ok := r.node.Output()
		if !ok {
			return
		}
		for _, e := range out.Events {
			s.event(r, e)
		}
		s.post(out.Send)
		if out.MustSync {
			r.flights = append(slices.Clip(r.flights), out)
		}
		s.apply(r, out.Apply)
		if !s.rules.late {
			s.sync(r)
		}
	}
}

// sync persists the oldest output of a replica.
func (s *small) sync(r *smallReplica) {
	if len(r.flights) == 0 {
		return
	}
	out := r.flights[0]
	r.flights = slices.Clone(r.flights[1:])
	r.disk.write(&out)
	s.post(out.After)
	r.node.Persisted(smallNow, out.Number)
}

// post puts messages on the network. Answers to read rounds are all lost: there
// are no reads, and no clock by which anybody could be missed.
func (s *small) post(messages []Message) {
	for _, m := range messages {
		if _, round := m.Body.(*RoundReply); round {
			continue
		}
		p := packet{string(AppendMessage(nil, m)), m}
		at := len(s.net)
		for at > 0 && p.link() < s.net[at-1].link() {
			at--
		}
		if at == 0 || s.net[at-1].key != p.key {
			s.net = slices.Insert(slices.Clip(s.net), at, p)
		}
	}
}

func (p packet) link() int { return int(p.m.From)<<8 | int(p.m.To) }

// forgetStale takes answers off the network that can have no effect any more: of
// terms that are over on stable storage where they are to go.
func (s *small) forgetStale() {
	s.pick(func(m Message) bool {
		switch m.Body.(type) {
		case *AppendReply, *VoteReply, *TimeoutNow:
			return m.Term < s.replicas[m.To-1].disk.hard.Term
		}
		return false
	})
}
