package raft

import (
	"runtime/debug"
	"testing"
)

// Budgets of most worlds in which members change.
var (
	oneChange  = budget{stands: 1, changes: 1}
	deepChange = budget{stands: 2, crashes: 1, losses: 1, proposals: 1, changes: 1, reminds: 1}
)

// smallWorlds: every one is searched through all orders in which messages can
// arrive, be lost or arrive twice, with voters that stand at any moment, crashes at
// any moment, proposals and changes of members.
var smallWorlds = []smallWorld{
	{name: "elections", voters: 3, left: budget{stands: 2, crashes: 1},
		deep: budget{stands: 3, crashes: 1, losses: 1, proposals: 2, reminds: 1}},
	{name: "a doubled message", voters: 3, led: true, left: budget{stands: 1, doubles: 1, proposals: 1},
		deep: budget{stands: 2, crashes: 1, doubles: 1, proposals: 2}},
	{name: "a crash amid proposals", voters: 3, led: true, left: budget{stands: 1, crashes: 1, proposals: 1},
		deep: budget{stands: 2, crashes: 2, proposals: 2}},
	{name: "one entry at a time", voters: 3, rules: smallRules{narrow: true}, left: budget{stands: 2},
		deep: budget{stands: 4}},
	{name: "a voter is added", voters: 3, spares: 1, led: true, left: oneChange, deep: deepChange,
		rules: smallRules{targets: []Conf{{Voters: members(1, 2, 3, 4)}}}},
	{name: "a voter is added to one", voters: 1, spares: 1, led: true, left: budget{stands: 2, crashes: 1, proposals: 1, changes: 1}, deep: deepChange,
		rules: smallRules{targets: []Conf{{Voters: members(1, 2)}}}},
	{name: "a voter is removed", voters: 3, led: true, left: oneChange, deep: deepChange,
		rules: smallRules{targets: []Conf{{Voters: members(1, 2)}}}},
	{name: "the leader is removed", voters: 3, led: true, left: oneChange, deep: deepChange,
		rules: smallRules{targets: []Conf{{Voters: members(2, 3)}}}},
	{name: "a learner is added", voters: 3, spares: 1, led: true, left: oneChange, deep: deepChange,
		rules: smallRules{targets: []Conf{{Voters: three, Learners: members(4)}}}},
	{name: "a learner is promoted", voters: 3, spares: 1, led: true, first: &Conf{Voters: three, Learners: members(4)}, left: oneChange, deep: deepChange,
		rules: smallRules{targets: []Conf{{Voters: members(1, 2, 3, 4)}}}},
	{name: "two voters are replaced by one", voters: 3, spares: 1, led: true, left: oneChange, deep: deepChange,
		rules: smallRules{targets: []Conf{{Voters: members(1, 4)}}}},
	{name: "two voters are removed", voters: 3, led: true, left: oneChange, deep: deepChange,
		rules: smallRules{targets: []Conf{{Voters: members(3)}}}},
	{name: "two leaders change", voters: 3, led: true, left: budget{stands: 1, changes: 2},
		deep:  budget{stands: 2, proposals: 1, changes: 3},
		rules: smallRules{targets: []Conf{{Voters: members(1, 2)}, {Voters: members(2, 3)}, {Voters: members(3)}, {Voters: three}}}},
}

// TestSmallWorlds searches all that can happen in small worlds. With -deep it goes on
// with late syncs, and with more that can happen:
//
//	go test -run TestSmallWorlds -deep 3000000 -timeout 0 -v ./internal/raft
func TestSmallWorlds(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(300))
	total := 0
	search := func(w smallWorld, what string, limit int) {
		f := w.search(limit, min(limit, mostKept))
		total += f.states
		if f.story != "" {
			t.Errorf("%s%s:\n%s", w.name, what, f.story)
		}
		t.Logf("%s%s: %d states, all within %d steps, complete %v", w.name, what, f.states, f.depth, f.complete)
	}
	for _, w := range smallWorlds {
		if testing.Short() { // there is nothing in it for the race detector
			search(w, "", shortSearch/20)
			continue
		}
		if *deepFlag == 0 {
			search(w, "", shortSearch)
			continue
		}
		for _, more := range []string{"", " and more"} {
			if more != "" {
				w.left = w.deep
			}
			w.rules.late = false
			search(w, more, *deepFlag)
			w.rules.late = true
			search(w, more+", late syncs", *deepFlag)
		}
	}
	t.Logf("%d states", total)
}

// shortSearch is how many states of each world the short search visits at most;
// mostKept how many a search goes on from at a time: about 2 GB.
const (
	shortSearch = 40_000
	mostKept    = 500_000
)
