package raft

import (
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

// entryWeight is what an entry costs besides its data, on the wire and in memory.
const entryWeight = 32

// violated ends the process like a failed Check. On hot paths the condition stands
// outside, since the arguments of a Check are allocated even when it holds.
func violated(format string, args ...any) { invariant.Check(false, format, args...) }

func weight(e *Entry) int { return len(e.Data) + entryWeight }

// log is what a node knows of its log without reading it: the terms of all
// entries (as runs), the newest entries themselves, and how much of all that is
// on stable storage.
//
//	base           first            unsent      last
//	  |  on disk only |  in memory too  |  in memory only |
//	                          ^ durable, somewhere below unsent
//
// Invariants: base.Index <= durable < unsent <= last+1; runs ascend in First and
// Term and begin at base.Index+1; entries end at last. The array behind entries
// is never written twice in one place, so slices of it may be given away.
type log struct {
	base    Position
	runs    []TermRun
	last    id.Index
	entries []Entry
	// bytes is the weight of entries, dead that of those dropped from the front
	// since the array was made: they stay reachable until it is made anew.
	bytes, dead int
	// unsent is the first index that no Output has carried yet.
	unsent  id.Index
	durable id.Index
	claims  []claim
}

// claim says that once an Output is persisted, the log is durable up to last.
// A truncation lowers last: what was replaced is never claimed (rule 9).
type claim struct {
	number uint64
	last   Position
}

func newLog(s *Start) log {
	l := log{base: s.Base, runs: slices.Clone(s.Terms), last: s.Last,
		entries: slices.Clone(s.Tail), unsent: s.Last + 1, durable: s.Last}
	invariant.Check(s.Last >= s.Base.Index, "log ends at %d before its base %d", s.Last, s.Base.Index)
	at, term := s.Base.Index, s.Base.Term
	for i, r := range l.runs {
		invariant.Check(r.First > at && (i > 0 || r.First == at+1) && r.First <= s.Last && r.Term >= term && (i == 0 || r.Term > term),
			"run of term %d at %d follows term %d at %d in a log up to %d", r.Term, r.First, term, at, s.Last)
		at, term = r.First, r.Term
	}
	invariant.Check(s.Last == s.Base.Index || len(l.runs) > 0, "no terms for a log up to %d", s.Last)
	for i := range l.entries {
		e := &l.entries[i]
		t, ok := l.term(e.Index)
		invariant.Check(e.Index == s.Last-id.Index(len(l.entries)-1-i) && ok && t == e.Term,
			"entry %d of term %d does not fit a log up to %d", e.Index, e.Term, s.Last)
		l.bytes += weight(e)
	}
	invariant.Check(l.first() <= s.Applied+1, "entries in memory begin at %d, applied is %d", l.first(), s.Applied)
	return l
}

// first is the first index in memory; last+1 when there is none.
func (l *log) first() id.Index { return l.last + 1 - id.Index(len(l.entries)) }

// end is the position of the last entry.
func (l *log) end() Position {
	if len(l.runs) == 0 {
		return l.base
	}
	return Position{l.last, l.runs[len(l.runs)-1].Term}
}

// term returns the term of an entry; ok is false before the base and after last.
func (l *log) term(i id.Index) (id.Term, bool) {
	switch {
	case i == l.base.Index:
		return l.base.Term, true
	case i < l.base.Index || i > l.last:
		return 0, false
	}
	// Nearly always the question is about the newest run or the one before.
	for k := len(l.runs) - 1; k >= max(0, len(l.runs)-2); k-- {
		if l.runs[k].First <= i {
			return l.runs[k].Term, true
		}
	}
	k, found := slices.BinarySearchFunc(l.runs, i, func(r TermRun, i id.Index) int {
		switch {
		case r.First < i:
			return -1
		case r.First > i:
			return 1
		}
		return 0
	})
	if !found {
		k--
	}
	return l.runs[k].Term, true
}

// has says whether the log holds the entry at p, or ends its trimmed part there.
func (l *log) has(p Position) bool {
	t, ok := l.term(p.Index)
	return ok && t == p.Term
}

// agree returns the greatest index up to limit whose term is at most term: the
// latest place at which a log with that term at limit can be the same (thesis
// 3.4 skips one index at a time, this skips whole terms). It never goes below
// the base, where everything is committed.
func (l *log) agree(limit Position) Position {
	i := min(limit.Index, l.last)
	for k := len(l.runs) - 1; k >= 0; k-- {
		r := l.runs[k]
		if r.First > i {
			continue
		}
		if r.Term <= limit.Term {
			return Position{i, r.Term}
		}
		i = r.First - 1
	}
	return l.base
}

// add appends an entry after last.
func (l *log) add(e Entry) {
	end := l.end()
	if e.Index != l.last+1 || e.Term < end.Term {
		violated("entry %d of term %d after entry %d of term %d", e.Index, e.Term, end.Index, end.Term)
	}
	if len(l.runs) == 0 || l.runs[len(l.runs)-1].Term != e.Term {
		l.runs = append(l.runs, TermRun{e.Index, e.Term})
	}
	l.entries = append(l.entries, e)
	l.bytes += weight(&e)
	l.last = e.Index
}

// truncate drops the entries from index from on. What outputs on their way say
// about them is forgotten at once: the disk may hold them for a while, but no
// longer for long.
func (l *log) truncate(from id.Index) {
	invariant.Check(from > l.base.Index && from <= l.last, "truncation at %d of a log from %d to %d", from, l.base.Index, l.last)
	keep := max(0, len(l.entries)-int(l.last-from+1))
	for i := keep; i < len(l.entries); i++ {
		l.bytes -= weight(&l.entries[i])
	}
	// The cut capacity makes the next append take a new array.
	l.entries = l.entries[:keep:keep]
	for len(l.runs) > 0 && l.runs[len(l.runs)-1].First >= from {
		l.runs = l.runs[:len(l.runs)-1]
	}
	l.last = from - 1
	l.unsent = min(l.unsent, from)
	l.forget(from - 1)
}

// forget lowers what is durable, or will be, to at most keep.
func (l *log) forget(keep id.Index) {
	l.durable = min(l.durable, keep)
	if defect.On(defect.PersistedByIndex) {
		return
	}
	for i := range l.claims {
		if c := &l.claims[i]; c.last.Index > keep {
			t, _ := l.term(keep)
			c.last = Position{keep, t}
		}
	}
}

// reset makes the log empty after a snapshot; committed is the index up to which
// old and new agree.
func (l *log) reset(at Position, committed id.Index) {
	l.forget(committed)
	*l = log{base: at, last: at.Index, unsent: at.Index + 1, durable: l.durable, claims: l.claims}
}

// claim notes what Output number will make durable.
func (l *log) claim(number uint64) {
	l.claims = append(l.claims, claim{number, l.end()})
	l.unsent = l.last + 1
}

// persisted takes the claims of all outputs up to number.
func (l *log) persisted(number uint64) {
	done := 0
	for done < len(l.claims) && l.claims[done].number <= number {
		c := l.claims[done].last
		if defect.On(defect.PersistedByIndex) {
			c.Index = min(c.Index, l.last)
		} else if c.Index >= l.base.Index && !l.has(c) {
			violated("output %d claims entry %d of term %d, which is not in the log", l.claims[done].number, c.Index, c.Term)
		}
		l.durable = max(l.durable, c.Index)
		done++
	}
	l.claims = append(l.claims[:0], l.claims[done:]...)
}

// slice returns the entries [low, high] that are in memory, as many as fit in
// maxBytes but at least one if sole.
func (l *log) slice(low, high id.Index, maxBytes int, sole bool) (part []Entry, bytes int) {
	first := l.first()
	if low < first || high > l.last {
		violated("slice %d to %d of entries %d to %d", low, high, first, l.last)
	}
	from := int(low - first)
	to := from
	for ; to <= int(high-first); to++ {
		w := weight(&l.entries[to])
		if bytes+w > maxBytes && (to > from || !sole) {
			break
		}
		bytes += w
	}
	return l.entries[from:to:to], bytes
}

// trim forgets the terms, and drops the entries, up to base.
func (l *log) trim(base Position) {
	if base.Index <= l.base.Index {
		return
	}
	invariant.Check(base.Index <= l.durable && l.has(base),
		"trimmed to %d of term %d, a log up to %d, durable to %d", base.Index, base.Term, l.last, l.durable)
	k := 0
	for k < len(l.runs) && (k+1 < len(l.runs) && l.runs[k+1].First <= base.Index+1 || base.Index == l.last) {
		k++
	}
	l.runs = append(l.runs[:0], l.runs[k:]...)
	if len(l.runs) > 0 {
		l.runs[0].First = max(l.runs[0].First, base.Index+1)
	}
	l.base = base
	l.drop(0, base.Index)
}

// drop takes entries up to index upTo out of memory, oldest first, until what is
// left weighs at most keep.
func (l *log) drop(keep int, upTo id.Index) {
	n, first := 0, l.first()
	for n < len(l.entries) && l.bytes > keep && first+id.Index(n) <= upTo {
		w := weight(&l.entries[n])
		l.bytes -= w
		l.dead += w
		n++
	}
	if n == 0 {
		return
	}
	l.entries = l.entries[n:]
	if l.dead > keep {
		l.entries, l.dead = slices.Clone(l.entries), 0
	}
}
