package raft

import (
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

// world is a small universe for tests: replicas with a disk each, a network that
// only delivers what it is told to, and checkers that watch every step. Scenes
// drive it by hand, TestRandomWorlds by dice.
type world struct {
	now      env.Instant
	replicas []*replica
	net      []Message
	draw     func(n int64) int64
	tune     func(*Config)
	// tell receives the story, line by line; nil when nobody listens.
	tell func(format string, args ...any)

	// committed is what any replica ever applied: the one history.
	committed []Entry
	leaders   map[id.Term]id.Member
	votes     map[ballot]id.Member
	// removed are the replicas that were told of their removal, and by which entry.
	removed map[id.Member]id.Index
	// reads maps a read to what was committed anywhere when it began.
	reads   map[ReadID]id.Index
	readSeq id.Seq
	fates   []ReadResult
	// slowApply keeps Applied from being called at once.
	slowApply bool
}

type ballot struct {
	voter id.Member
	term  id.Term
}

// replica is a node with what survives its crashes.
type replica struct {
	w       *world
	id      id.Member
	node    *Node
	disk    disk
	flights []Output
	loads   []Load
	saves   []wantedSnapshot
	boot    id.Boot
	// given is the last index handed out, applied the last that was reported,
	// flushed the last that the store would still have after a crash.
	given, applied, flushed id.Index
	damaged                 bool
	peak                    HardState
}

type wantedSnapshot struct {
	to   id.Member
	term id.Term
}

// disk is what one replica has on stable storage.
type disk struct {
	hard    HardState
	base    Position
	conf    PlacedConf // the latest at or below base
	entries []Entry
}

func (d *disk) last() id.Index { return d.base.Index + id.Index(len(d.entries)) }

func (d *disk) term(i id.Index) id.Term {
	if i == d.base.Index {
		return d.base.Term
	}
	return d.entries[i-d.base.Index-1].Term
}

func (d *disk) write(out *Output) {
	d.hard = out.Hard
	if s := out.Install; s != nil {
		d.base, d.entries, d.conf = s.At, nil, PlacedConf{s.Conf, s.ConfIndex}
	}
	if len(out.Entries) > 0 {
		first := out.Entries[0].Index
		if first <= d.base.Index || first > d.last()+1 {
			panic(invariant.Violation{Message: fmt.Sprintf("entry %d written after %d", first, d.last())})
		}
		d.entries = append(d.entries[:first-d.base.Index-1:first-d.base.Index-1], out.Entries...)
	}
}

// confs are the configurations of the log, oldest first.
func (d *disk) confs() []PlacedConf {
	all := []PlacedConf{d.conf}
	for _, e := range d.entries {
		if e.Kind == Change {
			c, _, err := DecodeChange(e.Data)
			if err != nil {
				panic(err)
			}
			all = append(all, PlacedConf{c, e.Index})
		}
	}
	return all
}

func (d *disk) start(applied id.Index, damaged bool) Start {
	s := Start{Hard: d.hard, Base: d.base, Last: d.last(), Applied: applied, Damaged: damaged}
	term := d.base.Term
	for i, e := range d.entries {
		if e.Term != term || i == 0 {
			s.Terms = append(s.Terms, TermRun{e.Index, e.Term})
			term = e.Term
		}
	}
	s.Tail = slices.Clone(d.entries[applied-d.base.Index:])
	confs := d.confs()
	latest := confs[len(confs)-1]
	s.Conf, s.ConfIndex = latest.Conf, latest.Index
	s.Previous, s.PreviousIndex = latest.Conf, latest.Index
	if len(confs) > 1 {
		s.Previous, s.PreviousIndex = confs[len(confs)-2].Conf, confs[len(confs)-2].Index
	}
	return s
}

func newWorld(voters int) *world {
	w := &world{now: env.Instant(time.Second), leaders: map[id.Term]id.Member{}, votes: map[ballot]id.Member{}, removed: map[id.Member]id.Index{},
		reads: map[ReadID]id.Index{}, draw: func(int64) int64 { return 0 }}
	var conf Conf
	for i := 1; i <= voters; i++ {
		conf.Voters = append(conf.Voters, id.Member(i))
	}
	for _, m := range conf.Voters {
		w.add(m, conf)
	}
	return w
}

func (w *world) add(m id.Member, conf Conf) *replica {
	r := &replica{w: w, id: m}
	r.disk.conf = PlacedConf{Conf: conf}
	w.replicas = append(w.replicas, r)
	return r
}

func (w *world) replica(m id.Member) *replica {
	for _, r := range w.replicas {
		if r.id == m {
			return r
		}
	}
	return nil
}

func testSum(kind Kind, term id.Term, index id.Index, data []byte) uint32 {
	return crc32.ChecksumIEEE(fmt.Appendf(nil, "%d %d %d %s", kind, term, index, data))
}

func (w *world) config(m id.Member) Config {
	c := Config{ID: m, Group: 1, Election: time.Second, Heartbeat: 100 * time.Millisecond,
		MaxAppendBytes: 1 << 20, MaxInflightBytes: 1 << 22, MaxInflightMessages: 64, CacheBytes: 1 << 20,
		Draw: func(n int64) int64 { return w.draw(n) }, Sum: testSum}
	if w.tune != nil {
		w.tune(&c)
	}
	return c
}

// start brings a replica up from its disk.
func (r *replica) start() {
	r.boot++
	applied := max(r.flushed, r.disk.base.Index)
	r.given, r.applied, r.flushed = applied, applied, applied
	r.peak = HardState{}
	r.node = New(r.w.config(r.id), r.disk.start(applied, r.damaged), r.w.now)
	r.pump()
}

// crash forgets all that is not on the disk.
func (r *replica) crash() {
	r.node, r.flights, r.loads, r.saves = nil, nil, nil, nil
	for read := range r.w.reads {
		if read.Member == r.id {
			delete(r.w.reads, read)
		}
	}
}

func (r *replica) up() bool { return r.node != nil }

// pump takes outputs until there are none.
func (r *replica) pump() {
	for {
		out, ok := r.node.Output()
		if !ok {
			break
		}
		r.take(out)
	}
	r.check()
}

func (r *replica) take(out Output) {
	w := r.w
	for _, e := range out.Events {
		w.event(r, e)
	}
	if out.MustSync {
		r.flights = append(r.flights, out)
	} else if len(out.After) > 0 || len(out.Entries) > 0 || out.Install != nil {
		panic(invariant.Violation{Message: "something to persist in an output that needs no sync"})
	}
	for _, m := range out.Send {
		w.post(m)
	}
	r.apply(out.Apply)
	for _, read := range out.Reads {
		w.readDone(read)
	}
	r.loads = append(r.loads, out.Loads...)
	for _, to := range out.Saves {
		r.saves = append(r.saves, wantedSnapshot{to, out.Hard.Term})
	}
}

// post puts a message on the network, as its encoding would arrive.
func (w *world) post(m Message) {
	decoded, err := DecodeMessage(AppendMessage(nil, m))
	if err != nil || !reflect.DeepEqual(decoded, m) {
		panic(invariant.Violation{Message: fmt.Sprintf("message %+v decodes to %+v, %v", m, decoded, err)})
	}
	w.net = append(w.net, decoded)
	if v, ok := m.Body.(*VoteReply); ok && v.Granted && !v.Pre {
		w.voted(m.From, m.Term, m.To)
	}
}

// apply checks that everybody applies one history, without gap, each entry once.
func (r *replica) apply(entries []Entry) {
	for _, e := range entries {
		if e.Index != r.given+1 {
			panic(invariant.Violation{Message: fmt.Sprintf("%v applies %d after %d", r.id, e.Index, r.given)})
		}
		if e.Index > r.disk.last() || r.disk.term(e.Index) != e.Term {
			panic(invariant.Violation{Message: fmt.Sprintf("%v applies %d, which is not durable there", r.id, e.Index)})
		}
		if e.Sum != testSum(e.Kind, e.Term, e.Index, e.Data) {
			panic(invariant.Violation{Message: fmt.Sprintf("%v applies %d with a wrong sum", r.id, e.Index)})
		}
		r.given = e.Index
		if int(e.Index) > len(r.w.committed) {
			r.w.committed = append(r.w.committed, e)
		} else if c := r.w.committed[e.Index-1]; c.Term != e.Term || string(c.Data) != string(e.Data) {
			panic(invariant.Violation{Message: fmt.Sprintf("%v applies %d of term %d, others applied term %d", r.id, e.Index, e.Term, c.Term)})
		}
		if r.w.tell != nil {
			r.w.tell("%v applies %s", r.id, describe(e))
		}
	}
	if !r.w.slowApply {
		r.reportApplied()
	}
}

func (r *replica) reportApplied() {
	if r.given > r.applied {
		r.applied = r.given
		r.node.Applied(r.given)
	}
}

// event checks election safety and leader completeness as leaders appear.
func (w *world) event(r *replica, e Event) {
	if w.tell != nil {
		w.tell("%v: %s", r.id, describeEvent(e))
	}
	if e.Kind == Healed {
		r.damaged = false
	}
	switch e.Kind {
	case Removed:
		w.judgeRemoval(r, e)
	case BecamePreCandidate, BecameCandidate, BecameLeader:
		if !slices.ContainsFunc(r.node.confs, func(c PlacedConf) bool { return c.Conf.Votes(r.id) }) {
			panic(invariant.Violation{Message: fmt.Sprintf("%v stands and is no voter", r.id)})
		}
	}
	if e.Kind != BecameLeader {
		return
	}
	if other, known := w.leaders[e.Term]; known {
		panic(invariant.Violation{Message: fmt.Sprintf("%v and %v lead term %d", other, r.id, e.Term)})
	}
	w.leaders[e.Term] = r.id
	for _, c := range w.committed {
		if t, ok := r.node.log.term(c.Index); c.Index > r.node.log.base.Index && (!ok || t != c.Term) {
			panic(invariant.Violation{Message: fmt.Sprintf("leader %v of term %d lacks entry %d of term %d", r.id, e.Term, c.Index, c.Term)})
		}
	}
}

// judgeRemoval checks that what a replica takes for its removal is that.
func (w *world) judgeRemoval(r *replica, e Event) {
	for _, c := range w.committed[:min(int(r.given), len(w.committed))] {
		if c.Kind == Change && c.Index >= e.Index {
			if conf, _, _ := DecodeChange(c.Data); c.Index == e.Index && !conf.Has(r.id) {
				w.removed[r.id] = e.Index
				return
			}
			break
		}
	}
	panic(invariant.Violation{Message: fmt.Sprintf("%v takes entry %d for its removal", r.id, e.Index)})
}

// check looks at what must never go backwards within one life, and at the
// configurations of the log.
func (r *replica) check() {
	for i := range r.node.confs[1:] {
		if a, b := r.node.confs[i], r.node.confs[i+1]; !quorumsMeet(a.Conf, b.Conf) {
			panic(invariant.Violation{Message: fmt.Sprintf("%v has %s at %d and %s at %d, which can decide apart",
				r.id, describeConf(a.Conf), a.Index, describeConf(b.Conf), b.Index)})
		}
	}
	hard := r.node.Status().Hard
	if hard.Term < r.peak.Term || hard.Commit < r.peak.Commit ||
		hard.Term == r.peak.Term && r.peak.Vote != 0 && hard.Vote != r.peak.Vote {
		panic(invariant.Violation{Message: fmt.Sprintf("%v went from %+v to %+v", r.id, r.peak, hard)})
	}
	r.peak = hard
}

// persist completes the first count outputs on their way to the disk; a power
// loss between write and sync is the same as the loss of the output.
func (r *replica) persist(count int) {
	count = min(count, len(r.flights))
	if count == 0 {
		return
	}
	done := r.flights[:count]
	r.flights = slices.Clone(r.flights[count:])
	for i := range done {
		out := &done[i]
		r.disk.write(out)
		if out.Install != nil && out.Install.At.Index > r.given {
			at := out.Install.At.Index
			r.given, r.applied, r.flushed = at, at, at
			if r.w.tell != nil {
				r.w.tell("%v installs the snapshot at %d", r.id, at)
			}
		}
		for _, m := range out.After {
			r.w.post(m)
		}
	}
	r.node.Persisted(r.w.now, done[count-1].Number)
	if s := done[count-1].Install; s != nil || r.given > r.applied {
		r.node.Applied(r.applied)
	}
	r.pump()
}

// quorumsMeet says whether every quorum of a shares a member with every one of b,
// by trying: what is left of a's members must be no quorum of b's.
func quorumsMeet(a, b Conf) bool {
	all := union(a.Members(), b.Members())
	for set := range 1 << len(all) {
		var in, out []id.Member
		for i, m := range all {
			if set>>i&1 != 0 {
				in = append(in, m)
			} else {
				out = append(out, m)
			}
		}
		if isQuorum(a, in) && isQuorum(b, out) {
			return false
		}
	}
	return true
}

func isQuorum(c Conf, set []id.Member) bool {
	for _, half := range [...][]id.Member{c.Voters, c.Outgoing} {
		count := 0
		for _, m := range half {
			if slices.Contains(set, m) {
				count++
			}
		}
		if len(half) > 0 && count*2 <= len(half) {
			return false
		}
	}
	return len(c.Voters) > 0
}

func (w *world) voted(voter id.Member, term id.Term, to id.Member) {
	b := ballot{voter, term}
	if other, known := w.votes[b]; known && other != to {
		panic(invariant.Violation{Message: fmt.Sprintf("%v voted for %v and %v in term %d", voter, other, to, term)})
	}
	w.votes[b] = to
}

// load answers the oldest Load from the disk.
func (r *replica) load() {
	if len(r.loads) == 0 {
		return
	}
	l := r.loads[0]
	r.loads = r.loads[1:]
	var part []Entry
	if l.Low > r.disk.base.Index {
		bytes := 0
		for i := l.Low; i <= l.High; i++ {
			e := r.disk.entries[i-r.disk.base.Index-1]
			if bytes += weight(&e); bytes > l.MaxBytes && len(part) > 0 {
				break
			}
			part = append(part, e)
		}
	}
	r.node.Loaded(r.w.now, l, part)
	r.pump()
}

// save sends the snapshot that was asked for first.
func (r *replica) save(fail bool) {
	if len(r.saves) == 0 {
		return
	}
	to, term := r.saves[0].to, r.saves[0].term
	r.saves = r.saves[1:]
	if fail {
		r.node.SnapshotFailed(to)
		r.pump()
		return
	}
	at := r.applied
	conf := r.disk.conf
	for _, c := range r.disk.confs() {
		if c.Index <= at {
			conf = c
		}
	}
	r.w.post(Message{From: r.id, To: to, Term: term, Body: &Snapshot{
		At: Position{at, r.w.committed[at-1].Term}, Conf: conf.Conf, ConfIndex: conf.Index, Handle: uint64(at)}})
	r.node.SnapshotSent(r.w.now, to, at)
	r.pump()
}

// trim drops the log up to index, as far as the store has it for good.
func (r *replica) trim(index id.Index) {
	r.flushed = r.applied
	index = min(index, r.flushed, r.disk.last())
	if index <= r.disk.base.Index {
		return
	}
	for _, c := range r.disk.confs() {
		if c.Index <= index {
			r.disk.conf = c
		}
	}
	base := Position{index, r.disk.term(index)}
	r.disk.entries = slices.Clone(r.disk.entries[index-r.disk.base.Index:])
	r.disk.base = base
	r.node.Trimmed(base)
	r.pump()
}

func (r *replica) propose(data string) (id.Index, error) {
	s := r.node.Status()
	index, err := r.node.Propose(r.w.now, s.Hard.Term, []byte(data))
	r.pump()
	return index, err
}

// read begins a read and notes what it must see: all that any replica knew to be
// committed at this moment.
func (r *replica) read() (ReadID, error) {
	r.w.readSeq++
	read := ReadID{Member: r.id, Boot: r.boot, Seq: r.w.readSeq}
	var must id.Index
	for _, other := range r.w.replicas {
		if other.up() {
			must = max(must, other.node.hard.Commit)
		}
	}
	r.w.reads[read] = max(must, id.Index(len(r.w.committed)))
	err := r.node.Read(r.w.now, read)
	if err != nil {
		delete(r.w.reads, read)
	}
	r.pump()
	return read, err
}

func (w *world) readDone(result ReadResult) {
	must, asked := w.reads[result.ID]
	if !asked {
		if r := w.replica(result.ID.Member); r.boot != result.ID.Boot {
			return
		}
		panic(invariant.Violation{Message: fmt.Sprintf("read %d ends twice", result.ID.Seq)})
	}
	delete(w.reads, result.ID)
	if result.Err == nil && result.Index < must {
		panic(invariant.Violation{Message: fmt.Sprintf("read %d got index %d, but %d was committed before it began", result.ID.Seq, result.Index, must)})
	}
	w.fates = append(w.fates, result)
	if w.tell != nil {
		if result.Err != nil {
			w.tell("read %d: %v", result.ID.Seq, result.Err)
		} else {
			w.tell("read %d: index %d", result.ID.Seq, result.Index)
		}
	}
}

// deliver hands message number i of the network over.
func (w *world) deliver(i int) {
	m := w.net[i]
	w.net = slices.Delete(w.net, i, i+1)
	w.receive(m)
}

func (w *world) receive(m Message) {
	if r := w.replica(m.To); r != nil && r.up() {
		r.node.Step(w.now, m)
		r.pump()
	}
}

// pass lets time go by, with every tick when it is due.
func (w *world) pass(d time.Duration) {
	until := w.now.Add(d)
	for {
		next := until
		for _, r := range w.replicas {
			if r.up() {
				next = min(next, max(r.node.Wake(), w.now))
			}
		}
		w.now = next
		for _, r := range w.replicas {
			if r.up() && r.node.Wake() <= w.now {
				r.node.Tick(w.now)
				r.pump()
				if r.node.Wake() <= w.now {
					panic(invariant.Violation{Message: fmt.Sprintf("%v is due again at once", r.id)})
				}
			}
		}
		if w.now >= until {
			return
		}
	}
}

// settle persists, loads, saves and delivers until nothing is left to do.
func (w *world) settle(reachable func(from, to id.Member) bool) {
	for range 100_000 {
		idle := true
		for _, r := range w.replicas {
			if !r.up() {
				continue
			}
			if len(r.flights)+len(r.loads)+len(r.saves) > 0 {
				idle = false
			}
			r.persist(len(r.flights))
			r.load()
			r.save(false)
			if w.slowApply {
				r.reportApplied()
				r.pump()
			}
		}
		if len(w.net) > 0 {
			idle = false
			m := w.net[0]
			w.net = w.net[1:]
			if reachable == nil || reachable(m.From, m.To) {
				w.receive(m)
			}
		}
		if idle {
			return
		}
	}
	panic(invariant.Violation{Message: "the world does not come to rest"})
}

func (w *world) leader() *replica {
	var found *replica
	for _, r := range w.replicas {
		if r.up() && r.node.role == Leader && (found == nil || r.node.hard.Term > found.node.hard.Term) {
			found = r
		}
	}
	return found
}

// logMatching checks that entries with the same index and term are the same and
// so is everything before them.
func (w *world) logMatching() {
	for i, a := range w.replicas {
		for _, b := range w.replicas[i+1:] {
			low := max(a.disk.base.Index, b.disk.base.Index) + 1
			high := min(a.disk.last(), b.disk.last())
			same := false
			for k := high; k >= low; k-- {
				x, y := a.disk.entries[k-a.disk.base.Index-1], b.disk.entries[k-b.disk.base.Index-1]
				if x.Term == y.Term {
					same = true
				}
				if same && (x.Term != y.Term || x.Kind != y.Kind || string(x.Data) != string(y.Data)) {
					panic(invariant.Violation{Message: fmt.Sprintf("logs of %v and %v differ at %d below an equal entry", a.id, b.id, k)})
				}
			}
		}
	}
}

func describe(e Entry) string {
	switch e.Kind {
	case Empty:
		return fmt.Sprintf("%d/%d empty", e.Index, e.Term)
	case Change:
		c, context, _ := DecodeChange(e.Data)
		story := fmt.Sprintf("%d/%d %s", e.Index, e.Term, describeConf(c))
		if len(context) > 0 {
			story += fmt.Sprintf(" %q", context)
		}
		return story
	default:
		return fmt.Sprintf("%d/%d %q", e.Index, e.Term, e.Data)
	}
}

func describeConf(c Conf) string {
	story := fmt.Sprintf("voters %v", c.Voters)
	if c.Joint() {
		story += fmt.Sprintf(" outgoing %v", c.Outgoing)
	}
	if len(c.Learners) > 0 {
		story += fmt.Sprintf(" learners %v", c.Learners)
	}
	return story
}

func describeEvent(e Event) string {
	switch e.Kind {
	case BecameFollower:
		return fmt.Sprintf("follower in term %d", e.Term)
	case BecamePreCandidate:
		return fmt.Sprintf("asks for pre-votes in term %d", e.Term)
	case BecameCandidate:
		return fmt.Sprintf("candidate in term %d", e.Term)
	case BecameLeader:
		return fmt.Sprintf("leader in term %d", e.Term)
	case LeaderKnown:
		if e.Member == 0 {
			return "has no leader"
		}
		return fmt.Sprintf("follows %v in term %d", e.Member, e.Term)
	case LostQuorum:
		return fmt.Sprintf("lost its quorum in term %d", e.Term)
	case Truncated:
		return fmt.Sprintf("drops entries from %d on", e.Index)
	case ConfChanged:
		return fmt.Sprintf("obeys the configuration at %d", e.Index)
	case Healed:
		return fmt.Sprintf("is healed by entry %d of term %d", e.Index, e.Term)
	case Removed:
		return fmt.Sprintf("is removed by the configuration at %d", e.Index)
	}
	return fmt.Sprintf("event %d", e.Kind)
}
