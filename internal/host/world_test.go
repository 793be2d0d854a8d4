package host

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// world is a cluster of hosts over seeded disks and a seeded network, driven turn
// by turn by one goroutine.
type world struct {
	t       testing.TB
	sim     *simenv.World
	draw    *simenv.Rand
	members []*member
	net     []flight
	limits  Limits
	noSaves bool // machines cannot save and load their state
	onSend  func(e *Envelope) (lost bool)
	onAdd   func(*receivedRegister) error

	// The network: per mille lost and doubled, the longest delay, who is cut off.
	drop, double int64
	delay        time.Duration
	cut          map[id.Member]bool

	// log is what was applied where, by anybody; values where each value was.
	log    map[id.Index]raft.Entry
	values map[string][]id.Index
	calls  map[uint64]*issued
	duties map[string]id.Term // the term in which each was made
	sink   *sink
	// ackedUpTo is the greatest index of an acknowledged command.
	ackedUpTo id.Index
	events    []string
	idleTurns int
	dir       string
}

type flight struct {
	due env.Instant
	e   Envelope
}

// issued is a call that was made.
type issued struct {
	value string // of a put
	read  bool
	from  *member
	floor id.Index // what a read must see
	seen  id.Index // what the state had when the read ended
}

// member is one process and what outlives it.
type member struct {
	w       *world
	id      id.Member
	machine *simenv.Machine
	proc    *simenv.Process
	host    *Host
	group   *Group
	state   *register
	saved   savedState
	ready   [stages]bool
	wake    [stages]env.Instant
	openErr error
	// lone: it starts as the only member; dropped are the others.
	lone    bool
	dropped []id.Member
	// stalled: no sync of its disk ends; stalls is what was told of it.
	stalled bool
	stalls  []Stall
	// What this run has saved and received.
	frozen    []*frozenRegister
	receiving []*receivedRegister
}

// savedState is what of a state survives a crash.
type savedState struct {
	mark raft.Position
	data map[string]string
	// loaded: a snapshot brought the mark, and conf.
	loaded bool
	conf   raft.PlacedConf
}

func newWorld(t testing.TB, seed uint64, members int) *world {
	w := &world{t: t, sim: simenv.New(seed, simenv.Options{}), cut: map[id.Member]bool{}, delay: 3 * time.Millisecond,
		log: map[id.Index]raft.Entry{}, values: map[string][]id.Index{}, duties: map[string]id.Term{}, calls: map[uint64]*issued{}, sink: newSink()}
	w.draw = w.sim.Rand("driver")
	w.dir = "log"
	w.sink.pushed = w.ended
	for i := range members {
		m := &member{w: w, id: id.Member(i + 1), machine: w.sim.Machine(fmt.Sprintf("m%d", i+1))}
		m.saved.data = map[string]string{}
		w.members = append(w.members, m)
	}
	return w
}

func (w *world) conf() raft.Conf {
	var c raft.Conf
	for _, m := range w.members {
		c.Voters = append(c.Voters, m.id)
	}
	return c
}

func (w *world) start() *world {
	for _, m := range w.members {
		m.start()
	}
	return w
}

// start begins a run of the member's process.
func (m *member) start() bool {
	m.proc = m.machine.Start()
	outside := m.proc.World()
	store, err := raftlog.Open(raftlog.Options{FS: outside.FS, Dir: m.w.dir, Rand: outside.Rand, Tasks: outside.Tasks,
		Clock: outside.Clock, FirstSegmentBytes: 64 << 10, MaxSegmentBytes: 256 << 10})
	if err != nil {
		m.w.t.Fatalf("member %v opens its log: %v", m.id, err)
	}
	m.host = New(Options{Member: m.id, Clock: outside.Clock, Rand: outside.Rand, Tasks: outside.Tasks, Log: store, Transport: m,
		Election: time.Second, Heartbeat: 100 * time.Millisecond, Limits: m.w.limits,
		Events:  func(_ id.Group, e raft.Event) { m.w.tell(m, e) },
		Stalled: func(_ id.Group, s Stall) { m.stalls = append(m.stalls, s) }})
	m.state = &register{m: m, mark: m.saved.mark, data: maps.Clone(m.saved.data), loaded: m.saved.loaded, conf: m.saved.conf}
	var machine Machine = m.state
	if !m.w.noSaves {
		machine = savingRegister{m.state}
	}
	if m.lone {
		m.group, m.dropped, m.openErr = m.host.OpenAlone(1, machine, func() []id.Member { return m.w.conf().Voters })
	} else {
		m.group, m.openErr = m.host.Open(1, machine, m.w.conf())
	}
	for i := range m.ready {
		m.ready[i], m.wake[i] = true, env.Never
	}
	if m.openErr != nil {
		m.crash(simenv.ProcessCrash)
		return false
	}
	return true
}

func (w *world) tell(m *member, e raft.Event) {
	w.events = append(w.events, fmt.Sprintf("%v: kind %d term %d member %v index %d", m.id, e.Kind, e.Term, e.Member, e.Index))
}

func (m *member) up() bool { return m.proc != nil }

func (m *member) crash(c simenv.Crash) {
	m.machine.Crash(c)
	m.proc, m.host, m.group = nil, nil, nil
	m.frozen, m.receiving = nil, nil
}

// Send implements Transport.
func (m *member) Send(envelopes []Envelope) {
	for _, e := range envelopes {
		if e.From != m.id {
			m.w.t.Fatalf("member %v sends as %v", m.id, e.From)
		}
		if m.w.onSend != nil && m.w.onSend(&e) || m.w.draw.Int64N(1000) < m.w.drop {
			continue
		}
		copies := 1
		if m.w.draw.Int64N(1000) < m.w.double {
			copies++
		}
		for range copies {
			due := m.w.sim.Now().Add(time.Duration(m.w.draw.Int64N(int64(m.w.delay))))
			m.w.net = append(m.w.net, flight{due, e})
		}
	}
}

// poke says that something came from outside.
func (m *member) poke() {
	for i := range m.ready {
		m.ready[i] = true
	}
}

// step does one thing, or lets time pass when there is nothing to do.
func (w *world) step() {
	type choice struct {
		m     *member
		stage int
	}
	var choices []choice
	for _, m := range w.members {
		if !m.up() {
			continue
		}
		now := m.proc.Clock.Now()
		for s := range stages {
			if m.ready[s] || m.wake[s] <= now {
				choices = append(choices, choice{m, s})
			}
		}
		if m.proc.Tasks.Pending() > 0 {
			choices = append(choices, choice{m, stages})
		}
	}
	if len(choices) == 0 {
		w.pass()
		return
	}
	if w.idleTurns++; w.idleTurns > 200_000 {
		for _, m := range w.members {
			if m.up() {
				w.t.Logf("member %v: ready %v wake %v now %v", m.id, m.ready, m.wake, m.proc.Clock.Now())
			}
		}
		w.t.Fatalf("stages turn and turn at %v", time.Duration(w.sim.Now()))
	}
	c := choices[w.draw.Int64N(int64(len(choices)))]
	if c.stage == stages {
		c.m.proc.Tasks.RunOne(int(w.draw.Int64N(int64(c.m.proc.Tasks.Pending()))))
		c.m.poke()
		return
	}
	c.m.turn(c.stage)
}

func (m *member) turn(stage int) {
	m.ready[stage] = false
	worked, wake := m.host.Stages()[stage].Turn(m.proc.Clock.Now())
	if worked {
		m.poke()
	}
	m.wake[stage] = wake
	if err := m.host.Err(); err != nil {
		m.w.t.Fatalf("member %v failed: %v", m.id, err)
	}
}

// pass lets time go on to the next thing that happens.
func (w *world) pass() {
	next := env.Never
	for _, m := range w.members {
		if !m.stalled {
			next = min(next, m.machine.Disk().NextDue())
		}
	}
	for _, f := range w.net {
		next = min(next, f.due)
	}
	for _, m := range w.members {
		if m.up() {
			for _, wake := range m.wake {
				next = min(next, m.proc.Clock.WorldTime(wake))
			}
		}
	}
	if next == env.Never {
		next = w.sim.Now().Add(time.Second)
	}
	if next > w.sim.Now() {
		w.idleTurns = 0
	}
	w.sim.AdvanceTo(max(next, w.sim.Now()))
	for _, m := range w.members {
		if !m.stalled && m.machine.Disk().CompleteDue(w.sim.Now()) > 0 && m.up() {
			m.poke()
		}
	}
	w.deliver()
}

func (w *world) deliver() {
	var due []flight
	w.net = slices.DeleteFunc(w.net, func(f flight) bool {
		if f.due <= w.sim.Now() {
			due = append(due, f)
			return true
		}
		return false
	})
	for _, f := range due {
		to := w.members[f.e.To-1]
		if to.up() && !w.cut[f.e.To] && !w.cut[f.e.From] {
			to.host.Deliver([]Envelope{f.e})
			to.poke()
		}
	}
}

// until drives the world until what is true; it must come true within limit.
func (w *world) until(limit time.Duration, why string, what func() bool) {
	w.t.Helper()
	end := w.sim.Now().Add(limit)
	for !what() {
		if w.sim.Now() > end {
			for _, m := range w.members {
				if m.up() {
					w.t.Logf("member %v: %+v", m.id, m.group.Status())
				}
			}
			w.t.Logf("last events:\n%s", strings.Join(w.events[max(0, len(w.events)-20):], "\n"))
			w.t.Fatalf("waited %v for: %s", limit, why)
		}
		w.step()
	}
}

// run drives the world for a time.
func (w *world) run(d time.Duration) {
	for end := w.sim.Now().Add(d); w.sim.Now() < end; {
		w.step()
	}
}

// leader is the member that leads in the latest term, or nil.
func (w *world) leader() *member {
	var best *member
	for _, m := range w.members {
		if m.up() && m.group.Leader() == m.id && (best == nil || m.group.Term() > best.group.Term()) {
			best = m
		}
	}
	return best
}

func (w *world) untilLed() *member {
	w.t.Helper()
	w.until(20*time.Second, "a leader that everybody knows", func() bool {
		l := w.leader()
		for _, m := range w.members {
			if l == nil || m.up() && !w.cut[m.id] && m.group.Leader() != l.id {
				return false
			}
		}
		return true
	})
	return w.leader()
}

// put proposes a value of its own and returns its tag.
func (m *member) put(deadline time.Duration) uint64 { return m.propose(0, deadline) }

// propose is put with a value that is so much longer.
func (m *member) propose(padding int, deadline time.Duration) uint64 {
	tag := uint64(len(m.w.calls) + 1)
	value := fmt.Sprintf("v%d", tag) + strings.Repeat("x", padding)
	m.w.calls[tag] = &issued{value: value, from: m}
	m.group.Propose(m.call(tag, deadline), put(fmt.Sprintf("k%d", tag%7), value))
	m.poke()
	return tag
}

// duty proposes a duty that was made in term and returns its tag.
func (m *member) duty(term id.Term) uint64 {
	tag := uint64(len(m.w.calls) + 1)
	value := fmt.Sprintf("v%d", tag)
	m.w.calls[tag], m.w.duties[value] = &issued{value: value, from: m}, term
	m.group.Propose(m.call(tag, 5*time.Second), duty("duty", value, term))
	m.poke()
	return tag
}

func (m *member) call(tag uint64, deadline time.Duration) Call {
	c := Call{To: m.w.sink, Tag: tag}
	if deadline > 0 {
		c.Deadline = m.proc.Clock.Now().Add(deadline)
	}
	return c
}

// read asks for a linearizable read.
func (m *member) read(deadline time.Duration) uint64 {
	tag := uint64(len(m.w.calls) + 1)
	m.w.calls[tag] = &issued{read: true, from: m, floor: m.w.ackedUpTo}
	m.group.ReadIndex(m.call(tag, deadline))
	m.poke()
	return tag
}

// ended is called with every result.
func (w *world) ended(r Result) {
	c := w.calls[r.Tag]
	if r.Err != nil || c == nil {
		return
	}
	if !c.read {
		w.ackedUpTo = max(w.ackedUpTo, r.Index)
		return
	}
	if c.seen = c.from.state.mark.Index; c.seen < c.floor {
		w.t.Errorf("read %d on member %v looks at index %d, %d was acknowledged before it began", r.Tag, c.from.id, c.seen, c.floor)
	}
}

func (w *world) result(tag uint64) Result {
	w.t.Helper()
	w.until(60*time.Second, fmt.Sprintf("the end of call %d", tag), func() bool { _, ok := w.sink.get(tag); return ok })
	r, _ := w.sink.get(tag)
	return r
}

// isDone says whether all calls have ended.
func (w *world) isDone() bool { return w.sink.count() == len(w.calls) }

// check compares what was acknowledged with what was applied.
func (w *world) check() {
	w.t.Helper()
	for value, at := range w.values {
		if len(at) > 1 {
			w.t.Errorf("%s was applied at %v", value, at)
		}
	}
	for tag, c := range w.calls {
		r, ok := w.sink.get(tag)
		switch {
		case !ok || r.Err != nil || c.read:
		case len(w.values[c.value]) != 1 || w.values[c.value][0] != r.Index:
			w.t.Errorf("%s was acknowledged at %d and applied at %v", c.value, r.Index, w.values[c.value])
		}
	}
	if len(w.sink.twice) > 0 {
		w.t.Errorf("calls %v ended twice", w.sink.twice)
	}
}

// converge waits until all members have applied the same.
func (w *world) converge() {
	w.t.Helper()
	w.until(60*time.Second, "equal states", func() bool {
		for _, m := range w.members {
			if !m.up() || m.state.mark != w.members[0].state.mark {
				return false
			}
		}
		return w.isDone() && w.leader() != nil
	})
	want := w.replayed(w.members[0].state.mark.Index)
	for _, m := range w.members {
		if m.state.mark.Index < w.ackedUpTo {
			w.t.Errorf("member %v is at %d, %d was acknowledged", m.id, m.state.mark.Index, w.ackedUpTo)
		}
		if !maps.Equal(m.state.data, want) {
			w.t.Errorf("member %v has %v, the log gives %v", m.id, m.state.data, want)
		}
		if held := m.group.weight.Load(); held != 0 || m.group.commands.Load() != 0 || m.group.questions.Load() != 0 || m.group.backlog.Load() != 0 {
			w.t.Errorf("member %v still counts %d commands, %d bytes, %d reads, %d bytes of backlog", m.id,
				m.group.commands.Load(), held, m.group.questions.Load(), m.group.backlog.Load())
		}
	}
}

// replayed is the state that the log gives, as far as anybody has applied it.
func (w *world) replayed(upTo id.Index) map[string]string {
	data := map[string]string{}
	for i := id.Index(1); i <= upTo; i++ {
		if e := w.log[i]; e.Kind == raft.Batch {
			for b := command.ReadBatch(e.Data); b.Next(); {
				c, _ := command.Decode(b.Command())
				p := c.Body.(*command.PutRequest)
				data[string(p.Key)] = string(p.Value)
			}
		}
	}
	return data
}

// register is a Machine: the latest value of each key, in memory, durable up to
// its last finished flush.
type register struct {
	m       *member
	mark    raft.Position
	data    map[string]string
	flushed *savedState // a flush under way
	turns   int         // until it ends
	// fails, when set, is what the next Apply ends with.
	fails error
	sizes []int // commands per entry, for tests of batches
	loads int   // snapshots loaded
	// loaded: the mark is that of a snapshot, which came with conf.
	loaded bool
	conf   raft.PlacedConf
}

func (r *register) Mark() raft.Position             { return r.mark }
func (r *register) Durable() (raft.Position, error) { return r.m.saved.mark, nil }

func (r *register) StartFlush() error {
	r.flushed = &savedState{r.mark, maps.Clone(r.data), r.loaded, r.conf}
	r.turns = 3
	return nil
}

func (r *register) Turn(env.Instant) (bool, env.Instant) {
	if r.flushed == nil {
		return false, env.Never
	}
	if r.turns--; r.turns == 0 {
		r.m.saved, r.flushed = *r.flushed, nil
	}
	return true, env.Never
}

func (r *register) Apply(entries []raft.Entry) ([]command.Outcome, error) {
	if r.fails != nil {
		return nil, r.fails
	}
	var outcomes []command.Outcome
	for _, e := range entries {
		if e.Index != r.mark.Index+1 {
			return nil, fmt.Errorf("entry %d after mark %d", e.Index, r.mark.Index)
		}
		r.mark, r.loaded = raft.Position{Index: e.Index, Term: e.Term}, false
		first := r.m.w.noteEntry(r.m, e)
		if e.Kind != raft.Batch {
			continue
		}
		count := 0
		for b := command.ReadBatch(e.Data); b.Next(); count++ {
			c, err := command.Decode(b.Command())
			if err != nil {
				return nil, err
			}
			if c.Term != e.Term {
				return nil, fmt.Errorf("a command of term %d is in an entry of term %d", c.Term, e.Term)
			}
			p := c.Body.(*command.PutRequest)
			if made := r.m.w.duties[string(p.Value)]; made != 0 && made != e.Term {
				return nil, fmt.Errorf("a duty of term %d is obeyed in term %d", made, e.Term)
			}
			r.data[string(p.Key)] = string(p.Value)
			if first && len(p.Value) > 0 {
				r.m.w.values[string(p.Value)] = append(r.m.w.values[string(p.Value)], e.Index)
			}
			outcomes = append(outcomes, command.Outcome{Origin: c.Origin, Term: e.Term, Index: e.Index, Response: &command.PutResponse{}})
		}
		r.sizes = append(r.sizes, count)
	}
	return outcomes, nil
}

// noteEntry compares an applied entry with what others applied at its index.
func (w *world) noteEntry(m *member, e raft.Entry) (first bool) {
	known, ok := w.log[e.Index]
	if ok && (known.Term != e.Term || known.Sum != e.Sum) {
		w.t.Fatalf("member %v applies term %d at index %d, somebody applied term %d", m.id, e.Term, e.Index, known.Term)
	}
	w.log[e.Index] = e
	return !ok
}

// savingRegister can save and load whole states.
type savingRegister struct{ *register }

func (r savingRegister) Freeze() (Frozen, error) {
	f := &frozenRegister{m: r.m, at: r.mark}
	r.m.frozen = append(r.m.frozen, f)
	for _, k := range slices.Sorted(maps.Keys(r.data)) {
		f.rows = append(f.rows, k+"="+r.data[k])
	}
	f.all = f.rows
	return f, nil
}

func (r savingRegister) Loaded() (raft.PlacedConf, bool) { return r.conf, r.loaded }

func (r savingRegister) Receive(at raft.Position, conf raft.PlacedConf) Receiving {
	in := &receivedRegister{m: r.m, at: at, conf: conf, data: map[string]string{}}
	r.m.receiving = append(r.m.receiving, in)
	return in
}

func (r savingRegister) Load(from Receiving) error {
	in := from.(*receivedRegister)
	if in.closed {
		r.m.w.t.Errorf("member %v loads a snapshot that was given up", r.m.id)
	}
	r.mark, r.data, r.flushed = in.at, maps.Clone(in.data), nil
	r.loads++
	r.loaded, r.conf = true, in.conf
	r.m.saved = savedState{in.at, maps.Clone(r.data), true, in.conf}
	return nil
}

// receivedRegister takes rows in until it is closed.
type receivedRegister struct {
	m      *member
	at     raft.Position
	conf   raft.PlacedConf
	data   map[string]string
	added  int
	closed bool
}

func (r *receivedRegister) Add(chunk []byte) error {
	if r.closed {
		r.m.w.t.Errorf("member %v adds to a snapshot that was given up", r.m.id)
	}
	if fails := r.m.w.onAdd; fails != nil {
		if err := fails(r); err != nil {
			return err
		}
	}
	k, v, found := strings.Cut(string(chunk), "=")
	if !found {
		return fmt.Errorf("not a row: %q", chunk)
	}
	r.data[k] = v
	r.added++
	return nil
}

func (r *receivedRegister) Close() error {
	if r.closed {
		r.m.w.t.Errorf("member %v closes a snapshot twice", r.m.id)
	}
	r.closed = true
	return nil
}

// frozenRegister yields one row a chunk, and an empty last one.
type frozenRegister struct {
	m      *member
	at     raft.Position
	rows   []string // left to be read, of all
	all    []string
	closed bool
}

func (f *frozenRegister) At() raft.Position { return f.at }

func (f *frozenRegister) Close() error {
	if f.closed {
		f.m.w.t.Errorf("member %v closes a saved state twice", f.m.id)
	}
	f.closed = true
	return nil
}

func (f *frozenRegister) Next(int) ([]byte, bool, error) {
	if f.closed {
		f.m.w.t.Errorf("member %v reads a saved state that was given up", f.m.id)
	}
	if len(f.rows) == 0 {
		return nil, false, nil
	}
	row := f.rows[0]
	f.rows = f.rows[1:]
	return []byte(row), true, nil
}
