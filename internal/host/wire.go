package host

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
)

// The encoding of an Envelope, version 1. Integers are uvarints unless a width is
// given; fixed widths are little-endian; a position is index, term; bytes are a
// length and so many bytes. docs/format/peer.md has it beside the frames that it
// travels in.
//
//	1 byte   version, 1
//	1 byte   kind, below
//	         group
//	8 bytes  from
//	8 bytes  to
//
//	1 raft      what raft.AppendMessage writes, to the end
//	2 forward   term, number of commands, each as bytes
//	3 refuse    term, 8 bytes boot, number of sequences, sequences
//	4 snapshot  position, configuration as bytes (raft.EncodeConf), its index,
//	            term, sequence, number, last (0 or 1), the chunk to the end
//	5 receipt   term, sequence, next, 1 byte verdict (0 taken, 1 unknown, 2 refused)
//
// The sums of entries are carried as they are; whoever stores or applies an entry
// checks them (rule 3).
const envelopeVersion = 1

const (
	kindRaft byte = iota + 1
	kindForward
	kindRefuse
	kindSnapshot
	kindReceipt
)

// ErrBadEnvelope is what DecodeEnvelope refuses with.
var ErrBadEnvelope = errors.New("host: malformed or unknown envelope")

// Lane is one of the ways to another member. What is sent on one lane arrives in
// order or not at all and never waits for what is on another. The numbers are
// those of the peer protocol.
type Lane uint8

const (
	// ControlLane has what is small and urgent: heartbeats, votes, answers, reads.
	ControlLane Lane = iota
	// AppendLane has entries and forwarded commands.
	AppendLane
	// SnapshotLane has the chunks of whole states.
	SnapshotLane
)

// Lane says how e travels: whatever may be large stays off the lane of the
// heartbeats. An Append without entries is a probe or a commit; raft does not mind
// when it overtakes entries.
func (e *Envelope) Lane() Lane {
	switch {
	case e.Raft != nil:
		switch b := e.Raft.Body.(type) {
		case *raft.Append:
			if len(b.Entries) > 0 {
				return AppendLane
			}
		case *raft.Snapshot:
			return SnapshotLane
		}
	case e.Forward != nil:
		return AppendLane
	case e.Snapshot != nil:
		return SnapshotLane
	}
	return ControlLane
}

// Size is about how many bytes e holds in memory and takes on the wire: what the
// bounds of queues count.
func (e *Envelope) Size() int { return e.weight() }

// AppendTo appends the encoding of e to buf.
func (e *Envelope) AppendTo(buf []byte) []byte { return AppendEnvelope(buf, e) }

// AppendEnvelope appends the encoding of e to buf. Exactly one of e's pointers
// must be set.
func AppendEnvelope(buf []byte, e *Envelope) []byte {
	kind := byte(0)
	switch {
	case e.Raft != nil:
		kind = kindRaft
	case e.Forward != nil:
		kind = kindForward
	case e.Refuse != nil:
		kind = kindRefuse
	case e.Snapshot != nil:
		kind = kindSnapshot
	case e.Receipt != nil:
		kind = kindReceipt
	default:
		invariant.Check(false, "an envelope to %v holds nothing", e.To)
	}
	buf = append(buf, envelopeVersion, kind)
	buf = binary.AppendUvarint(buf, uint64(e.Group))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(e.From))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(e.To))
	switch kind {
	case kindRaft:
		return raft.AppendMessage(buf, *e.Raft)
	case kindForward:
		return appendForward(buf, e.Forward)
	case kindRefuse:
		return appendRefuse(buf, e.Refuse)
	case kindReceipt:
		return appendReceipt(buf, e.Receipt)
	}
	return appendChunk(buf, e.Snapshot)
}

func appendForward(buf []byte, f *Forward) []byte {
	buf = binary.AppendUvarint(buf, uint64(f.Term))
	buf = binary.AppendUvarint(buf, uint64(len(f.Commands)))
	for _, cmd := range f.Commands {
		buf = append(binary.AppendUvarint(buf, uint64(len(cmd))), cmd...)
	}
	return buf
}

func appendRefuse(buf []byte, r *Refuse) []byte {
	buf = binary.AppendUvarint(buf, uint64(r.Term))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.Boot))
	buf = binary.AppendUvarint(buf, uint64(len(r.Seqs)))
	for _, seq := range r.Seqs {
		buf = binary.AppendUvarint(buf, uint64(seq))
	}
	return buf
}

func appendChunk(buf []byte, c *SnapshotChunk) []byte {
	invariant.Check(c.Number >= 0, "chunk %d of a snapshot", c.Number)
	buf = binary.AppendUvarint(buf, uint64(c.At.Index))
	buf = binary.AppendUvarint(buf, uint64(c.At.Term))
	conf := raft.EncodeConf(c.Conf)
	buf = append(binary.AppendUvarint(buf, uint64(len(conf))), conf...)
	buf = binary.AppendUvarint(buf, uint64(c.ConfIndex))
	buf = binary.AppendUvarint(buf, uint64(c.Term))
	buf = binary.AppendUvarint(buf, uint64(c.Seq))
	buf = binary.AppendUvarint(buf, uint64(c.Number))
	last := byte(0)
	if c.Last {
		last = 1
	}
	return append(append(buf, last), c.Bytes...)
}

func appendReceipt(buf []byte, r *Receipt) []byte {
	invariant.Check(r.Next >= 0, "a receipt for %d chunks", r.Next)
	buf = binary.AppendUvarint(buf, uint64(r.Term))
	buf = binary.AppendUvarint(buf, uint64(r.Seq))
	buf = binary.AppendUvarint(buf, uint64(r.Next))
	return append(buf, byte(r.Verdict))
}

// DecodeEnvelope reads what AppendEnvelope wrote; nothing may follow it, and every
// envelope has one encoding. The data of entries, commands and chunks share data's
// memory. Errors: ErrBadEnvelope.
func DecodeEnvelope(data []byte) (Envelope, error) {
	r := wireReader{rest: data}
	version, kind := r.byte(), r.byte()
	group := r.uvarint()
	e := Envelope{Group: id.Group(group), From: id.Member(r.uint64()), To: id.Member(r.uint64())}
	if r.bad || version != envelopeVersion || group > math.MaxUint32 {
		return Envelope{}, ErrBadEnvelope
	}
	switch kind {
	case kindRaft:
		m, err := raft.DecodeMessage(r.take(uint64(len(r.rest))))
		r.bad = err != nil
		e.Raft = &m
	case kindForward:
		e.Forward = r.forward()
	case kindRefuse:
		e.Refuse = r.refuse()
	case kindSnapshot:
		e.Snapshot = r.chunk()
	case kindReceipt:
		e.Receipt = r.receipt()
	default:
		r.bad = true
	}
	if r.bad || len(r.rest) != 0 {
		return Envelope{}, ErrBadEnvelope
	}
	return e, nil
}

// wireReader takes values from the front of rest; after the first that is not
// there it is bad and yields zeros.
type wireReader struct {
	rest []byte
	bad  bool
}

func (r *wireReader) forward() *Forward {
	f := &Forward{Term: id.Term(r.uvarint())}
	if count := r.count(); count > 0 {
		f.Commands = make([][]byte, count)
		for i := range f.Commands {
			f.Commands[i] = r.take(r.uvarint())
		}
	}
	return f
}

func (r *wireReader) refuse() *Refuse {
	f := &Refuse{Term: id.Term(r.uvarint()), Boot: id.Boot(r.uint64())}
	if count := r.count(); count > 0 {
		f.Seqs = make([]id.Seq, count)
		for i := range f.Seqs {
			f.Seqs[i] = id.Seq(r.uvarint())
		}
	}
	return f
}

func (r *wireReader) chunk() *SnapshotChunk {
	c := &SnapshotChunk{At: raft.Position{Index: id.Index(r.uvarint()), Term: id.Term(r.uvarint())}}
	conf, err := raft.DecodeConf(r.take(r.uvarint()))
	c.Conf, c.ConfIndex, c.Term, c.Seq = conf, id.Index(r.uvarint()), id.Term(r.uvarint()), id.Seq(r.uvarint())
	number, last := r.uvarint(), r.byte()
	c.Number, c.Last = int(number), last == 1
	r.bad = r.bad || err != nil || number > math.MaxInt || last > 1
	if len(r.rest) > 0 {
		c.Bytes = r.take(uint64(len(r.rest)))
	}
	return c
}

func (r *wireReader) receipt() *Receipt {
	f := &Receipt{Term: id.Term(r.uvarint()), Seq: id.Seq(r.uvarint())}
	next, verdict := r.uvarint(), Verdict(r.byte())
	f.Next, f.Verdict = int(next), verdict
	r.bad = r.bad || next > math.MaxInt || verdict >= verdicts
	return f
}

// count reads how many values follow, each of at least one byte.
func (r *wireReader) count() uint64 {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return 0
	}
	return n
}

func (r *wireReader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	part := r.rest[:n:n]
	r.rest = r.rest[n:]
	return part
}

func (r *wireReader) byte() byte {
	if part := r.take(1); part != nil {
		return part[0]
	}
	return 0
}

func (r *wireReader) uint64() uint64 {
	if part := r.take(8); part != nil {
		return binary.LittleEndian.Uint64(part)
	}
	return 0
}

func (r *wireReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	// The last byte of a longer encoding is never zero: every value has one form.
	if r.bad || n <= 0 || n > 1 && r.rest[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}
