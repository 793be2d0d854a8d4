package host

import (
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
)

// Any member takes proposals and reads; all apply the same.
func TestThreeReplicasServeEverywhere(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, seed, 3).start()
		w.untilLed()
		var tags []uint64
		for i := range 30 {
			tags = append(tags, w.members[i%3].put(0), w.members[(i+1)%3].read(0))
			w.run(time.Duration(w.draw.Int64N(int64(time.Millisecond))))
		}
		for _, tag := range tags {
			if r := w.result(tag); r.Err != nil {
				t.Fatalf("seed %d: call %d: %v", seed, tag, r.Err)
			}
		}
		w.converge()
		w.check()
	}
}

// Random worlds: messages lost, doubled and late, members cut off, crashed and
// started again, calls everywhere. Nothing acknowledged is lost or doubled, no
// read looks into the past, and when the faults stop everything goes on.
func TestRandomWorldsOfThree(t *testing.T) {
	seeds := uint64(60)
	if n, err := strconv.Atoi(os.Getenv("HOST_SEEDS")); err == nil {
		seeds = uint64(n)
	}
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		randomWorld(t, 1000+seed, 3)
		if t.Failed() {
			t.Fatalf("seed %d", 1000+seed)
		}
	}
}

func randomWorld(t testing.TB, seed uint64, members int) *world {
	w := newWorld(t, seed, members)
	w.drop, w.double = w.draw.Int64N(100), w.draw.Int64N(100)
	w.delay = time.Duration(1+w.draw.Int64N(40)) * time.Millisecond
	if w.draw.Int64N(3) == 0 {
		w.limits.FlushBytes, w.limits.RetainBytes = 2000, 1000
	}
	if w.draw.Int64N(3) == 0 {
		w.limits.BatchBytes, w.limits.AppendBytes, w.limits.CacheBytes = 200, 1, 1
	}
	padding := int(w.draw.Int64N(3) * 2000) // long values make the log be trimmed
	w.start()
	alive := func() *member { return w.members[w.draw.Int64N(int64(members))] }
	for range 60 {
		m := alive()
		switch w.draw.Int64N(12) {
		case 0:
			if !m.up() {
				break
			}
			for range w.draw.Int64N(5) {
				m.propose(padding, 5*time.Second)
			}
			for range w.draw.Int64N(40) {
				w.step() // the crash may come anywhere in their way
			}
			m.crash(simenv.Crash(w.draw.Int64N(2)))
			w.forget(m)
		case 1, 2:
			if !m.up() && !m.start() {
				t.Fatalf("seed %d: member %v: %v", seed, m.id, m.openErr)
			}
		case 3:
			w.cut[m.id] = !w.cut[m.id]
		case 4:
			if m.up() {
				m.host.Unreachable(alive().id)
				m.poke()
			}
		case 5:
			if m.up() && m.group.Transfer(0) == nil {
				m.poke()
			}
		default:
			for range w.draw.Int64N(8) {
				if m = alive(); !m.up() {
					continue
				}
				if m.group.Leader() == m.id && w.draw.Int64N(4) == 0 {
					m.duty(m.group.Term())
				} else if w.draw.Int64N(4) == 0 {
					m.read(time.Duration(1+w.draw.Int64N(8)) * time.Second)
				} else {
					m.propose(padding, time.Duration(1+w.draw.Int64N(8))*time.Second)
				}
			}
		}
		w.run(time.Duration(w.draw.Int64N(int64(400 * time.Millisecond))))
	}
	w.drop, w.double, w.delay = 0, 0, 3*time.Millisecond
	clear(w.cut)
	for _, m := range w.members {
		if !m.up() && !m.start() {
			t.Fatalf("seed %d: member %v: %v", seed, m.id, m.openErr)
		}
	}
	w.untilLed()
	for _, m := range w.members {
		// A member that is caught up by a snapshot cannot tell what became of a put.
		r := w.result(m.put(0))
		for tries := 0; errors.Is(r.Err, ErrTimeoutLeader) && tries < 3; tries++ {
			r = w.result(m.put(0))
		}
		if r.Err != nil {
			t.Fatalf("seed %d: a put in peace: %v", seed, r.Err)
		}
	}
	w.converge()
	w.check()
	return w
}

// forget takes back the open calls of a member that crashed: nobody waits any
// more.
func (w *world) forget(m *member) {
	for tag, c := range w.calls {
		if _, ok := w.sink.get(tag); !ok && c.from == m {
			w.sink.results[tag] = Result{Tag: tag, Err: errCrashed}
		}
	}
}

var errCrashed = errors.New("the member crashed")

// A forwarder whose messages are doubled and sent again has each proposal applied
// once: the leader keeps a window.
func TestDoubledForwardsAreAppliedOnce(t *testing.T) {
	w := newWorld(t, 3, 3).start()
	leader := w.untilLed()
	w.double = 1000
	follower := w.members[leader.id%3]
	lost := 0
	w.onSend = func(e *Envelope) bool {
		// The first answers of the leader get lost, so that proposals are sent again.
		if e.From == leader.id && e.Raft != nil && lost < 200 {
			lost++
			return lost%2 == 0
		}
		return false
	}
	for range 50 {
		follower.put(0)
		w.run(10 * time.Millisecond)
	}
	w.until(30*time.Second, "all answers", w.isDone)
	w.converge()
	w.check()
}

// A forward that gets lost is sent again in the same term.
func TestALostForwardIsSentAgain(t *testing.T) {
	w := newWorld(t, 4, 3).start()
	leader := w.untilLed()
	forwards := 0
	w.onSend = func(e *Envelope) bool {
		if e.Forward != nil {
			forwards++
			return forwards == 1
		}
		return false
	}
	term := leader.group.Term()
	tag := w.members[leader.id%3].put(0)
	if r := w.result(tag); r.Err != nil || forwards != 2 || leader.group.Term() != term {
		t.Fatalf("%+v after %d forwards, term %d then %d", r, forwards, term, leader.group.Term())
	}
}

// The proposals of a leader that is cut off are proposed again under the next one,
// once, when it is known that they are lost.
func TestADeposedLeadersProposalsAreProposedAgain(t *testing.T) {
	w := newWorld(t, 5, 3).start()
	old := w.untilLed()
	w.cut[old.id] = true
	tag := old.put(0)
	var next *member
	w.until(20*time.Second, "another leader", func() bool { next = w.leader(); return next != nil && next != old })
	if _, ended := w.sink.get(tag); ended {
		t.Fatal("the call of a member that is cut off ended")
	}
	term := next.group.Term()
	delete(w.cut, old.id)
	r := w.result(tag)
	if r.Err != nil || w.log[r.Index].Term < term {
		t.Fatalf("%+v in term %d", r, w.log[r.Index].Term)
	}
	w.converge()
	w.check()
}

// Calls end at their deadline with what is known of the leader.
func TestDeadlines(t *testing.T) {
	w := newWorld(t, 6, 3).start()
	old := w.untilLed()
	for _, m := range w.members {
		w.cut[m.id] = true
	}
	sent := old.put(500 * time.Millisecond)
	read := old.read(500 * time.Millisecond)
	if r := w.result(sent); !errors.Is(r.Err, ErrTimeout) {
		t.Fatalf("a put that was sent: %v", r.Err)
	}
	if r := w.result(read); !errors.Is(r.Err, ErrTimeout) {
		t.Fatalf("a read: %v", r.Err)
	}
	w.until(20*time.Second, "no leader", func() bool { return old.group.Leader() == 0 })
	waiting := old.put(time.Second)
	if r := w.result(waiting); !errors.Is(r.Err, ErrNoLeader) {
		t.Fatalf("a put that found no leader: %v", r.Err)
	}
	clear(w.cut)
	w.converge()
	w.check()
}

// A call that outlived a leader's failure says so.
func TestATimeOutNamesTheLeadersFailure(t *testing.T) {
	w := newWorld(t, 7, 3).start()
	old := w.untilLed()
	// The other two elect a leader that the old one hears of, but its entries do
	// not get through to the old one, so that the fate of its put stays open.
	w.cut[old.id] = true
	tag := old.put(4 * time.Second)
	w.until(3*time.Second, "another leader", func() bool { l := w.leader(); return l != nil && l != old })
	delete(w.cut, old.id)
	w.onSend = func(e *Envelope) bool { return e.To == old.id && e.weight() > envelopeWeight }
	if r := w.result(tag); !errors.Is(r.Err, ErrTimeoutLeader) {
		t.Fatalf("%v", r.Err)
	}
}

// Reads that wait in one turn share one read of raft.
func TestReadsOfATurnShareOneQuestion(t *testing.T) {
	w := newWorld(t, 8, 3).start()
	leader := w.untilLed()
	follower := w.members[leader.id%3]
	before := follower.group.reads.next
	for range 100 {
		follower.read(0)
	}
	w.until(5*time.Second, "all answers", w.isDone)
	if asked := follower.group.reads.next - before; asked > 2 {
		t.Fatalf("%d questions for 100 reads", asked)
	}
	w.check()
}

// A duty belongs to the leader and the term that made it.
func TestDutiesStayInTheirTerm(t *testing.T) {
	w := newWorld(t, 9, 3).start()
	leader := w.untilLed()
	propose := func(m *member, term id.Term) error { return w.result(m.duty(term)).Err }
	term := leader.group.Term()
	if err := propose(leader, term); err != nil {
		t.Fatalf("the leader's own duty: %v", err)
	}
	if err := propose(leader, term-1); !errors.Is(err, ErrLeaderChanged) {
		t.Fatalf("a duty of a former term: %v", err)
	}
	if err := propose(w.members[leader.id%3], term); !errors.Is(err, ErrLeaderChanged) {
		t.Fatalf("a follower's duty: %v", err)
	}
}
