package raftlog

import (
	"sort"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
)

// group is what the store keeps in memory of one group: not its entries, but
// where they are.
//
//	base                          last
//	  |  slots, segs, runs          |
//	        ^ trim: up to here nobody needs them
//
// Invariants: slots has one slot for each of (base.Index, last]; segs and runs
// begin at base.Index+1 when there is one; confs ascend, the first may be at or
// below base, the others are above.
type group struct {
	id    id.Group
	hard  raft.HardState
	base  raft.Position
	last  id.Index
	runs  []raft.TermRun
	segs  []segmentRun
	slots slotList
	confs []confAt
	trim  id.Index
	// need is the segment of the first entry after trim, 0 if there is none.
	need uint64
	// held keeps every segment: the log was found damaged, and nothing but the
	// damage itself remembers that (rule 5). The first Retain ends it.
	held bool
	// former is, during recovery, what the summary said of entries in segments
	// that are gone: a leader may have replaced some of them later.
	former *former

	// placed says that the group's creation is in a frame that was written. The
	// staged fields run ahead of what was: they include what waits for StartSync.
	placed, removed        bool
	stagedHard             raft.HardState
	stagedBase, stagedLast id.Index
}

// segmentRun says that entries from first on, up to the next run, are in a segment.
type segmentRun struct {
	first   id.Index
	segment uint64
}

type confAt struct {
	index id.Index
	conf  raft.Conf
}

type former struct {
	base raft.Position
	runs []raft.TermRun
}

// term returns the term of an entry in [base, last].
func (g *group) term(index id.Index) id.Term { return termIn(g.base, g.runs, index) }

func termIn(base raft.Position, runs []raft.TermRun, index id.Index) id.Term {
	if index == base.Index {
		return base.Term
	}
	i := sort.Search(len(runs), func(i int) bool { return runs[i].First > index })
	if index < base.Index || i == 0 {
		invariant.Check(false, "no term is known of index %d", index)
	}
	return runs[i-1].Term
}

func (g *group) lastPosition() raft.Position {
	return raft.Position{Index: g.last, Term: g.term(g.last)}
}

// segmentOf returns the segment of an entry that is in the log.
func (g *group) segmentOf(index id.Index) uint64 {
	i := sort.Search(len(g.segs), func(i int) bool { return g.segs[i].first > index })
	return g.segs[i-1].segment
}

// append adds an entry; what the log has from its index on is replaced.
func (g *group) append(index id.Index, term id.Term, at slot, segment uint64, conf *raft.Conf) {
	if index <= g.last {
		g.truncate(index - 1)
	}
	if index != g.last+1 {
		invariant.Check(false, "group %d: entry %d appended behind %d", g.id, index, g.last)
	}
	g.slots.push(at)
	g.last = index
	if n := len(g.segs); n == 0 || g.segs[n-1].segment != segment {
		g.segs = append(g.segs, segmentRun{index, segment})
	}
	if n := len(g.runs); n == 0 || g.runs[n-1].Term != term {
		g.runs = append(g.runs, raft.TermRun{First: index, Term: term})
	}
	if conf != nil {
		g.confs = append(g.confs, confAt{index, *conf})
	}
}

// truncate drops the entries after last.
func (g *group) truncate(last id.Index) {
	if last < g.base.Index {
		if g.former == nil || last < g.former.base.Index {
			invariant.Check(false, "group %d: truncated at %d, below its base %d", g.id, last, g.base.Index)
		}
		g.base = raft.Position{Index: last, Term: termIn(g.former.base, g.former.runs, last)}
	}
	g.last = last
	g.slots.truncate(int(last - g.base.Index))
	for n := len(g.runs); n > 0 && g.runs[n-1].First > last; n-- {
		g.runs = g.runs[:n-1]
	}
	for n := len(g.segs); n > 0 && g.segs[n-1].first > last; n-- {
		g.segs = g.segs[:n-1]
	}
	for n := len(g.confs); n > 1 && g.confs[n-1].index > last; n-- {
		g.confs = g.confs[:n-1]
	}
}

// reset empties the log at a position.
func (g *group) reset(r *Reset) {
	g.base, g.last = r.At, r.At.Index
	g.runs, g.segs, g.slots = nil, nil, slotList{}
	g.confs = []confAt{{r.ConfIndex, r.Conf}}
	g.trim, g.former = r.At.Index, nil
}

// baseIn returns the position before the first entry that is in segment low or
// later: the group's base once older ones are gone.
func (g *group) baseIn(low uint64) raft.Position {
	i := sort.Search(len(g.segs), func(i int) bool { return g.segs[i].segment >= low })
	switch {
	case i == 0:
		return g.base
	case i == len(g.segs):
		return g.lastPosition()
	}
	index := g.segs[i].first - 1
	return raft.Position{Index: index, Term: g.term(index)}
}

// forget drops what the group knows of segments before low.
func (g *group) forget(low uint64) {
	base := g.baseIn(low)
	if base.Index == g.base.Index {
		return
	}
	g.slots.dropFront(int(base.Index - g.base.Index))
	g.base = base
	g.runs = trimRuns(g.runs, base.Index, g.last)
	i := sort.Search(len(g.segs), func(i int) bool { return g.segs[i].segment >= low })
	g.segs = append(g.segs[:0], g.segs[i:]...)
	g.trimConfs()
}

// trimRuns drops what runs say of indexes up to base.
func trimRuns(runs []raft.TermRun, base, last id.Index) []raft.TermRun {
	if base == last {
		return nil
	}
	i := sort.Search(len(runs), func(i int) bool { return runs[i].First > base+1 })
	runs = append([]raft.TermRun(nil), runs[i-1:]...)
	runs[0].First = base + 1
	return runs
}

// trimConfs drops configurations that no truncation can bring back.
func (g *group) trimConfs() {
	drop := 0
	for drop+1 < len(g.confs) && g.confs[drop+1].index <= g.base.Index {
		drop++
	}
	g.confs = append(g.confs[:0], g.confs[drop:]...)
}

// needed is the segment of the first entry that somebody needs, 0 if none.
func (g *group) needed() uint64 {
	if g.held {
		return 1
	}
	first := max(g.trim, g.base.Index) + 1
	if first > g.last {
		return 0
	}
	return g.segmentOf(first)
}

// start is what recovery tells raft.
func (g *group) start(damaged bool) raft.Start {
	s := raft.Start{
		Hard: g.hard, Base: g.base, Terms: append([]raft.TermRun(nil), g.runs...), Last: g.last, Damaged: damaged,
	}
	s.Hard.Commit = min(s.Hard.Commit, g.last)
	if n := len(g.confs); n > 0 {
		s.Conf, s.ConfIndex = g.confs[n-1].conf, g.confs[n-1].index
		before := g.confs[max(n-2, 0)]
		s.Previous, s.PreviousIndex = before.conf, before.index
	}
	return s
}
