package raftlog

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/raft"
)

func sample() *group {
	return &group{
		id: 3, hard: raft.HardState{Term: 300, Vote: 1 << 60, Commit: 41},
		base: raft.Position{Index: 20, Term: 2}, last: 45,
		runs:  []raft.TermRun{{First: 21, Term: 2}, {First: 30, Term: 300}},
		confs: []confAt{{0, raft.Conf{Voters: nil}}, {44, raft.Conf{Voters: nil}}},
	}
}

func summaries(groups ...*group) []byte {
	data := binary.AppendUvarint([]byte{summaryVersion}, uint64(len(groups)))
	for _, g := range groups {
		data = g.appendSummary(data)
	}
	return data
}

func TestSummariesComeBack(t *testing.T) {
	g := sample()
	got, err := decodeSummaries(summaries(g, &group{id: 4}))
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if s := got[0]; s.id != g.id || s.hard != g.hard || s.base != g.base || s.last != g.last || !reflect.DeepEqual(s.runs, g.runs) || len(s.confs) != 2 || s.confs[1].index != 44 {
		t.Errorf("%+v", s)
	}
	whole := summaries(g)
	for n := range len(whole) {
		if _, err := decodeSummaries(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken for a summary", n, len(whole))
		}
	}
	if _, err := decodeSummaries(summaries(&group{id: 4}, &group{id: 4})); err == nil {
		t.Error("a group may be there twice")
	}
}

// TestSlotsAgainstASlice compares the list of slots with a plain slice.
func TestSlotsAgainstASlice(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var l slotList
	var want []slot
	for step := range 20000 {
		switch n := r.IntN(100); {
		case n < 90:
			for range r.IntN(40) {
				s := slot{r.Uint32(), r.Uint32N(1000)}
				l.push(s)
				want = append(want, s)
			}
		case n < 95 && len(want) > 0:
			keep := len(want) - r.IntN(min(len(want), 500)+1)
			l.truncate(keep)
			want = want[:keep]
		case len(want) > 0:
			drop := r.IntN(min(len(want), 900) + 1)
			l.dropFront(drop)
			want = want[drop:]
		}
		if l.count != len(want) {
			t.Fatalf("step %d: %d slots, want %d", step, l.count, len(want))
		}
		if len(want) == 0 {
			continue
		}
		i := r.IntN(len(want))
		sum := int64(0)
		for _, s := range want[max(0, i-300):i] {
			sum += int64(s.length)
		}
		if l.at(i) != want[i] || l.bytesBefore(i)-l.bytesBefore(max(0, i-300)) != sum {
			t.Fatalf("step %d: slot %d of %d is %+v, want %+v", step, i, len(want), l.at(i), want[i])
		}
	}
}

func FuzzSummaries(f *testing.F) {
	f.Add(summaries(sample(), &group{id: 4}))
	f.Add(summaries())
	f.Fuzz(func(t *testing.T, p []byte) {
		all, err := decodeSummaries(p)
		if err != nil {
			return
		}
		var groups []*group
		for _, s := range all {
			groups = append(groups, &group{id: s.id, hard: s.hard, base: s.base, last: s.last, runs: s.runs, confs: s.confs})
		}
		if again := summaries(groups...); !bytes.Equal(again, p) {
			t.Errorf("%x is encoded as %x", p, again)
		}
	})
}

func FuzzReset(f *testing.F) {
	f.Add(encodeReset(&Reset{ConfIndex: 7}))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := decodeReset(raft.Position{Index: 9, Term: 1}, p)
		if err == nil && !bytes.Equal(encodeReset(r), p) {
			t.Errorf("%x is encoded as %x", p, encodeReset(r))
		}
	})
}
