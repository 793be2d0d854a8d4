package raft

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

// A lone voter leads as soon as it is asked to, commits by itself, confirms
// reads at once and never needs to be woken again.
func TestLoneVoterNeedsNobody(t *testing.T) {
	w := newWorld(1)
	r := w.replicas[0]
	r.start()
	r.node.Campaign(w.now)
	r.pump()
	w.settle(nil)
	if wake := r.node.Wake(); wake != env.Never {
		t.Fatalf("a lone leader wants to wake at %d", wake)
	}
	if _, err := r.propose("x"); err != nil {
		t.Fatal(err)
	}
	w.settle(nil)
	if _, err := r.read(); err != nil {
		t.Fatal(err)
	}
	if len(w.fates) != 1 || w.fates[0].Index != 2 || r.applied != 2 {
		t.Fatalf("reads %v, applied %d", w.fates, r.applied)
	}
	r.crash()
	r.start()
	w.pass(2 * time.Second)
	w.settle(nil)
	if s := r.node.Status(); s.Role != Leader || s.Hard.Term != 2 || s.Applied != 3 {
		t.Fatalf("after a restart: %+v", s)
	}
}

func TestThreeVotersElectReplicateAndRead(t *testing.T) {
	w := newWorld(3)
	for _, r := range w.replicas {
		r.start()
	}
	w.replicas[0].node.Campaign(w.now)
	w.replicas[0].pump()
	w.settle(nil)
	if w.leader() != w.replicas[0] {
		t.Fatalf("no leader: %+v", w.replicas[0].node.Status())
	}
	for range 10 {
		w.leader().propose("x")
	}
	w.replicas[2].read()
	w.settle(nil)
	w.pass(time.Second)
	w.settle(nil)
	for _, r := range w.replicas {
		if r.applied != 11 {
			t.Errorf("%v applied %d", r.id, r.applied)
		}
	}
	if len(w.fates) != 1 || w.fates[0].Err != nil {
		t.Fatalf("reads %v", w.fates)
	}
}

func noSum(Kind, id.Term, id.Index, []byte) uint32 { return 0 }

// The hot path of a lone voter allocates nothing but its log: a proposal, its
// Output, the report of its persistence, the Output that applies it.
func TestProposalOfALoneVoterDoesNotAllocate(t *testing.T) {
	w := newWorld(1)
	r := w.replicas[0]
	r.start()
	r.node.Campaign(w.now)
	r.pump()
	w.settle(nil)
	r.node.cfg.Sum = noSum
	n, data, term := r.node, make([]byte, 100), r.node.Status().Hard.Term
	round := func() {
		if _, err := n.Propose(w.now, term, data); err != nil {
			t.Fatal(err)
		}
		out, ok := n.Output()
		if !ok || !out.MustSync || len(out.Entries) != 1 {
			t.Fatalf("output %+v", out)
		}
		n.Persisted(w.now, out.Number)
		if out, ok = n.Output(); !ok || out.MustSync || len(out.Apply) != 1 {
			t.Fatalf("output %+v", out)
		}
		n.Applied(out.Apply[0].Index)
		if _, ok = n.Output(); ok {
			t.Fatal("something is left to do")
		}
	}
	// The log's own array grows now and then: less than once in ten proposals.
	if allocs := testing.AllocsPerRun(5000, round); allocs > 0.1 {
		t.Errorf("%.2f allocations for each proposal", allocs)
	}
}

// What is dropped from the cache can be collected: the array behind the log does
// not keep it for ever.
func TestCacheIsBounded(t *testing.T) {
	l := newLog(&Start{})
	for i := id.Index(1); i <= 10_000; i++ {
		l.add(Entry{Index: i, Term: 1, Data: make([]byte, 68)})
		l.claim(uint64(i))
		l.persisted(uint64(i))
		l.drop(1000, i)
		if l.bytes > 1000 || l.dead > 1000+100 || cap(l.entries) > 100 {
			t.Fatalf("at %d: %d bytes, %d dead, room for %d entries", i, l.bytes, l.dead, cap(l.entries))
		}
	}
}

// A start that contradicts itself is refused, with a Violation.
func TestContradictoryStarts(t *testing.T) {
	three := Conf{Voters: []id.Member{1, 2, 3}}
	good := func() Start {
		return Start{Hard: HardState{Term: 2, Commit: 2}, Conf: three, Previous: three, Last: 3, Applied: 1,
			Terms: []TermRun{{1, 1}, {3, 2}},
			Tail:  []Entry{{Term: 1, Index: 2}, {Term: 2, Index: 3}}}
	}
	w := newWorld(0)
	begin := func(s Start) (violation any) {
		defer func() { violation = recover() }()
		New(w.config(1), s, 0)
		return nil
	}
	if v := begin(good()); v != nil {
		t.Fatalf("a good start: %v", v)
	}
	for name, spoil := range map[string]func(s *Start){
		"applied beyond the log":       func(s *Start) { s.Applied = 4 },
		"applied before the log":       func(s *Start) { s.Base, s.Terms = Position{2, 1}, []TermRun{{3, 2}} },
		"commit beyond the log":        func(s *Start) { s.Hard.Commit = 4 },
		"a term beyond the hard state": func(s *Start) { s.Hard.Term = 1 },
		"terms that fall":              func(s *Start) { s.Terms[1].Term = 1 },
		"no terms":                     func(s *Start) { s.Terms = nil },
		"terms that begin late":        func(s *Start) { s.Terms = s.Terms[1:] },
		"a tail with another term":     func(s *Start) { s.Tail[1].Term = 1 },
		"a tail with a gap":            func(s *Start) { s.Tail[0].Index = 1 },
		"a tail that begins late":      func(s *Start) { s.Tail = s.Tail[1:] },
		"voters in disorder":           func(s *Start) { s.Conf = Conf{Voters: []id.Member{2, 1}} },
		"a configuration to come":      func(s *Start) { s.ConfIndex = 9 },
		"a base beyond the end":        func(s *Start) { s.Base.Index = 9 },
	} {
		s := good()
		spoil(&s)
		if _, ok := begin(s).(invariant.Violation); !ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A damaged log may contradict its commit hint and its term: that is the damage.
func TestDamagedStartMayContradictItsHints(t *testing.T) {
	three := Conf{Voters: []id.Member{1, 2, 3}}
	n := New(newWorld(0).config(1), Start{Hard: HardState{Term: 1, Vote: 2, Commit: 9}, Conf: three, Previous: three,
		Last: 1, Terms: []TermRun{{1, 2}}, Tail: []Entry{{Term: 2, Index: 1}}, Damaged: true}, 0)
	if s := n.Status(); s.Hard != (HardState{Term: 2, Commit: 1}) || !s.Damaged {
		t.Fatalf("%+v", s)
	}
	n.Campaign(0)
	if s := n.Status(); s.Role != Follower {
		t.Fatal("a damaged replica stands for election")
	}
}

// A damaged log may have gone back in time: entries that had been replaced are there
// again, under indices that were acknowledged and committed since. What a leader says of
// those commits nothing here, until its entries have been compared. (World 3001501 of
// three members applied such entries.)
func TestADamagedLogIsNotCommittedByHearsay(t *testing.T) {
	three := Conf{Voters: []id.Member{1, 2, 3}}
	tail := []Entry{{Term: 1, Index: 1}, {Term: 1, Index: 2}, {Term: 1, Index: 3}}
	n := New(newWorld(0).config(1), Start{Hard: HardState{Term: 5, Commit: 1}, Conf: three, Previous: three,
		Last: 3, Terms: []TermRun{{1, 1}}, Tail: tail, Damaged: true}, 0)
	commit := func(body Body) id.Index {
		n.Step(0, Message{From: 2, To: 1, Term: 5, Body: body})
		return n.Status().Hard.Commit
	}
	if got := commit(&Heartbeat{Commit: 3}); got != 1 {
		t.Fatalf("commit %d by a heartbeat", got)
	}
	if got := commit(&Append{Previous: Position{2, 1}, Entries: []Entry{{Term: 2, Index: 3}}, Commit: 2}); got != 2 {
		t.Fatalf("commit %d by an append", got)
	}
	if got := commit(&Heartbeat{Commit: 3}); got != 3 || n.log.end() != (Position{3, 2}) {
		t.Fatalf("commit %d by a heartbeat after it, %v", got, n.log.end())
	}
}

// A read that was forwarded is asked again while the leader is still the leader,
// since its message or the answer may be lost.
func TestForwardedReadIsRepeated(t *testing.T) {
	w := newWorld(3)
	for _, r := range w.replicas {
		r.start()
	}
	w.replicas[0].node.Campaign(w.now)
	w.replicas[0].pump()
	w.settle(nil)
	if _, err := w.replicas[1].read(); err != nil {
		t.Fatal(err)
	}
	w.net = nil
	for range 6 {
		w.pass(100 * time.Millisecond)
		w.settle(nil)
	}
	if len(w.fates) != 1 || w.fates[0].Err != nil {
		t.Fatalf("reads %v", w.fates)
	}
}

// Reads gather while the leader does not answer. One question goes on for all of
// them, and its answer is an answer to all; that to an earlier one is not.
func TestOneQuestionForAllReadsThatWait(t *testing.T) {
	w := newWorld(3)
	for _, r := range w.replicas {
		r.start()
	}
	w.replicas[0].node.Campaign(w.now)
	w.replicas[0].pump()
	w.settle(nil)
	follower := w.replicas[1]
	questions := func() (asked []Message) {
		for _, m := range w.net {
			if _, is := m.Body.(*ReadRequest); is {
				asked = append(asked, m)
			}
		}
		return asked
	}
	for range 50 {
		if _, err := follower.read(); err != nil {
			t.Fatal(err)
		}
	}
	first := questions()
	if len(first) != 50 {
		t.Fatalf("%d reads were asked for", len(first))
	}
	w.net = first[29:30]
	w.settle(nil)
	if len(w.fates) != 30 {
		t.Fatalf("the answer to the thirtieth ends %d", len(w.fates))
	}
	for again := 0; len(w.fates) < 50; {
		w.pass(100 * time.Millisecond)
		for _, r := range w.replicas {
			r.pump()
		}
		asked := questions()
		if again += len(asked); again > 1 {
			t.Fatalf("%d questions for the reads that wait", again)
		}
		w.settle(nil)
	}
	for i, f := range w.fates {
		if f.Err != nil || f.Index != w.fates[0].Index {
			t.Errorf("read %d: %+v", i, f)
		}
	}
}

// A round that was acknowledged, but whose acknowledgement was lost, is asked for
// again even when entries flow all the time.
func TestLostRoundIsAskedAgain(t *testing.T) {
	w := newWorld(3)
	for _, r := range w.replicas {
		r.start()
	}
	w.replicas[0].node.Campaign(w.now)
	w.replicas[0].pump()
	w.settle(nil)
	leader := w.replicas[0]
	if _, err := leader.read(); err != nil {
		t.Fatal(err)
	}
	for len(w.net) > 0 {
		w.deliver(0)
		w.net = slices.DeleteFunc(w.net, func(m Message) bool { _, is := m.Body.(*RoundReply); return is })
	}
	for range 15 {
		w.pass(20 * time.Millisecond)
		leader.propose("x")
		w.settle(nil)
	}
	if len(w.fates) != 1 {
		t.Fatal("the read still waits")
	}
}

// The leader dies. One follower after the other loses its connection, in every
// order, and the last one to do so has the longest, the shortest or the same log:
// all the same there is a leader before anybody's time is out.
func TestFollowersLoseADeadLeaderOneByOne(t *testing.T) {
	for _, c := range []struct {
		voters int
		order  []int
		longer int // the one that has an entry more; 0 is nobody
	}{
		{3, []int{1, 2}, 0}, {3, []int{2, 1}, 0}, {3, []int{1, 2}, 1}, {3, []int{1, 2}, 2}, {3, []int{2, 1}, 1}, {3, []int{2, 1}, 2},
		{5, []int{1, 2, 3, 4}, 1}, {5, []int{4, 3, 2, 1}, 4}, {5, []int{4, 3, 2, 1}, 0}, {5, []int{2, 4, 1, 3}, 2},
	} {
		w := newWorld(c.voters)
		for _, r := range w.replicas {
			r.start()
		}
		dead := w.replicas[0]
		dead.node.Campaign(w.now)
		dead.pump()
		w.settle(nil)
		dead.propose("x")
		w.settle(func(from, to id.Member) bool {
			return from == dead.id && c.longer != 0 && to == w.replicas[c.longer].id
		})
		dead.crash()
		for _, i := range c.order {
			w.replicas[i].node.LeaderUnreachable(w.now)
			w.replicas[i].pump()
			w.settle(nil)
		}
		if l := w.leader(); l == nil {
			t.Errorf("%+v: nobody leads", c)
		}
	}
}

// Reads keep the leader talking to its followers. All the same one whose entries
// were lost, with or without the news that it could not be reached, is asked again.
func TestReadsDoNotKeepAFollowerFromBeingAskedAgain(t *testing.T) {
	for _, told := range []bool{false, true} {
		w := newWorld(3)
		for _, r := range w.replicas {
			r.start()
		}
		leader, away := w.replicas[0], w.replicas[1]
		leader.node.Campaign(w.now)
		leader.pump()
		w.settle(nil)
		for range 100 { // more than go ahead of an answer
			leader.propose("x")
		}
		w.settle(func(from, to id.Member) bool { return from != away.id && to != away.id })
		if told {
			leader.node.PeerUnreachable(away.id)
			leader.pump()
		}
		for range 15 {
			w.pass(20 * time.Millisecond)
			leader.read()
			w.settle(nil)
		}
		if away.applied != leader.applied {
			t.Errorf("told %v: the one that was away has applied %d of %d", told, away.applied, leader.applied)
		}
	}
}

// Messages for somebody else, from oneself, or from a term gone by change nothing.
func TestMessagesThatAreDropped(t *testing.T) {
	w := newWorld(3)
	for _, r := range w.replicas {
		r.start()
	}
	w.replicas[0].node.Campaign(w.now)
	w.replicas[0].pump()
	w.settle(nil)
	n := w.replicas[0].node
	for _, m := range []Message{
		{From: 2, To: 3, Term: 9, Body: &Heartbeat{}},
		{From: 1, To: 1, Term: 9, Body: &Heartbeat{}},
		{From: 2, To: 1, Term: 0, Body: &AppendReply{Match: 9}},
		{From: 2, To: 1, Term: 1, Body: &VoteReply{Granted: true}},
		{From: 2, To: 1, Term: 1, Body: &ReadReply{}},
		{From: 2, To: 1, Term: 1, Body: &RoundReply{Round: 99}},
		{From: 9, To: 1, Term: 1, Body: &AppendReply{Match: 9}},
	} {
		before := n.Status()
		n.Step(w.now, m)
		if out, ok := n.Output(); ok || !reflect.DeepEqual(before, n.Status()) {
			t.Errorf("%T from %v to %v in term %d: %+v", m.Body, m.From, m.To, m.Term, out)
		}
	}
}

// A broken promise of another replica, or of the host, ends this one.
func TestBrokenPromisesEndTheNode(t *testing.T) {
	for name, breach := range map[string]func(n *Node){
		"two leaders of a term":       func(n *Node) { n.Step(0, Message{From: 2, To: 1, Term: 1, Body: &Heartbeat{}}) },
		"an index never sent":         func(n *Node) { n.Step(0, Message{From: 2, To: 1, Term: 1, Body: &AppendReply{Match: 9}}) },
		"no body":                     func(n *Node) { n.Step(0, Message{From: 2, To: 1, Term: 1}) },
		"an output to come persisted": func(n *Node) { n.Persisted(0, 99) },
		"an entry to come applied":    func(n *Node) { n.Applied(9) },
		"more trimmed than applied":   func(n *Node) { n.Trimmed(Position{9, 1}) },
		"a committed entry replaced": func(n *Node) {
			n.Step(0, Message{From: 2, To: 1, Term: 2, Body: &Append{Entries: []Entry{{Term: 2, Index: 1}, {Term: 2, Index: 2}}, Commit: 9}})
			n.truncate(1)
		},
	} {
		w := newWorld(3)
		for _, r := range w.replicas {
			r.start()
		}
		w.replicas[0].node.Campaign(w.now)
		w.replicas[0].pump()
		w.settle(nil)
		func() {
			defer func() {
				if _, ok := recover().(invariant.Violation); !ok {
					t.Errorf("%s: nothing happened", name)
				}
			}()
			breach(w.replicas[0].node)
		}()
	}
}

// BenchmarkPropose is the path of one proposal of a leader with two followers, in
// batches of the given size.
func BenchmarkPropose(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) { benchmarkPropose(b, batch) })
	}
}

func benchmarkPropose(b *testing.B, batch int) {
	w := newWorld(3)
	for _, r := range w.replicas {
		r.start()
	}
	w.replicas[0].node.Campaign(w.now)
	w.replicas[0].pump()
	w.settle(nil)
	w.replicas[0].node.cfg.Sum = noSum
	n, data, term := w.replicas[0].node, make([]byte, 256), w.replicas[0].node.Status().Hard.Term
	b.ReportAllocs()
	for i := 0; i < b.N; i += batch {
		var last id.Index
		for range batch {
			last, _ = n.Propose(w.now, term, data)
		}
		out, _ := n.Output()
		n.Step(w.now, Message{From: 2, To: 1, Term: term, Body: &AppendReply{Match: last}})
		n.Step(w.now, Message{From: 3, To: 1, Term: term, Body: &AppendReply{Match: last}})
		n.Persisted(w.now, out.Number)
		for {
			out, ok := n.Output()
			if !ok {
				break
			}
			if len(out.Apply) > 0 {
				n.Applied(last)
			}
		}
	}
}

// Rule 9 for votes: what a disk reports about earlier outputs says nothing
// about a vote that is still on its way. 1 is made the only voter by an entry that
// is not on its disk yet, loses its leader, and votes for itself; it leads when
// the vote is durable, not when the entry is.
func TestOwnVoteCountsWhenItIsDurable(t *testing.T) {
	w := newWorld(2)
	r := w.replicas[0]
	r.start()
	n := r.node
	change := Entry{Term: 1, Index: 1, Kind: Change, Data: EncodeConf(Conf{Voters: []id.Member{1}})}
	change.Sum = testSum(change.Kind, 1, 1, change.Data)
	n.Step(w.now, Message{From: 2, To: 1, Term: 1, Body: &Append{Entries: []Entry{change}}})
	r.pump()
	n.LeaderUnreachable(w.now)
	r.pump()
	if len(r.flights) != 2 || n.Status().Role != Candidate {
		t.Fatalf("%d outputs on their way, %+v", len(r.flights), n.Status())
	}
	r.persist(1)
	if n.Status().Role != Candidate {
		t.Fatal("it leads by a vote that a crash would take back")
	}
	r.persist(1)
	if n.Status().Role != Leader {
		t.Fatal("its vote is durable, but it does not lead")
	}
}

// A reply that must wait for a vote on its way waits, even when nothing new is to
// be persisted; and an acknowledgement waits for the term in which it is given.
func TestPromisesWaitForTermAndVote(t *testing.T) {
	w := newWorld(3)
	r := w.replicas[0]
	r.start()
	n := r.node
	ask := Message{From: 2, To: 1, Term: 1, Body: &VoteRequest{}}
	for i := range 2 {
		n.Step(w.now, ask)
		out, ok := n.Output()
		if !ok || !out.MustSync || len(out.Send) != 0 || len(out.After) != 1 {
			t.Fatalf("request %d: %+v", i+1, out)
		}
	}
	n.Persisted(w.now, 2)

	w.now = w.now.Add(2 * time.Second)
	n.Step(w.now, Message{From: 3, To: 1, Term: 2, Body: &Append{}})
	first, _ := n.Output()
	n.Step(w.now, Message{From: 3, To: 1, Term: 2, Body: &Append{}})
	if out, ok := n.Output(); ok {
		t.Fatalf("acknowledged in a term that is on its way: %+v", out)
	}
	n.Persisted(w.now, first.Number)
	if out, ok := n.Output(); !ok || len(out.Send) != 1 {
		t.Fatalf("not acknowledged: %+v", out)
	}
}
