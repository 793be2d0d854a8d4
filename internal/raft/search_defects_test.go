//go:build defects

package raft

import (
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
)

// The mistakes of raft that a small world can show are found within the stated
// number of states, by what clients would notice and not only by a look inside.
// Run with -tags defects.
func TestSmallWorldsFindDefects(t *testing.T) {
	for _, tc := range []struct {
		planted defect.Defect
		world   smallWorld
		within  int
	}{
		{defect.CommitEarlierTermByCounting, smallWorld{voters: 3, rules: smallRules{narrow: true}, left: budget{stands: 3},
			opening: func(s *small) *small { return s.elect(1, members(2)) }}, 100_000},
		{defect.VoteNotPersisted, smallWorld{voters: 3, left: budget{stands: 2, crashes: 1}, rules: smallRules{late: true}}, 10_000},
		{defect.ApplyBeforeDurable, smallWorld{voters: 3, led: true, left: budget{proposals: 1}, rules: smallRules{late: true}}, 400_000},
		{defect.LearnerVotes, smallWorld{voters: 3, spares: 2, led: true, first: &Conf{Voters: three, Learners: members(4, 5)},
			left: budget{stands: 1, changes: 1}, rules: smallRules{targets: []Conf{{Voters: three}}}}, 20_000},
		{defect.ChangeAtApply, smallWorld{voters: 3, led: true, left: budget{stands: 2, changes: 2},
			rules: smallRules{targets: []Conf{{Voters: members(1, 2)}}}}, 400_000},
		{defect.JointOneHalf, smallWorld{voters: 3, led: true, left: budget{stands: 2, changes: 1}, rules: smallRules{targets: []Conf{{Voters: members(3)}}}}, 400_000},
		{defect.RemovedVotes, smallWorld{voters: 3, led: true, left: budget{stands: 2, crashes: 1, changes: 1},
			rules: smallRules{targets: []Conf{{Voters: members(1)}}}}, 400_000},
	} {
		t.Run(tc.planted.String(), func(t *testing.T) {
			tc.world.rules.safetyOnly = tc.planted != defect.ChangeAtApply
			defect.Plant(tc.planted)
			f := tc.world.search(tc.within, tc.within)
			defect.Plant(defect.None)
			if f.story == "" {
				t.Fatalf("not found in %d states, all within %d steps, complete %v", f.states, f.depth, f.complete)
			}
			t.Logf("found after %d states:\n%s", f.states, f.story)
			if f := tc.world.search(f.states, f.states); f.story != "" {
				t.Errorf("found without the mistake:\n%s", f.story)
			}
		})
	}
}
