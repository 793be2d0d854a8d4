package raftlog

import (
	"encoding/binary"
	"fmt"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/wal"
)

// owner is the side of the Store that the wal calls.
type owner Store

var _ wal.Owner = (*owner)(nil)

// Summarize implements wal.Owner.
func (o *owner) Summarize(dst []byte) []byte {
	placed := uint64(0)
	for _, g := range o.order {
		if g.placed {
			placed++
		}
	}
	dst = binary.AppendUvarint(append(dst, summaryVersion), placed)
	for _, g := range o.order {
		if g.placed {
			dst = g.appendSummary(dst)
		}
	}
	return dst
}

// Placed implements wal.Owner: the staged frame is written, so its effects show.
func (o *owner) Placed(segment uint64, base uint32) {
	s := (*Store)(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ops {
		p := &s.ops[i]
		switch p.kind {
		case kindHard:
			p.g.hard = p.hard
		case kindReset:
			p.g.reset(p.reset)
		case kindCreate:
			p.g.placed = true
		case kindRemove:
			s.erase(p.g)
			continue
		default:
			p.g.append(p.index, p.term, slot{base + p.offset, p.length}, segment, p.conf)
		}
		s.setNeed(p.g)
	}
	clear(s.ops)
	s.ops = s.ops[:0]
	s.advance()
}

// Restore implements wal.Owner. The first summary begins the state: its entries
// are in segments that are gone. A lost one comes after damage: what the logs had
// is cut off where the damage is, but terms, votes and the list of groups are
// taken from it.
func (o *owner) Restore(data []byte, lost bool) error {
	s := (*Store)(o)
	summaries, err := decodeSummaries(data)
	if err != nil {
		return err
	}
	named := map[id.Group]bool{}
	for i := range summaries {
		from := &summaries[i]
		named[from.id] = true
		g := s.groups[from.id]
		switch {
		case g == nil && lost:
			// All that its log had is lost: of its configurations the latest stands
			// in for the first.
			g = &group{id: from.id, hard: from.hard}
			if n := len(from.confs); n > 0 {
				g.confs = []confAt{{0, from.confs[n-1].conf}}
			}
			s.insert(g)
		case g == nil:
			g = &group{id: from.id, hard: from.hard, last: from.last, confs: from.confs}
			g.former = &former{from.base, from.runs}
			g.base = raft.Position{Index: from.last, Term: termIn(from.base, from.runs, from.last)}
			s.insert(g)
		default:
			g.harvest(from.hard)
		}
	}
	for i := len(s.order) - 1; i >= 0; i-- {
		if g := s.order[i]; !named[g.id] {
			s.erase(g)
		}
	}
	return nil
}

// harvest takes over a hard state from beyond damage: the highest term ever seen,
// with its vote. Its commit is worth nothing here: what it counted may have
// replaced, beyond the damage, entries that this log still has.
func (g *group) harvest(h raft.HardState) {
	switch {
	case h.Term > g.hard.Term:
		g.hard.Term, g.hard.Vote = h.Term, h.Vote
	case h.Term == g.hard.Term && g.hard.Vote == 0:
		g.hard.Vote = h.Vote
	}
}

// Replay implements wal.Owner.
func (o *owner) Replay(segment uint64, offset uint32, r wal.Record, lost bool) error {
	s := (*Store)(o)
	g := s.groups[r.Group]
	if r.Kind == kindCreate {
		return s.replayCreate(g, r)
	}
	if g == nil {
		return errUnknownGroup
	}
	switch {
	case r.Kind == kindRemove:
		s.erase(g)
	case r.Kind == kindHard && len(r.Data) == 8:
		h := raft.HardState{Term: r.Term, Vote: id.Member(binary.LittleEndian.Uint64(r.Data)), Commit: r.Index}
		if lost {
			g.harvest(h)
		} else {
			g.hard = h
		}
	case lost:
	case r.Kind == kindReset:
		reset, err := decodeReset(raft.Position{Index: r.Index, Term: r.Term}, r.Data)
		if err != nil {
			return err
		}
		g.reset(reset)
	case r.Kind < firstOther:
		return g.replayEntry(segment, offset, r)
	default:
		return fmt.Errorf("%w record of kind %d", errMalformed, r.Kind)
	}
	return nil
}

func (s *Store) replayCreate(g *group, r wal.Record) error {
	conf, err := raft.DecodeConf(r.Data)
	if err != nil {
		return err
	}
	if g != nil {
		return fmt.Errorf("%w: group %d begins twice", errMalformed, r.Group)
	}
	s.insert(newGroup(r.Group, conf))
	return nil
}

func (g *group) replayEntry(segment uint64, offset uint32, r wal.Record) error {
	base := g.base
	if g.former != nil {
		base = g.former.base
	}
	if r.Index <= base.Index || r.Index > g.last+1 {
		return fmt.Errorf("%w: entry %d of group %d does not fit a log of (%d, %d]", errMalformed, r.Index, g.id, base.Index, g.last)
	}
	var conf *raft.Conf
	if raft.Kind(r.Kind) == raft.Change {
		c, _, err := raft.DecodeChange(r.Data)
		if err != nil {
			return err
		}
		conf = &c
	}
	g.append(r.Index, r.Term, slot{offset, uint32(wal.RecordHeadBytes + len(r.Data))}, segment, conf)
	return nil
}
