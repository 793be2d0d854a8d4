package raft

import (
	"cmp"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft/progress"
	"github.com/kvorum/kvorum/internal/raft/quorum"
)

// Joint says that a change of several voters is under way: both halves decide.
func (c Conf) Joint() bool { return len(c.Outgoing) > 0 }

// Votes says whether m is a voter, of either half.
func (c Conf) Votes(m id.Member) bool {
	return slices.Contains(c.Voters, m) || slices.Contains(c.Outgoing, m)
}

// Has says whether m is a member, voter or learner.
func (c Conf) Has(m id.Member) bool { return c.Votes(m) || slices.Contains(c.Learners, m) }

// Alone says whether m is all that it takes to decide.
func (c Conf) Alone(m id.Member) bool {
	return !c.Joint() && len(c.Voters) == 1 && c.Voters[0] == m
}

// Members are the members of all lists, sorted.
func (c Conf) Members() []id.Member { return union(c.Voters, c.Outgoing, c.Learners) }

// union returns what is in any of the lists, sorted and without repetition.
func union(lists ...[]id.Member) []id.Member {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

func (c Conf) clone() Conf {
	return Conf{slices.Clone(c.Voters), slices.Clone(c.Learners), slices.Clone(c.Outgoing)}
}

func (c Conf) equal(d Conf) bool {
	return slices.Equal(c.Voters, d.Voters) && slices.Equal(c.Learners, d.Learners) && slices.Equal(c.Outgoing, d.Outgoing)
}

// valid says that every list is sorted and without repetition, that no learner
// votes, and that a joint configuration has both halves.
func (c Conf) valid() bool {
	for _, list := range [...][]id.Member{c.Voters, c.Learners, c.Outgoing} {
		for i, m := range list {
			if m == 0 || i > 0 && list[i-1] >= m {
				return false
			}
		}
	}
	return !slices.ContainsFunc(c.Learners, c.Votes) && (len(c.Voters) > 0 || !c.Joint())
}

// difference counts the members that are in one of two sorted lists only.
func difference(a, b []id.Member) int {
	all := union(a, b)
	return 2*len(all) - len(a) - len(b)
}

// halves are the sets of voters of which each must have a majority; the second is
// empty in a configuration that is not joint.
func (c Conf) halves() [2][]id.Member {
	switch {
	case defect.On(defect.JointOneHalf):
		return [2][]id.Member{c.Voters}
	case defect.On(defect.LearnerVotes):
		return [2][]id.Member{union(c.Voters, c.Learners), c.Outgoing}
	}
	return [2][]id.Member{c.Voters, c.Outgoing}
}

// electors are those whose votes a candidate asks for.
func (n *Node) electors() []id.Member {
	halves := n.conf().halves()
	return union(halves[0], halves[1])
}

// outcome is where this candidate's election stands.
func (n *Node) outcome() quorum.Outcome {
	halves := n.conf().halves()
	outcome := n.tally.Outcome(halves[0])
	if len(halves[1]) > 0 {
		outcome = quorum.Both(outcome, n.tally.Outcome(halves[1]))
	}
	return outcome
}

// reached is the greatest value that a quorum has: a majority of each half. own is
// this leader's value, of the others'. It leaves the values of the last half in
// scratch.
func reached[T cmp.Ordered](n *Node, scratch *[]T, own T, of func(*progress.Follower) T) T {
	halves := n.conf().halves()
	value := reachedBy(n, halves[0], scratch, own, of)
	if len(halves[1]) > 0 {
		value = min(value, reachedBy(n, halves[1], scratch, own, of))
	}
	return value
}

func reachedBy[T cmp.Ordered](n *Node, voters []id.Member, scratch *[]T, own T, of func(*progress.Follower) T) T {
	values := (*scratch)[:0]
	for _, m := range voters {
		if m == n.cfg.ID {
			values = append(values, own)
			continue
		}
		f := n.follower(m)
		if f == nil {
			violated("voter %v is not followed", m)
		}
		values = append(values, of(f))
	}
	*scratch = values
	return quorum.Reached(values)
}
