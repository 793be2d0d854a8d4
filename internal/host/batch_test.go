package host

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// proposeSize proposes a long value, without a deadline.
func (m *member) proposeSize(size int) uint64 { return m.propose(size, 0) }

// A batch of two or more commands is cut at its limit; one command alone may be
// larger (rule 16).
func TestBatchesAreCut(t *testing.T) {
	w := newWorld(t, 60, 1)
	w.limits.BatchBytes = 1000
	w.start()
	m := w.members[0]
	w.result(m.put(0))
	m.state.sizes = nil
	var tags []uint64
	for _, size := range []int{200, 200, 200, 5000, 100, 100, 900, 10} {
		tags = append(tags, m.proposeSize(size))
	}
	for _, tag := range tags {
		if r := w.result(tag); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if want := []int{3, 1, 2, 1, 1}; !slices.Equal(m.state.sizes, want) {
		t.Fatalf("batches of %v commands, want %v", m.state.sizes, want)
	}
	w.check()
}

// The same limit cuts what is forwarded.
func TestForwardsAreCut(t *testing.T) {
	w := newWorld(t, 61, 3)
	w.limits.BatchBytes = 1000
	w.start()
	leader := w.untilLed()
	var sizes []int
	w.onSend = func(e *Envelope) bool {
		if e.Forward != nil {
			sizes = append(sizes, len(e.Forward.Commands))
		}
		return false
	}
	follower := w.members[leader.id%3]
	for _, size := range []int{200, 200, 200, 5000, 100} {
		follower.proposeSize(size)
	}
	w.until(5*time.Second, "all answers", w.isDone)
	if want := []int{3, 1, 1}; !slices.Equal(sizes, want) {
		t.Fatalf("forwards of %v commands, want %v", sizes, want)
	}
	w.check()
}

// While a sync is under way the next frame gathers: what came meanwhile shares
// one sync, and the stepper did not wait.
func TestTheNextFrameGathersWhileOneSyncs(t *testing.T) {
	w := newWorld(t, 62, 1).start()
	m := w.members[0]
	w.result(m.put(0))
	disk := m.machine.Disk()
	quiet := func() {
		for range 50 {
			for s := range stages {
				m.turn(s)
			}
		}
	}
	quiet()
	if disk.PendingSyncs() != 0 {
		disk.CompleteSync(0)
		quiet()
	}
	first := m.put(0)
	quiet()
	if disk.PendingSyncs() != 1 {
		t.Fatalf("%d syncs under way", disk.PendingSyncs())
	}
	var rest []uint64
	for range 10 {
		rest = append(rest, m.put(0))
		quiet() // the stepper makes an entry of each; the disk is still busy
	}
	if last := m.group.Status().Last.Index; disk.PendingSyncs() != 1 || last < 12 {
		t.Fatalf("%d syncs under way, log up to %d", disk.PendingSyncs(), last)
	}
	if _, ended := w.sink.get(first); ended {
		t.Fatal("acknowledged before the sync")
	}
	disk.CompleteSync(0)
	quiet()
	if _, ended := w.sink.get(first); !ended || disk.PendingSyncs() != 1 {
		t.Fatal("the first put is synced and not acknowledged, or the next frame did not start")
	}
	disk.CompleteSync(0)
	quiet()
	for _, tag := range rest {
		if _, ended := w.sink.get(tag); !ended {
			t.Fatalf("put %d did not share the second sync", tag)
		}
	}
}

// Beyond the limits calls are refused at once, and taken again when others ended.
func TestBackPressureCountsCommandsAndBytes(t *testing.T) {
	w := newWorld(t, 63, 1)
	w.limits.WaitingCommands, w.limits.WaitingBytes = 5, 10_000
	w.start()
	m := w.members[0]
	w.result(m.put(0))
	for range 5 {
		m.put(0)
	}
	refusedPut := m.put(0)
	for range 5 {
		m.read(0)
	}
	refusedRead := m.read(0)
	for _, tag := range []uint64{refusedPut, refusedRead} {
		if r, ended := w.sink.get(tag); !ended || !errors.Is(r.Err, ErrTooManyRequests) {
			t.Fatalf("call %d: %v, %v", tag, r.Err, ended)
		}
	}
	w.until(time.Second, "all answers", w.isDone)
	fits := m.proposeSize(6000)
	tooMuch := m.proposeSize(6000)
	if r, ended := w.sink.get(tooMuch); !ended || !errors.Is(r.Err, ErrTooManyRequests) {
		t.Fatalf("%v", r.Err)
	}
	if r := w.result(fits); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := w.result(m.proposeSize(20_000)); !errors.Is(r.Err, ErrTooLarge) {
		t.Fatalf("%v", r.Err)
	}
	if r := w.result(m.proposeSize(6000)); r.Err != nil {
		t.Fatalf("after all ended: %v", r.Err)
	}
	w.converge()
	w.check()
}

// With Priority the ends of leases go up to twice the bounds; nothing else does, and
// without it neither do they.
func TestEndsOfLeasesGoFirst(t *testing.T) {
	for _, priority := range []bool{false, true} {
		w := newWorld(t, 63, 1)
		w.limits.WaitingCommands, w.limits.Priority = 4, priority
		w.start()
		m := w.members[0]
		w.result(m.put(0))
		end := func(body command.Body) uint64 {
			tag := uint64(len(w.calls) + 1)
			w.calls[tag] = &issued{value: "no value", from: m}
			m.group.Propose(m.call(tag, 0), command.Encode(nil, command.Header{}, body))
			return tag
		}
		refused := func(tag uint64) bool {
			r, ended := w.sink.get(tag)
			return ended && errors.Is(r.Err, ErrTooManyRequests)
		}
		for range 4 {
			if refused(m.put(0)) {
				t.Fatal("within the bounds")
			}
		}
		if !refused(m.put(0)) {
			t.Fatal("beyond the bounds")
		}
		for i := range 4 {
			body := command.Body(&command.LeaseRevoke{ID: 7})
			if i%2 == 1 {
				body = &command.LeaseExpire{}
			}
			if got := refused(end(body)); got == priority {
				t.Errorf("with priority %v, end %d of a lease: refused %v", priority, i, got)
			}
		}
		if !refused(end(&command.LeaseRevoke{ID: 7})) {
			t.Errorf("with priority %v: beyond twice the bounds", priority)
		}
	}
}

func TestAMalformedCommandIsRefused(t *testing.T) {
	w := newWorld(t, 64, 1).start()
	m := w.members[0]
	w.calls[1] = &issued{from: m, read: true}
	m.group.Propose(m.call(1, 0), []byte("nonsense"))
	if r := w.result(1); r.Err == nil {
		t.Fatal("it was taken")
	}
}

// An inbox that is full loses envelopes as a network does; one always fits.
func TestAFullInboxLosesEnvelopes(t *testing.T) {
	b := inbox{limit: 1000}
	large := Envelope{Forward: &Forward{Commands: [][]byte{make([]byte, 5000)}}}
	b.deliver([]Envelope{large, {Raft: &raft.Message{Body: &raft.Heartbeat{}}}})
	if in := b.take(); len(in.envelopes) != 1 || b.dropped.Load() != 1 {
		t.Fatalf("%d envelopes, %d dropped", len(in.envelopes), b.dropped.Load())
	}
	entries := []raft.Entry{{Data: make([]byte, 500)}}
	b.deliver([]Envelope{{Raft: &raft.Message{Body: &raft.Append{Entries: entries}}}, {Snapshot: &SnapshotChunk{Bytes: make([]byte, 500)}}})
	if in := b.take(); len(in.envelopes) != 1 || b.dropped.Load() != 2 {
		t.Fatalf("%d envelopes, %d dropped", len(in.envelopes), b.dropped.Load())
	}
	b.close()
	b.deliver([]Envelope{{}})
	if in := b.take(); len(in.envelopes) != 0 {
		t.Fatal("a closed inbox takes envelopes")
	}
}

// A state machine that is far behind slows its leader down: appends are lost until
// it has caught up.
func TestASlowMachineSlowsItsLeader(t *testing.T) {
	w := newWorld(t, 65, 3).start()
	leader := w.untilLed()
	follower := w.members[leader.id%3]
	follower.group.backlog.Store(backlogBytes + 1)
	last := follower.group.Status().Last
	w.result(leader.put(0))
	w.run(300 * time.Millisecond)
	if got := follower.group.Status().Last; got != last {
		t.Fatalf("the log went from %v to %v", last, got)
	}
	follower.group.backlog.Add(-backlogBytes - 1)
	w.converge()
	w.check()
}

// One turn of the applier applies a bounded part; what several Outputs handed out
// is applied together.
func TestTheApplierTakesBoundedParts(t *testing.T) {
	entries := func(first id.Index, count, size int) []raft.Entry {
		all := entriesOf(1, first, count)
		for i := range all {
			all[i].Data = make([]byte, size)
		}
		return all
	}
	a := &applier{}
	s := &applyState{todo: []toApply{{entries: entries(1, 3, 10)}, {entries: entries(4, 2, 10)}, {flush: true}, {entries: entries(6, 1, 10)}}}
	if got := a.take(s); len(got) != 5 || got[4].Index != 5 || len(s.todo) != 2 {
		t.Fatalf("took %d entries, %d orders are left", len(got), len(s.todo))
	}
	s = &applyState{todo: []toApply{{entries: entries(1, 1, 10)}, {entries: entries(2, 4, applyBytes/3)}}}
	var parts []int
	for next := id.Index(1); len(s.todo) > 0; {
		got := a.take(s)
		for _, e := range got {
			if e.Index != next {
				t.Fatalf("entry %d, want %d", e.Index, next)
			}
			next++
		}
		parts = append(parts, len(got))
	}
	if !slices.Equal(parts, []int{3, 2}) {
		t.Fatalf("parts of %v entries", parts)
	}
	s = &applyState{todo: []toApply{{entries: entries(1, 2, 2*applyBytes)}, {entries: entries(3, 2*applyEntries, 1)}}}
	parts = nil
	for len(s.todo) > 0 {
		parts = append(parts, len(a.take(s)))
	}
	if !slices.Equal(parts, []int{1, 1, applyEntries, applyEntries}) {
		t.Fatalf("parts of %v entries", parts)
	}
}

// An idle lone voter sleeps: no stage wants a turn, whatever time passes.
func TestIdleCostsNothing(t *testing.T) {
	w := newWorld(t, 66, 1).start()
	m := w.members[0]
	w.result(m.put(0))
	w.run(20 * time.Minute) // the flush of a pinned segment, the log's seal
	for s := range stages {
		if m.ready[s] || m.wake[s] != env.Never {
			t.Errorf("stage %d wakes at %v", s, m.wake[s])
		}
	}
	if m.saved.mark != m.state.mark {
		t.Errorf("the segment is pinned: durable is %v, applied %v", m.saved.mark, m.state.mark)
	}
}
