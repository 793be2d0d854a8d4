package host

import (
	"slices"

	"github.com/kvorum/kvorum/internal/id"
)

// window is what a leader remembers, for the length of its term, of the proposals
// that others forwarded to it and that it appended: a forwarder may send one
// again, and a network may double it (rule 13).
type window struct {
	term     id.Term
	accepted map[sender]*intervals
}

type sender struct {
	member id.Member
	boot   id.Boot
}

// of returns what was accepted from a sender in term, beginning anew when the
// term is another.
func (w *window) of(term id.Term, s sender) *intervals {
	if w.term != term || w.accepted == nil {
		w.term, w.accepted = term, map[sender]*intervals{}
	}
	in := w.accepted[s]
	if in == nil {
		in = &intervals{}
		w.accepted[s] = in
	}
	return in
}

// has says whether a sequence was accepted in term.
func (w *window) has(term id.Term, s sender, seq id.Seq) bool {
	in := w.accepted[s]
	return w.term == term && in != nil && in.has(seq)
}

// intervals is a set of sequences as closed intervals, ascending, never touching
// each other. Sequences come nearly in order, so it stays short: one interval
// and one for each run of proposals that were lost on the way.
type intervals struct{ runs []interval }

type interval struct{ low, high id.Seq }

// locate returns the first run that ends at or after seq.
func (in *intervals) locate(seq id.Seq) int {
	if n := len(in.runs); n > 0 && in.runs[n-1].high < seq {
		return n
	}
	i, _ := slices.BinarySearchFunc(in.runs, seq, func(r interval, seq id.Seq) int {
		if r.high < seq {
			return -1
		}
		return 1
	})
	return i
}

func (in *intervals) has(seq id.Seq) bool {
	i := in.locate(seq)
	return i < len(in.runs) && in.runs[i].low <= seq
}

// add puts a sequence in and says whether it was not there yet.
func (in *intervals) add(seq id.Seq) bool {
	i := in.locate(seq)
	if i < len(in.runs) && in.runs[i].low <= seq {
		return false
	}
	before := i > 0 && in.runs[i-1].high+1 == seq
	after := i < len(in.runs) && in.runs[i].low == seq+1
	switch {
	case before && after:
		in.runs[i-1].high = in.runs[i].high
		in.runs = slices.Delete(in.runs, i, i+1)
	case before:
		in.runs[i-1].high = seq
	case after:
		in.runs[i].low = seq
	default:
		in.runs = slices.Insert(in.runs, i, interval{seq, seq})
	}
	return true
}

// remove takes a sequence out again.
func (in *intervals) remove(seq id.Seq) {
	i := in.locate(seq)
	if i == len(in.runs) || in.runs[i].low > seq {
		return
	}
	r := in.runs[i]
	switch {
	case r.low == r.high:
		in.runs = slices.Delete(in.runs, i, i+1)
	case r.low == seq:
		in.runs[i].low++
	case r.high == seq:
		in.runs[i].high--
	default:
		in.runs[i].high = seq - 1
		in.runs = slices.Insert(in.runs, i+1, interval{seq + 1, r.high})
	}
}
