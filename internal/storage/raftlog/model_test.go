package raftlog_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// naiveLog is a group's log as one would keep it if nothing were ever lost: all
// entries since the last reset. Values are never changed once shared.
type naiveLog struct {
	hard      raft.HardState
	base      raft.Position
	conf      raft.Conf // at or below base
	confIndex id.Index
	entries   []raft.Entry
}

func (n *naiveLog) last() id.Index { return n.base.Index + id.Index(len(n.entries)) }

func (n *naiveLog) term(i id.Index) id.Term {
	if i == n.base.Index {
		return n.base.Term
	}
	return n.entries[i-n.base.Index-1].Term
}

// confs lists every configuration in force since base.
func (n *naiveLog) confs() (at []id.Index, confs []raft.Conf) {
	at, confs = []id.Index{n.confIndex}, []raft.Conf{n.conf}
	for _, e := range n.entries {
		if e.Kind == raft.Change {
			c, _ := raft.DecodeConf(e.Data)
			at, confs = append(at, e.Index), append(confs, c)
		}
	}
	return at, confs
}

// start is what recovery should say if the log still reaches back to base.
func (n *naiveLog) start(base id.Index) raft.Start {
	s := raft.Start{Hard: n.hard, Base: raft.Position{Index: base, Term: n.term(base)}, Last: n.last()}
	for i := base + 1; i <= s.Last; i++ {
		if k := len(s.Terms); k == 0 || s.Terms[k-1].Term != n.term(i) {
			s.Terms = append(s.Terms, raft.TermRun{First: i, Term: n.term(i)})
		}
	}
	at, confs := n.confs()
	k := len(at) - 1
	s.Conf, s.ConfIndex, s.Previous, s.PreviousIndex = confs[k], at[k], confs[k], at[k]
	if k > 0 && at[k] > base {
		s.Previous, s.PreviousIndex = confs[k-1], at[k-1]
	}
	return s
}

// failer is the part of testing.T that a history needs.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// history drives a store and the naive logs side by side.
type history struct {
	t failer
	m *machine
	r *rand.Rand
	s *raftlog.Store
	// now is what the next frame will lead to; frames are the states after each
	// frame that was written since the last one known to be durable, which is the
	// first of them.
	now    map[id.Group]naiveLog
	frames []map[id.Group]naiveLog
	trims  map[id.Group]id.Index
	next   id.Group
	// maxGroups bounds the groups, valueBytes their values.
	maxGroups, valueBytes int
	died                  bool
	// damaged: the log was found damaged once, and may say so until it is trimmed.
	damaged bool
}

func newHistory(t failer, m *machine, seed uint64) *history {
	return &history{
		t: t, m: m, r: rand.New(rand.NewPCG(seed, 1)), now: map[id.Group]naiveLog{},
		frames: []map[id.Group]naiveLog{{}}, trims: map[id.Group]id.Index{}, next: 1, maxGroups: 3, valueBytes: 5000,
	}
}

// open recovers the store and compares it with what it may be. It reports false
// if the process died meanwhile.
func (h *history) open() bool {
	h.t.Helper()
	h.died = false
	s, err := h.m.open()
	if err != nil {
		if errors.Is(err, simenv.ErrCrashed) {
			return false
		}
		h.t.Fatalf("open: %v", err)
	}
	h.s = s
	if d := s.Damage(); d != nil && !h.damaged {
		h.t.Fatalf("a crash was taken for damage: %v", d)
	}
	var why string
	for k := len(h.frames) - 1; k >= 0; k-- {
		if why = h.differs(h.frames[k]); why == "" {
			// Recovery promised it: it can never be taken back (rule 4).
			h.now = maps.Clone(h.frames[k])
			h.frames = []map[id.Group]naiveLog{h.frames[k]}
			return true
		}
	}
	h.t.Fatalf("recovered what was never there; against the last durable of %d states: %s", len(h.frames), why)
	return false
}

// differs compares the store with one state.
func (h *history) differs(state map[id.Group]naiveLog) string {
	groups := h.s.Groups()
	if len(groups) != len(state) {
		return fmt.Sprintf("%d groups, want %d", len(groups), len(state))
	}
	for _, g := range groups {
		want, ok := state[g.Group]
		if !ok {
			return fmt.Sprintf("unknown group %d", g.Group)
		}
		base := g.Start.Base.Index
		if base < want.base.Index || base > max(want.base.Index, h.trims[g.Group]) || base > want.last() {
			return fmt.Sprintf("group %d begins behind %d, needed from %d", g.Group, base, h.trims[g.Group])
		}
		start := want.start(base)
		if start.Damaged = h.s.Damage() != nil; !reflect.DeepEqual(g.Start, start) {
			return fmt.Sprintf("group %d: %+v, want %+v", g.Group, g.Start, start)
		}
		if why := h.reads(g.Group, &want, base); why != "" {
			return why
		}
	}
	return ""
}

// reads reads a whole log back, in pieces.
func (h *history) reads(group id.Group, want *naiveLog, base id.Index) string {
	for low := base + 1; low <= want.last(); {
		high := min(want.last(), low+id.Index(h.r.IntN(20)))
		got, err := h.s.Entries(group, low, high, 1+h.r.IntN(20000))
		if err != nil {
			return fmt.Sprintf("group %d: entries from %d: %v", group, low, err)
		}
		if len(got) == 0 || !reflect.DeepEqual(got, slices.Clone(want.entries[low-want.base.Index-1:][:len(got)])) {
			return fmt.Sprintf("group %d: %d entries from %d are not those written", group, len(got), low)
		}
		low += id.Index(len(got))
	}
	return ""
}

// step does one thing.
func (h *history) step() {
	switch n := h.r.IntN(100); {
	case n < 60 && len(h.now) > 0:
		h.append(h.pick())
	case n < 63 && len(h.now) < h.maxGroups || len(h.now) == 0:
		h.create()
	case n < 64 && len(h.now) > 1:
		g := h.pick()
		delete(h.now, g)
		h.s.Remove(g)
	case n < 66:
		h.reset(h.pick())
	case n < 80:
		h.sync()
	case n < 90:
		h.retain(h.pick())
	case n < 93:
		h.m.world.AdvanceTo(h.m.world.Now().Add(time.Duration(h.r.Int64N(int64(150 * time.Millisecond)))))
	default:
		h.turn()
	}
}

func (h *history) pick() id.Group {
	groups := slices.Sorted(maps.Keys(h.now))
	return groups[h.r.IntN(len(groups))]
}

func (h *history) create() {
	g := h.next
	h.next++
	c := conf(id.Member(h.r.Uint64()))
	h.now[g] = naiveLog{conf: c}
	h.s.Create(g, c)
}

func (h *history) append(g id.Group) {
	n := h.now[g]
	n.entries = slices.Clip(n.entries)
	low := n.last() + 1
	if floor := max(n.base.Index, h.trims[g], n.hard.Commit); h.r.IntN(6) == 0 && floor < n.last() {
		low = floor + 1 + id.Index(h.r.Int64N(int64(n.last()-floor)))
	}
	if low <= n.last() || h.r.IntN(10) == 0 {
		n.hard.Term, n.hard.Vote = n.hard.Term+1, id.Member(h.r.IntN(4))
	}
	n.hard.Term = max(n.hard.Term, n.base.Term, 1)
	var added []raft.Entry
	for i := low; i < low+id.Index(h.r.IntN(5)); i++ {
		if h.r.IntN(8) == 0 {
			added = append(added, change(g, n.hard.Term, i, conf(1, id.Member(2+h.r.IntN(100)))))
			continue
		}
		value := make([]byte, h.r.IntN(1+h.r.IntN(h.valueBytes)))
		for k := range value {
			value[k] = byte(h.r.Uint32())
		}
		added = append(added, entry(g, n.hard.Term, i, string(value)))
	}
	if len(added) > 0 {
		n.entries = append(n.entries[:low-n.base.Index-1:low-n.base.Index-1], added...)
	}
	n.hard.Commit = max(n.hard.Commit, n.base.Index) + id.Index(h.r.Int64N(int64(n.last()-max(n.hard.Commit, n.base.Index)+1)))
	h.now[g] = n
	h.s.Append(raftlog.Save{Group: g, Hard: n.hard, Entries: added})
}

func (h *history) reset(g id.Group) {
	n := h.now[g]
	at := raft.Position{Index: n.last() + id.Index(h.r.IntN(10)), Term: n.hard.Term + 1}
	n = naiveLog{
		hard: raft.HardState{Term: at.Term, Commit: at.Index}, base: at,
		conf: conf(3, 4), confIndex: at.Index - min(at.Index, 1),
	}
	h.now[g] = n
	h.s.Append(raftlog.Save{Group: g, Hard: n.hard, Reset: &raftlog.Reset{At: at, Conf: n.conf, ConfIndex: n.confIndex}})
}

// retain gives up entries that are durable and committed.
func (h *history) retain(g id.Group) {
	durable, ok := h.frames[0][g]
	if n := h.now[g]; !ok || n.base != durable.base || len(h.frames) > 1 {
		return
	}
	h.trims[g] = max(h.trims[g], durable.hard.Commit)
	base := h.s.Retain(g, durable.hard.Commit, durable.last()+1)
	if base.Index > h.trims[g] || base.Term != durable.term(base.Index) || base != h.s.Bounds(g).Base {
		h.t.Fatalf("group %d retains from %+v, trimmed at %d", g, base, h.trims[g])
	}
}

// sync writes a frame; often more is staged, or turns come, before it is durable.
func (h *history) sync() {
	h.frames = append(h.frames, maps.Clone(h.now))
	written := len(h.frames) - 1
	reported := false
	// Behind a seal, the frame is only written when the seal is durable, and takes
	// along what is staged until then.
	waits := h.m.Disk().PendingSyncs() > 0
	h.s.StartSync(false, func(err error) {
		reported = true
		if err != nil {
			h.dies(err)
			return
		}
		h.frames = h.frames[written:]
	})
	for !reported && !h.m.Disk().Down() {
		if h.r.IntN(3) == 0 && len(h.now) > 0 {
			h.append(h.pick())
			if waits {
				h.frames[written] = maps.Clone(h.now)
			}
			continue
		}
		if h.m.Disk().PendingSyncs() > 0 {
			waits = false
			h.m.Disk().CompleteSync(0)
		}
	}
	h.died = h.died || h.m.Disk().Down()
}

func (h *history) dies(err error) {
	if !errors.Is(err, simenv.ErrCrashed) {
		h.t.Fatalf("the log failed: %v", err)
	}
	h.died = true
}

func (h *history) turn() {
	h.s.Turn(h.m.process.Clock.Now())
	if h.m.process.Tasks.Pending() > 0 {
		h.m.process.Tasks.RunOne(0)
	}
	if h.m.Disk().PendingSyncs() > 0 && h.r.IntN(2) == 0 {
		h.m.Disk().CompleteSync(0)
	}
	h.died = h.died || h.m.Disk().Down()
}

// live opens the store and uses it until it has done so many steps or died.
func (h *history) live(steps int) {
	h.t.Helper()
	if !h.open() {
		return
	}
	for i := 0; i < steps && !h.died; i++ {
		h.step()
	}
}

// end crashes the machine; what was written and not synced may or may not be
// there, what was only staged is not.
func (h *history) end(c simenv.Crash) { h.m.crash(c) }
