package host

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// rows is how many keys, and so chunks, the states of these stories have.
const rows = 60

// behind is a world with a member that is away, and a leader whose log no longer
// has what that member lacks.
func behind(t testing.TB, seed uint64, members int) (w *world, leader, away *member) {
	w = newWorld(t, seed, members)
	w.limits.FlushBytes, w.limits.RetainBytes = 1000, 1000
	w.start()
	leader = w.untilLed()
	away = w.members[int(leader.id)%members]
	w.result(away.put(0))
	away.crash(simenv.ProcessCrash)
	for i := range rows {
		w.result(leader.putKey(fmt.Sprintf("row%d", i)))
	}
	w.until(10*time.Second, "a shorter log", func() bool { return leader.host.opts.Log.Bounds(1).Base.Index > 10 })
	return w, leader, away
}

// putKey proposes a value of its own for a key and returns its tag.
func (m *member) putKey(key string) uint64 {
	tag := uint64(len(m.w.calls) + 1)
	value := fmt.Sprintf("v%d", tag)
	m.w.calls[tag] = &issued{value: value, from: m}
	m.group.Propose(m.call(tag, 0), put(key, value))
	m.poke()
	return tag
}

func (m *member) back() {
	if !m.start() {
		m.w.t.Fatal(m.openErr)
	}
}

// added is how many chunks of all snapshots this run of a member has taken in.
func (m *member) added() (n int) {
	for _, in := range m.receiving {
		n += in.added
	}
	return n
}

// settled waits until all members are equal and nothing of any transfer is open.
func (w *world) settled() {
	w.t.Helper()
	w.result(w.untilLed().put(0))
	w.converge()
	w.check()
	w.run(2 * time.Second)
	for _, m := range w.members {
		for _, f := range m.frozen {
			if !f.closed {
				w.t.Errorf("member %v keeps a saved state open", m.id)
			}
		}
		for _, in := range m.receiving {
			if !in.closed {
				w.t.Errorf("member %v keeps a snapshot at %v open", m.id, in.at)
			}
		}
		if held := m.group.held.Load(); held != 0 {
			w.t.Errorf("member %v still holds its log from %d", m.id, held)
		}
	}
}

// Every third chunk and receipt is lost, many come late or twice: one saved state
// is enough, and no chunk is taken in twice.
func TestLostChunksAreSentAgain(t *testing.T) {
	for seed := range uint64(10) {
		w, leader, away := behind(t, 100+seed, 3)
		w.onSend = func(e *Envelope) bool {
			return (e.Snapshot != nil || e.Receipt != nil) && w.draw.OneIn(3)
		}
		w.double, w.delay = 200, 20*time.Millisecond
		away.back()
		w.until(2*time.Minute, "a snapshot", func() bool { return away.state.loads > 0 })
		if len(leader.frozen) != 1 || away.added() != len(leader.frozen[0].all) {
			t.Fatalf("%d states were saved, %d chunks taken in", len(leader.frozen), away.added())
		}
		w.onSend = nil
		w.settled()
	}
}

// The network between the two is gone for half a minute, while others write: the
// transfer goes on where it was.
func TestATransferGoesOnAfterAReconnect(t *testing.T) {
	w, leader, away := behind(t, 120, 3)
	away.back()
	w.until(20*time.Second, "a part of the snapshot", func() bool { return away.added() > rows/3 })
	w.cut[away.id] = true
	w.run(30 * time.Second)
	had := away.added()
	if had > rows/3+2*windowChunks || had == rows {
		t.Fatalf("%d chunks were taken in over a network that is cut", had)
	}
	for range 20 {
		w.result(leader.put(0))
	}
	delete(w.cut, away.id)
	w.until(20*time.Second, "a snapshot", func() bool { return away.state.loads > 0 })
	if len(leader.frozen) != 1 || away.added() != len(leader.frozen[0].all) {
		t.Fatalf("%d states were saved, %d chunks taken in, %d before", len(leader.frozen), away.added(), had)
	}
	w.settled()
}

// Nobody holds more than a window: the sender never goes further beyond a receipt,
// whatever becomes of the receiver.
func TestNoMoreThanAWindowIsOnItsWay(t *testing.T) {
	w, leader, away := behind(t, 130, 3)
	receipted, furthest := 0, 0
	w.onSend = func(e *Envelope) bool {
		switch {
		case e.Snapshot != nil:
			furthest = max(furthest, e.Snapshot.Number)
			if e.Snapshot.Number >= receipted+windowChunks {
				t.Errorf("chunk %d is sent, %d have a receipt", e.Snapshot.Number, receipted)
			}
		case e.Receipt != nil && receipted < 20:
			receipted = max(receipted, e.Receipt.Next)
		case e.Receipt != nil:
			return true // from here on none arrives
		}
		return false
	}
	away.back()
	w.run(20 * time.Second)
	if furthest < receipted+windowChunks-1 || len(leader.frozen) != 1 {
		t.Errorf("chunk %d is the furthest, %d have a receipt", furthest, receipted)
	}
	for _, in := range leader.group.step.outgoing {
		if len(in.window) > windowChunks {
			t.Errorf("%d chunks in memory", len(in.window))
		}
	}
}

// The receiver dies after every possible number of chunks, in both ways: it is sent
// another copy, and nothing of the first is mixed in.
func TestTheReceiverDiesAtAnyChunk(t *testing.T) {
	for n := range rows + 1 {
		w, leader, away := behind(t, 140+uint64(n), 3)
		away.back()
		w.until(20*time.Second, "a part of the snapshot", func() bool { return away.added() >= n })
		away.crash(simenv.Crash(n % 2))
		for i := range 5 {
			w.result(leader.putKey(fmt.Sprintf("row%d", i)))
		}
		away.back()
		w.settled()
		if n < rows/2 && away.state.loads == 0 {
			t.Fatalf("after %d chunks no snapshot was loaded", n)
		}
	}
}

// The sender dies, or loses its leadership, at any chunk: the next leader sends a
// state of its own.
func TestTheSenderIsDeposedAtAnyChunk(t *testing.T) {
	for n := 0; n < rows; n += 4 {
		w, leader, away := behind(t, 220+uint64(n), 3)
		away.back()
		w.until(20*time.Second, "a part of the snapshot", func() bool { return away.added() >= n })
		if n%8 == 0 {
			leader.crash(simenv.PowerCrash)
			w.until(20*time.Second, "another leader", func() bool { l := w.leader(); return l != nil && l != leader })
			w.result(w.leader().put(0))
			leader.back()
		} else {
			other := w.members[int(away.id)%3]
			if err := leader.group.Transfer(other.id); err != nil {
				t.Fatal(err)
			}
			leader.poke()
			w.until(20*time.Second, "a transfer of the leadership", func() bool { return w.leader() == other })
		}
		w.settled()
	}
}

// While a state is on its way the others write more than the log is kept for: what
// the receiver needs next is kept all the same, and one state is enough.
func TestTheLogIsKeptForOneThatIsSentAState(t *testing.T) {
	w, leader, away := behind(t, 300, 3)
	w.onSend = func(e *Envelope) bool { return e.Snapshot != nil && e.Snapshot.Number >= rows/2 }
	away.back()
	w.until(20*time.Second, "half of the snapshot", func() bool { return away.added() >= rows/2 })
	at := leader.frozen[0].at.Index
	for range 40 { // more than a segment of the log
		w.result(leader.proposeSize(8000))
	}
	w.run(2 * time.Second)
	if base := leader.host.opts.Log.Bounds(1).Base.Index; base > at || leader.state.m.saved.mark.Index <= at+5 {
		t.Fatalf("the log begins after %d, the state that is sent is at %d, the store at %d", base, at, leader.state.m.saved.mark.Index)
	}
	if leader.group.hurry.Load() < mostHurry {
		t.Error("the transfer is in no hurry")
	}
	w.onSend = nil
	w.until(20*time.Second, "the same state", func() bool { return away.state.mark == leader.state.mark })
	if len(leader.frozen) != 1 || away.state.loads != 1 {
		t.Errorf("%d states were saved, %d loaded", len(leader.frozen), away.state.loads)
	}
	w.settled()
	for range 40 {
		w.result(leader.proposeSize(8000))
	}
	w.until(10*time.Second, "the log to be let go", func() bool { return leader.host.opts.Log.Bounds(1).Base.Index > at })
	if leader.group.hurry.Load() > 0 {
		t.Error("still in a hurry")
	}
}

// A receiver whose disk is full stays what it was and serves the log no worse; it
// is asked again after a pause, not in a loop.
func TestARefusedSnapshotIsTriedAgainLater(t *testing.T) {
	w, leader, away := behind(t, 310, 3)
	full := errors.New("no space left")
	refusals := 0
	w.onAdd = func(in *receivedRegister) error {
		if in.added < 5 {
			return nil
		}
		refusals++
		return full
	}
	away.back()
	w.run(3*againPause + againPause/2)
	if refusals < 2 || refusals > 5 || len(leader.frozen) > 5 || away.state.loads != 0 {
		t.Fatalf("refused %d times of %d, %d loaded", refusals, len(leader.frozen), away.state.loads)
	}
	w.onAdd = nil
	w.settled()
}

// A transfer that is given up leaves nothing behind: the follower has caught up
// from the log of the next leader meanwhile, or is removed.
func TestATransferThatNobodyWantsEnds(t *testing.T) {
	w, leader, away := behind(t, 320, 3)
	w.onSend = func(e *Envelope) bool { return e.Snapshot != nil && e.Snapshot.Number > 10 }
	away.back()
	w.until(20*time.Second, "a part of the snapshot", func() bool { return away.added() > 5 })
	w.run(transferPatience + 5*time.Second)
	if leader.frozen[0].closed == false || !away.receiving[0].closed {
		t.Error("a transfer that stands still for more than a minute goes on")
	}
	w.onSend = nil
	w.settled()
}

// What is left of an older transfer, or of one with another number at the same
// position, is not taken for a part of the present one.
func TestChunksOfTwoTransfersNeverMix(t *testing.T) {
	w, leader, away := behind(t, 330, 3)
	var said []Receipt
	mine := false
	w.onSend = func(e *Envelope) bool {
		if e.Receipt != nil && mine {
			said = append(said, *e.Receipt)
		}
		return e.Snapshot != nil // those of the leader are lost
	}
	away.back()
	w.until(10*time.Second, "a leader", func() bool { return away.group.Leader() == leader.id })
	w.run(100 * time.Millisecond)
	mine = true
	term := leader.group.Term()
	at := raft.Position{Index: leader.state.mark.Index, Term: term}
	deliver := func(seq, number int, row string) {
		away.host.Deliver([]Envelope{{Group: 1, From: leader.id, To: away.id, Snapshot: &SnapshotChunk{At: at, Conf: w.conf(), Term: term,
			Seq: id.Seq(seq), Number: number, Last: row == "", Bytes: []byte(row)}}})
		away.poke()
		w.run(50 * time.Millisecond)
	}
	deliver(7, 1, "b=of 7")
	if len(said) != 1 || said[0].Verdict != ReceiptUnknown {
		t.Fatalf("a chunk without a beginning: %+v", said)
	}
	deliver(7, 0, "a=of 7")
	deliver(8, 1, "b=of 8")
	deliver(8, 0, "a=of 8")
	deliver(7, 1, "b=of 7")
	deliver(7, 0, "a=of 7")
	deliver(8, 2, "")
	if away.state.loads != 0 {
		t.Fatal("a snapshot without its middle was loaded")
	}
	last := away.receiving[len(away.receiving)-1]
	if last.data["a"] != "of 8" || len(last.data) != 1 || !away.receiving[len(away.receiving)-2].closed {
		t.Fatalf("received %v", last.data)
	}
	deliver(8, 1, "b=of 8")
	w.until(5*time.Second, "the snapshot", func() bool { return away.state.loads == 1 })
	if last.data["b"] != "of 8" {
		t.Fatalf("received %v", last.data)
	}
}

// The first start of a member whose disk stalls: a state would be in place before
// its log knew of the group, and a power loss would leave what a lost log leaves.
// It takes the state in once the log is durable.
func TestNoStateBeforeTheLogKnowsTheGroup(t *testing.T) {
	w := newWorld(t, 330, 3)
	w.limits.FlushBytes, w.limits.RetainBytes = 1000, 1000
	fresh := w.members[2]
	w.members[0].start()
	w.members[1].start()
	leader := w.untilLed()
	leader.fill()
	fresh.stalled = true
	for range 2 {
		if !fresh.start() {
			t.Fatal(fresh.openErr)
		}
		w.run(3 * againPause)
		if fresh.state.loads > 0 || fresh.group.Term() == 0 {
			t.Fatalf("%d states loaded, in term %d", fresh.state.loads, fresh.group.Term())
		}
		fresh.crash(simenv.PowerCrash)
	}
	fresh.stalled = false
	if !fresh.start() {
		t.Fatal(fresh.openErr)
	}
	w.until(20*time.Second, "a snapshot", func() bool { return fresh.state.loads > 0 })
	w.settled()
}
