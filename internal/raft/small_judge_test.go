package raft

import (
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

// What must hold in every state of every small world. Safety is what clients would
// notice; the rest is how raft brings it about, and found nearer to its cause.

func smallViolation(format string, args ...any) {
	panic(invariant.Violation{Message: fmt.Sprintf(format, args...)})
}

// judge looks at a replica that has just changed.
func (s *small) judge(r *smallReplica) {
	s.judgeCommit(r)
	if s.rules.safetyOnly {
		return
	}
	s.judgeLog(r)
	s.judgeConfs(r)
}

// judgeCommit checks that what a replica takes for committed is the one history
// (state-machine order, commit durability). What is committed for the first time must
// be on stable storage at a majority of each half of the configuration.
func (s *small) judgeCommit(r *smallReplica) {
	log := r.node.log.entries
	commit := int(r.node.hard.Commit)
	for i := range min(commit, len(s.committed)) {
		if log[i].Sum != s.committed[i].Sum {
			smallViolation("%v takes %s for committed, another took %s", r.id, describe(log[i]), describe(s.committed[i]))
		}
	}
	if commit <= len(s.committed) {
		return
	}
	s.committed = append(slices.Clip(s.committed), log[len(s.committed):commit]...)
	if s.rules.safetyOnly {
		return
	}
	conf := s.latestConf(r)
	var have []id.Member
	for _, other := range s.replicas {
		d := &other.disk
		if int(d.last()) >= commit && d.entries[commit-1].Sum == log[commit-1].Sum {
			have = append(have, other.id)
		}
	}
	if !isQuorum(conf, have) {
		smallViolation("%v commits %d, which only %v have, in %s", r.id, commit, have, describeConf(conf))
	}
}

// latestConf is the configuration that a replica's log says is in effect (rule 10).
func (s *small) latestConf(r *smallReplica) Conf {
	for _, e := range slices.Backward(r.node.log.entries) {
		if e.Kind == Change {
			c, _, err := DecodeChange(e.Data)
			if err != nil {
				panic(err)
			}
			return c
		}
	}
	return r.disk.conf.Conf
}

// judgeLog checks log matching: below an entry that two logs share they are equal.
func (s *small) judgeLog(r *smallReplica) {
	mine := r.node.log.entries
	for _, other := range s.replicas {
		theirs := other.node.log.entries
		same := false
		for k := min(len(mine), len(theirs)); k > 0 && other.id != r.id; k-- {
			x, y := &mine[k-1], &theirs[k-1]
			if same = same || x.Term == y.Term; same && x.Sum != y.Sum {
				smallViolation("logs of %v and %v differ at %d below an equal entry", r.id, other.id, k)
			}
		}
	}
}

// judgeConfs checks that the configuration in effect is the latest of the log, that
// those that follow each other cannot decide apart, and that a log has one change
// at most beyond what is committed.
func (s *small) judgeConfs(r *smallReplica) {
	if is, must := r.node.conf(), s.latestConf(r); !is.equal(must) {
		smallViolation("%v goes by %s, its log says %s", r.id, describeConf(is), describeConf(must))
	}
	for i := range r.node.confs[1:] {
		if a, b := r.node.confs[i], r.node.confs[i+1]; !quorumsMeet(a.Conf, b.Conf) {
			smallViolation("%v has %s and then %s, which can decide apart", r.id, describeConf(a.Conf), describeConf(b.Conf))
		}
	}
	open := 0
	for i, e := range r.node.log.entries {
		if e.Kind == Change && (i >= len(s.committed) || s.committed[i].Sum != e.Sum) {
			open++
		}
	}
	if open > 1 {
		smallViolation("%v has %d changes that are not committed", r.id, open)
	}
}

func (s *small) apply(r *smallReplica, entries []Entry) {
	for _, e := range entries {
		switch {
		case e.Index != r.given+1:
			smallViolation("%v applies %d after %d", r.id, e.Index, r.given)
		case e.Index > r.disk.last() || r.disk.term(e.Index) != e.Term:
			smallViolation("%v applies %d, which is not durable there", r.id, e.Index)
		case e.Index > r.node.hard.Commit:
			smallViolation("%v applies %d, committed is %d", r.id, e.Index, r.node.hard.Commit)
		}
		r.given = e.Index
	}
	if len(entries) > 0 {
		s.judgeCommit(r) // the order in which it was committed is the order of applying
		r.node.Applied(r.given)
	}
}

// event checks election safety, leader completeness, and that only those who were
// removed stop.
func (s *small) event(r *smallReplica, e Event) {
	switch e.Kind {
	case Removed:
		entry := s.committed[e.Index-1]
		if c, _, err := DecodeChange(entry.Data); entry.Kind != Change || err != nil || c.Has(r.id) {
			smallViolation("%v takes %s for its removal", r.id, describe(entry))
		}
	case BecameLeader:
		s.judgeLeader(r, e.Term)
	}
}

func (s *small) judgeLeader(r *smallReplica, term id.Term) {
	if !slices.ContainsFunc(r.node.confs, func(c PlacedConf) bool { return c.Conf.Votes(r.id) }) {
		smallViolation("%v leads and is no voter", r.id)
	}
	s.leaders = slices.Clone(s.leaders)
	for id.Term(len(s.leaders)) <= term {
		s.leaders = append(s.leaders, 0)
	}
	if other := s.leaders[term]; other != 0 {
		smallViolation("%v and %v lead term %d", other, r.id, term)
	}
	s.leaders[term] = r.id
	for _, c := range s.committed {
		if t, ok := r.node.log.term(c.Index); !ok || t != c.Term {
			smallViolation("leader %v of term %d lacks %s", r.id, term, describe(c))
		}
	}
}
