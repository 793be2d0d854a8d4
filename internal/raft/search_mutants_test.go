package raft

import "testing"

// Leaders that change the membership without the care of ProposeConf are caught, by
// what clients would notice: otherwise the search would prove nothing of changes.
func TestSmallWorldsFindHastyChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("a search of 40,000 states")
	}
	apart := func(n *Node, c Conf) error {
		n.appendOwn(Change, EncodeChange(c, nil))
		n.advanceCommit()
		return nil
	}
	single := func(n *Node, c Conf) bool { return difference(n.confs[len(n.confs)-1].Conf.Voters, c.Voters) == 1 }
	for _, tc := range []struct {
		name   string
		change func(*Node, Conf) error
		world  smallWorld
		within int
	}{
		{"several voters at once without a joint configuration", apart,
			smallWorld{voters: 3, led: true, left: budget{stands: 1, changes: 1}, rules: smallRules{targets: []Conf{{Voters: members(1)}}}}, 1000},
		{"a second change before the first is committed", func(n *Node, c Conf) error {
			if n.termFirst > n.hard.Commit || !single(n, c) {
				return ErrBadChange
			}
			return apart(n, c)
		}, smallWorld{voters: 3, led: true, left: budget{stands: 1, changes: 2, proposals: 1}, rules: smallRules{targets: []Conf{{Voters: members(1, 2)}, {Voters: members(1)}}}}, 1000},
		{"a change before the first entry of the term is committed", func(n *Node, c Conf) error {
			if n.confs[len(n.confs)-1].Index > n.hard.Commit || !single(n, c) {
				return ErrBadChange
			}
			return apart(n, c)
		}, smallWorld{voters: 4, led: true, left: budget{stands: 2, changes: 1},
			opening: func(s *small) *small {
				return s.with(1, func(_ *small, r *smallReplica) { _ = apart(r.node, Conf{Voters: three}) })
			},
			rules: smallRules{targets: []Conf{{Voters: members(1, 2, 4)}, {Voters: members(2, 3, 4)}}}}, 40_000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.world.rules.safetyOnly, tc.world.rules.change = true, tc.change
			f := tc.world.search(tc.within, tc.within)
			if f.story == "" {
				t.Fatalf("not found in %d states, all within %d steps, complete %v", f.states, f.depth, f.complete)
			}
			t.Logf("found after %d states:\n%s", f.states, f.story)
		})
	}
}
