package raftlog

import (
	"encoding/binary"
	"errors"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// Kinds of records. An entry's record has the entry's own kind (raft.Kind, below
// 16) and its sum, so that the sum that the leader made is the one on disk.
const (
	// kindHard: Term, Index = commit, data = vote 8.
	kindHard uint8 = 16
	// kindReset: (Term, Index) = the position, data = configuration index 8, configuration.
	kindReset uint8 = 17
	// kindCreate: data = the first configuration.
	kindCreate uint8 = 18
	// kindRemove: no data.
	kindRemove uint8 = 19
	firstOther       = kindHard
)

// errMalformed is what a record or summary that this version never writes is
// refused with.
var errMalformed = errors.New("raftlog: malformed")

func encodeReset(r *Reset) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(r.ConfIndex)), raft.EncodeConf(r.Conf)...)
}

func decodeReset(at raft.Position, data []byte) (*Reset, error) {
	if len(data) < 8 {
		return nil, errMalformed
	}
	conf, err := raft.DecodeConf(data[8:])
	return &Reset{At: at, ConfIndex: id.Index(binary.LittleEndian.Uint64(data)), Conf: conf}, err
}

// summaryVersion begins every summary.
const summaryVersion = 1

// appendSummary writes what a segment's header says of one group: numbers as
// uvarints in the order
//
//	group, term, vote, commit, base index, base term, last,
//	number of term runs, { first, term } ..., number of configurations, { index, length, bytes } ...
func (g *group) appendSummary(dst []byte) []byte {
	for _, v := range [...]uint64{
		uint64(g.id), uint64(g.hard.Term), uint64(g.hard.Vote), uint64(g.hard.Commit),
		uint64(g.base.Index), uint64(g.base.Term), uint64(g.last), uint64(len(g.runs)),
	} {
		dst = binary.AppendUvarint(dst, v)
	}
	for _, r := range g.runs {
		dst = binary.AppendUvarint(dst, uint64(r.First))
		dst = binary.AppendUvarint(dst, uint64(r.Term))
	}
	dst = binary.AppendUvarint(dst, uint64(len(g.confs)))
	for _, c := range g.confs {
		data := raft.EncodeConf(c.conf)
		dst = binary.AppendUvarint(dst, uint64(c.index))
		dst = binary.AppendUvarint(dst, uint64(len(data)))
		dst = append(dst, data...)
	}
	return dst
}

// summary is one group as a header tells it.
type summary struct {
	id    id.Group
	hard  raft.HardState
	base  raft.Position
	last  id.Index
	runs  []raft.TermRun
	confs []confAt
}

// decodeSummaries reads the summaries of all groups, in the order of their
// numbers. Errors: errMalformed, raft.ErrBadConf.
func decodeSummaries(data []byte) ([]summary, error) {
	if len(data) == 0 || data[0] != summaryVersion {
		return nil, errMalformed
	}
	d := decoder{rest: data[1:]}
	var all []summary
	for count := d.count(8); count > 0 && !d.bad; count-- {
		s := d.summary()
		if n := len(all); n > 0 && all[n-1].id >= s.id {
			d.bad = true
		}
		all = append(all, s)
	}
	if d.bad || len(d.rest) > 0 {
		return nil, errMalformed
	}
	return all, nil
}

// decoder reads uvarints; bad is set when something is wrong.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 { // the shortest form is the only one
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// count reads how many things of at least so many bytes follow.
func (d *decoder) count(least int) int {
	n := d.uvarint()
	if n > uint64(len(d.rest)/least) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) summary() (s summary) {
	number := d.uvarint()
	s.id = id.Group(number)
	s.hard = raft.HardState{Term: id.Term(d.uvarint()), Vote: id.Member(d.uvarint()), Commit: id.Index(d.uvarint())}
	s.base = raft.Position{Index: id.Index(d.uvarint()), Term: id.Term(d.uvarint())}
	s.last = id.Index(d.uvarint())
	before := raft.TermRun{First: s.base.Index, Term: s.base.Term}
	for n := d.count(2); n > 0 && !d.bad; n-- {
		r := raft.TermRun{First: id.Index(d.uvarint()), Term: id.Term(d.uvarint())}
		first := len(s.runs) == 0
		if r.First <= before.First || r.First > s.last || first && r.First != s.base.Index+1 || !first && r.Term <= before.Term || r.Term < before.Term {
			d.bad = true
		}
		s.runs, before = append(s.runs, r), r
	}
	if number > 1<<32-1 || s.last < s.base.Index || (s.last > s.base.Index) != (len(s.runs) > 0) {
		d.bad = true
	}
	for n := d.count(2); n > 0 && !d.bad; n-- {
		c := confAt{index: id.Index(d.uvarint())}
		data := d.bytes(d.count(1))
		var err error
		if c.conf, err = raft.DecodeConf(data); err != nil || len(s.confs) > 0 && s.confs[len(s.confs)-1].index >= c.index {
			d.bad = true
		}
		s.confs = append(s.confs, c)
	}
	return s
}

func (d *decoder) bytes(n int) []byte {
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}
