package raft

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft/progress"
)

// placedConf is a configuration and the index of its entry.
type placedConf struct {
	conf  Conf
	index id.Index
}

func (c Conf) votes(m id.Member) bool { return slices.Contains(c.Voters, m) }

// valid says that the voters are sorted and without repetition.
func (c Conf) valid() bool {
	for i, m := range c.Voters {
		if m == 0 || i > 0 && c.Voters[i-1] >= m {
			return false
		}
	}
	return true
}

// conf is the configuration in effect: the latest in the log (rule 10).
func (n *Node) conf() Conf { return n.confs[len(n.confs)-1].conf }

func (n *Node) startConfs(s *Start) {
	invariant.Check(s.Conf.valid() && s.Previous.valid() && s.PreviousIndex <= s.ConfIndex && s.ConfIndex <= s.Last,
		"configurations %v at %d and %v at %d in a log up to %d", s.Previous.Voters, s.PreviousIndex, s.Conf.Voters, s.ConfIndex, s.Last)
	if s.PreviousIndex < s.ConfIndex {
		n.confs = append(n.confs, placedConf{s.Previous, s.PreviousIndex})
	}
	n.confs = append(n.confs, placedConf{s.Conf, s.ConfIndex})
	n.settleConfs()
}

// placeConf puts a change that was just appended into effect.
func (n *Node) placeConf(e *Entry) {
	conf, err := DecodeConf(e.Data)
	invariant.Check(err == nil, "configuration at %d: %v", e.Index, err)
	n.confs = append(n.confs, placedConf{conf, e.Index})
	n.confTookEffect()
}

// undoConfs takes back the changes that a truncation removed.
func (n *Node) undoConfs(from id.Index) {
	keep := len(n.confs)
	for keep > 0 && n.confs[keep-1].index >= from {
		keep--
	}
	invariant.Check(keep > 0, "truncation at %d removes a committed configuration", from)
	if keep < len(n.confs) {
		n.confs = n.confs[:keep]
		n.confTookEffect()
	}
}

// settleConfs forgets configurations that can no longer come back.
func (n *Node) settleConfs() {
	for len(n.confs) > 1 && n.confs[1].index <= n.hard.Commit {
		n.confs = append(n.confs[:0], n.confs[1:]...)
	}
}

func (n *Node) confTookEffect() {
	latest := n.confs[len(n.confs)-1]
	n.tell(Event{Kind: ConfChanged, Term: n.hard.Term, Index: latest.index})
	if n.role != Leader {
		return
	}
	for _, m := range latest.conf.Voters {
		if f := n.follower(m); f != nil {
			f.Leaving = 0
		} else if m != n.cfg.ID {
			n.followers = append(n.followers, n.newFollower(m))
		}
	}
	for i := range n.followers {
		if f := &n.followers[i]; f.Leaving == 0 && !latest.conf.votes(f.Member) {
			f.Leaving = latest.index
		}
	}
	slices.SortFunc(n.followers, func(a, b progress.Follower) int {
		if a.Member < b.Member {
			return -1
		}
		return 1
	})
	if n.transferee != 0 && !latest.conf.votes(n.transferee) {
		n.endTransfer()
	}
}

// ProposeConf appends a configuration change of one voter (rule 10). Errors:
// ErrNotLeader, ErrTransferring, ErrChangePending, ErrBadChange.
func (n *Node) ProposeConf(now env.Instant, conf Conf) (id.Index, error) {
	n.now = now
	latest := n.confs[len(n.confs)-1]
	switch {
	case n.role != Leader:
		return 0, ErrNotLeader
	case n.transferee != 0:
		return 0, ErrTransferring
	case latest.index > n.hard.Commit || n.termFirst > n.hard.Commit:
		return 0, ErrChangePending
	case !conf.valid() || len(conf.Voters) == 0 || difference(latest.conf, conf) != 1:
		return 0, ErrBadChange
	}
	index := n.appendOwn(Change, EncodeConf(conf))
	n.advanceCommit()
	return index, nil
}

// difference counts the voters that are in one of two configurations only.
func difference(a, b Conf) (count int) {
	for _, m := range a.Voters {
		if !b.votes(m) {
			count++
		}
	}
	for _, m := range b.Voters {
		if !a.votes(m) {
			count++
		}
	}
	return count
}

// The encoding of a Conf, version 1:
//
//	1 byte   version, 1
//	uvarint  number of voters, then 8 bytes each, little-endian, ascending
//	uvarint  number of learners, then the same; 0 in this version
//	uvarint  number of voters of the other half of a joint configuration; 0 in
//	         this version
//
// A configuration with learners or another half is refused by a program that
// does not know them: it could not obey it.
const confVersion = 1

// ErrBadConf is what DecodeConf refuses with.
var ErrBadConf = errors.New("raft: malformed or unknown configuration")

// EncodeConf returns the data of a Change entry.
func EncodeConf(c Conf) []byte { return appendConf(nil, c) }

// DecodeConf reads what EncodeConf wrote. Errors: ErrBadConf.
func DecodeConf(data []byte) (Conf, error) {
	r := reader{rest: data}
	c := r.conf()
	if r.bad || len(r.rest) != 0 {
		return Conf{}, ErrBadConf
	}
	return c, nil
}

func appendConf(buf []byte, c Conf) []byte {
	buf = append(buf, confVersion)
	buf = binary.AppendUvarint(buf, uint64(len(c.Voters)))
	for _, m := range c.Voters {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(m))
	}
	return append(buf, 0, 0)
}

func (r *reader) conf() (c Conf) {
	version := r.byte()
	count := r.uvarint()
	if version != confVersion || count > uint64(len(r.rest)/8) {
		r.bad = true
		return Conf{}
	}
	if count > 0 {
		c.Voters = make([]id.Member, count)
	}
	for i := range c.Voters {
		c.Voters[i] = id.Member(r.uint64())
	}
	learners, others := r.byte(), r.byte()
	r.bad = r.bad || learners != 0 || others != 0 || !c.valid()
	return c
}
