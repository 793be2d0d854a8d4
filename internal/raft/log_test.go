package raft

import (
	"slices"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"pgregory.net/rapid"
)

// naive is the log as a newcomer would write it: all terms in one slice, and the
// disk as a list of what each output wrote.
type naive struct {
	terms []id.Term // of index 1, 2, ...
	base  id.Index
	// disk is what the outputs persisted so far leave there; flights are the
	// outputs on their way, each a position to cut at and the terms to add.
	disk    []id.Term
	flights []naiveOutput
	sent    int
}

type naiveOutput struct {
	number uint64
	cut    int
	terms  []id.Term
}

// durable is how much of the disk is the log's, and will remain so: up to the
// first place at which any output on its way cuts.
func (n *naive) durable() id.Index {
	same := 0
	for same < len(n.disk) && same < len(n.terms) && n.disk[same] == n.terms[same] {
		same++
	}
	for _, f := range n.flights {
		same = min(same, f.cut)
	}
	return id.Index(min(same, n.sent))
}

func (n *naive) agree(limit Position) id.Index {
	i := min(int(limit.Index), len(n.terms))
	for i > int(n.base) && n.terms[i-1] > limit.Term {
		i--
	}
	return id.Index(max(i, int(n.base)))
}

// The log with its runs and claims is the naive one under any appends,
// truncations, outputs, persisted reports, trims and drops.
func TestLogAgainstNaiveLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, model := newLog(&Start{}), &naive{}
		var number uint64
		term, committed := id.Term(1), id.Index(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1:
				term += id.Term(rapid.IntRange(0, 1).Draw(t, "new term"))
				l.add(Entry{Index: l.last + 1, Term: term, Kind: Batch, Data: make([]byte, rapid.IntRange(0, 40).Draw(t, "data"))})
				model.terms = append(model.terms, term)
			case 2:
				if l.last <= committed {
					continue
				}
				from := id.Index(rapid.Uint64Range(uint64(committed)+1, uint64(l.last)).Draw(t, "cut"))
				l.truncate(from)
				model.terms = slices.Clone(model.terms[:from-1])
				model.sent = min(model.sent, int(from)-1)
				term++
			case 3:
				if model.sent == len(model.terms) {
					continue
				}
				number++
				model.flights = append(model.flights, naiveOutput{number, model.sent, slices.Clone(model.terms[model.sent:])})
				model.sent = len(model.terms)
				l.claim(number)
			case 4:
				if len(model.flights) == 0 {
					continue
				}
				for range rapid.IntRange(1, len(model.flights)).Draw(t, "synced") {
					f := model.flights[0]
					model.disk = append(model.disk[:f.cut:f.cut], f.terms...)
					model.flights = model.flights[1:]
					l.persisted(f.number)
				}
			case 5:
				committed = max(committed, id.Index(rapid.Uint64Range(0, uint64(l.durable)).Draw(t, "commit")))
			case 6:
				base := id.Index(rapid.Uint64Range(0, uint64(min(committed, l.durable))).Draw(t, "base"))
				if at, ok := l.term(base); ok {
					l.trim(Position{base, at})
					model.base = max(model.base, base)
				}
			case 7:
				l.drop(rapid.IntRange(0, 200).Draw(t, "keep"), min(committed, l.durable))
			}
			compareLogs(t, &l, model)
		}
	})
}

func compareLogs(t *rapid.T, l *log, model *naive) {
	if l.last != id.Index(len(model.terms)) || l.base.Index != model.base {
		t.Fatalf("log from %d to %d, want %d to %d", l.base.Index, l.last, model.base, len(model.terms))
	}
	if want := max(model.durable(), l.base.Index); l.durable != want {
		t.Fatalf("durable %d, want %d", l.durable, want)
	}
	for i := model.base; i <= l.last+1; i++ {
		got, ok := l.term(i)
		switch {
		case i == 0 || i > l.last:
			if ok && i > l.last {
				t.Fatalf("a term for %d, beyond the end %d", i, l.last)
			}
		case !ok || got != model.terms[i-1]:
			t.Fatalf("term of %d is %d, %v; want %d", i, got, ok, model.terms[i-1])
		}
		for term := id.Term(0); term <= l.end().Term+1; term++ {
			if got, want := l.agree(Position{i, term}).Index, model.agree(Position{i, term}); got != want {
				t.Fatalf("agreement with %d of term %d at %d, want %d", i, term, got, want)
			}
		}
	}
	weight := 0
	for i := range l.entries {
		e := &l.entries[i]
		weight += entryWeight + len(e.Data)
		if e.Index != l.first()+id.Index(i) || e.Term != model.terms[e.Index-1] {
			t.Fatalf("entry %d of term %d stands at %d", e.Index, e.Term, l.first()+id.Index(i))
		}
	}
	if weight != l.bytes || l.first() <= l.base.Index {
		t.Fatalf("entries from %d weigh %d, said to be %d", l.first(), weight, l.bytes)
	}
	if unsent := l.last + 1 - l.unsent; int(unsent) != len(model.terms)-model.sent || l.first() > l.unsent {
		t.Fatalf("%d entries unsent from %d, want %d", unsent, l.unsent, len(model.terms)-model.sent)
	}
}

// What was given away is never written again: a slice taken before a truncation
// keeps its entries.
func TestGivenEntriesStay(t *testing.T) {
	l := newLog(&Start{})
	for i := id.Index(1); i <= 4; i++ {
		l.add(Entry{Index: i, Term: 1})
	}
	given, _ := l.slice(1, 4, 1<<20, true)
	l.truncate(3)
	l.add(Entry{Index: 3, Term: 2})
	if given[2].Term != 1 {
		t.Fatalf("an entry that was given away became %+v", given[2])
	}
}

// One entry goes whatever it weighs, but only when nothing else is on its way.
func TestSliceWeighsEntries(t *testing.T) {
	l := newLog(&Start{})
	for i := id.Index(1); i <= 3; i++ {
		l.add(Entry{Index: i, Term: 1, Data: make([]byte, 68)})
	}
	for _, c := range []struct {
		max  int
		sole bool
		want int
	}{{99, false, 0}, {99, true, 1}, {100, false, 1}, {199, true, 1}, {200, false, 2}, {1000, false, 3}} {
		got, bytes := l.slice(1, 3, c.max, c.sole)
		if len(got) != c.want || bytes != 100*c.want {
			t.Errorf("%d bytes, sole %v: %d entries of %d bytes, want %d", c.max, c.sole, len(got), bytes, c.want)
		}
	}
}
