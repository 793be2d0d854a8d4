package raft

import (
	"encoding/binary"
	"errors"

	"github.com/kvorum/kvorum/internal/id"
)

// The encoding of a Message, version 1. Integers are uvarints unless a width is
// given; fixed widths are little-endian; a position is index, term; a bool is a
// byte 0 or 1.
//
//	1 byte   version, 1
//	1 byte   kind of body, below
//	8 bytes  from
//	8 bytes  to
//	         term
//
//	 1 VoteRequest  flags (1 pre, 2 transfer), last position
//	 2 VoteReply    flags (1 pre, 2 granted)
//	 3 Append       previous position, commit, round, number of entries, entries
//	 4 AppendReply  reject, match, previous, hint position
//	 5 Heartbeat    commit, round
//	 6 RoundReply   round
//	 7 Snapshot     position, configuration (see EncodeConf), its index, handle
//	 8 TimeoutNow
//	 9 ReadRequest  read id: 8 bytes member, 8 bytes boot, sequence
//	10 ReadReply    read id, index, refused
//
// An entry is one byte of kind, term, 4 bytes of sum, length, data. Its index
// follows from its place: the first one stands after previous. The sum is
// carried as it is and checked by whoever stores or applies the entry (rule 3).
const messageVersion = 1

// ErrBadMessage is what DecodeMessage refuses with.
var ErrBadMessage = errors.New("raft: malformed or unknown message")

const (
	kindVoteRequest byte = iota + 1
	kindVoteReply
	kindAppend
	kindAppendReply
	kindHeartbeat
	kindRoundReply
	kindSnapshot
	kindTimeoutNow
	kindReadRequest
	kindReadReply
)

// AppendMessage appends the encoding of m to buf.
func AppendMessage(buf []byte, m Message) []byte {
	kind := byte(0)
	buf = append(buf, messageVersion, kind)
	at := len(buf) - 1
	buf = binary.LittleEndian.AppendUint64(buf, uint64(m.From))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(m.To))
	buf = binary.AppendUvarint(buf, uint64(m.Term))
	switch b := m.Body.(type) {
	case *VoteRequest:
		kind = kindVoteRequest
		buf = appendPosition(append(buf, bit(b.Pre)|bit(b.Transfer)<<1), b.Last)
	case *VoteReply:
		kind = kindVoteReply
		buf = append(buf, bit(b.Pre)|bit(b.Granted)<<1)
	case *Append:
		kind = kindAppend
		buf = appendAppend(buf, b)
	case *AppendReply:
		kind = kindAppendReply
		buf = binary.AppendUvarint(append(buf, bit(b.Reject)), uint64(b.Match))
		buf = appendPosition(binary.AppendUvarint(buf, uint64(b.Previous)), b.Hint)
	case *Heartbeat:
		kind = kindHeartbeat
		buf = binary.AppendUvarint(binary.AppendUvarint(buf, uint64(b.Commit)), b.Round)
	case *RoundReply:
		kind = kindRoundReply
		buf = binary.AppendUvarint(buf, b.Round)
	case *Snapshot:
		kind = kindSnapshot
		buf = appendConf(appendPosition(buf, b.At), b.Conf)
		buf = binary.AppendUvarint(binary.AppendUvarint(buf, uint64(b.ConfIndex)), b.Handle)
	case *TimeoutNow:
		kind = kindTimeoutNow
	case *ReadRequest:
		kind = kindReadRequest
		buf = appendReadID(buf, b.ID)
	case *ReadReply:
		kind = kindReadReply
		buf = append(binary.AppendUvarint(appendReadID(buf, b.ID), uint64(b.Index)), bit(b.Refused))
	}
	buf[at] = kind
	return buf
}

func appendAppend(buf []byte, b *Append) []byte {
	buf = appendPosition(buf, b.Previous)
	buf = binary.AppendUvarint(buf, uint64(b.Commit))
	buf = binary.AppendUvarint(buf, b.Round)
	buf = binary.AppendUvarint(buf, uint64(len(b.Entries)))
	for i := range b.Entries {
		e := &b.Entries[i]
		buf = binary.AppendUvarint(append(buf, byte(e.Kind)), uint64(e.Term))
		buf = binary.LittleEndian.AppendUint32(buf, e.Sum)
		buf = append(binary.AppendUvarint(buf, uint64(len(e.Data))), e.Data...)
	}
	return buf
}

func appendPosition(buf []byte, p Position) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(buf, uint64(p.Index)), uint64(p.Term))
}

func appendReadID(buf []byte, r ReadID) []byte {
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.Member))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.Boot))
	return binary.AppendUvarint(buf, uint64(r.Seq))
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// DecodeMessage reads what AppendMessage wrote; nothing may follow it. The data
// of entries share data's memory. Errors: ErrBadMessage.
func DecodeMessage(data []byte) (Message, error) {
	r := reader{rest: data}
	version, kind := r.byte(), r.byte()
	m := Message{From: id.Member(r.uint64()), To: id.Member(r.uint64()), Term: id.Term(r.uvarint())}
	m.Body = r.body(kind)
	if version != messageVersion || m.Body == nil || r.bad || len(r.rest) != 0 {
		return Message{}, ErrBadMessage
	}
	return m, nil
}

func (r *reader) body(kind byte) Body {
	switch kind {
	case kindVoteRequest:
		f := r.flags(2)
		return &VoteRequest{Pre: f&1 != 0, Transfer: f&2 != 0, Last: r.position()}
	case kindVoteReply:
		f := r.flags(2)
		return &VoteReply{Pre: f&1 != 0, Granted: f&2 != 0}
	case kindAppend:
		return r.append()
	case kindAppendReply:
		return &AppendReply{Reject: r.flags(1) != 0, Match: id.Index(r.uvarint()),
			Previous: id.Index(r.uvarint()), Hint: r.position()}
	case kindHeartbeat:
		return &Heartbeat{Commit: id.Index(r.uvarint()), Round: r.uvarint()}
	case kindRoundReply:
		return &RoundReply{Round: r.uvarint()}
	case kindSnapshot:
		return &Snapshot{At: r.position(), Conf: r.conf(), ConfIndex: id.Index(r.uvarint()), Handle: r.uvarint()}
	case kindTimeoutNow:
		return &TimeoutNow{}
	case kindReadRequest:
		return &ReadRequest{ID: r.readID()}
	case kindReadReply:
		return &ReadReply{ID: r.readID(), Index: id.Index(r.uvarint()), Refused: r.flags(1) != 0}
	}
	return nil
}

// entryMin is the least that an entry takes: kind, term, sum, length.
const entryMin = 1 + 1 + 4 + 1

func (r *reader) append() *Append {
	b := &Append{Previous: r.position(), Commit: id.Index(r.uvarint()), Round: r.uvarint()}
	count := r.uvarint()
	if count > uint64(len(r.rest)/entryMin) {
		r.bad = true
		return b
	}
	if count == 0 {
		return b
	}
	b.Entries = make([]Entry, count)
	for i := range b.Entries {
		e := &b.Entries[i]
		e.Index = b.Previous.Index + id.Index(i) + 1
		e.Kind, e.Term, e.Sum, e.Data = Kind(r.byte()), id.Term(r.uvarint()), r.uint32(), r.bytes()
	}
	return b
}

// reader takes values from the front of rest; after the first that is not there
// it is bad and yields zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	part := r.rest[:n:n]
	r.rest = r.rest[n:]
	return part
}

func (r *reader) byte() byte {
	if part := r.take(1); part != nil {
		return part[0]
	}
	return 0
}

// flags reads a byte in which only the lowest bits may be set.
func (r *reader) flags(bits int) byte {
	b := r.byte()
	r.bad = r.bad || b>>bits != 0
	return b
}

func (r *reader) uint32() uint32 {
	if part := r.take(4); part != nil {
		return binary.LittleEndian.Uint32(part)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if part := r.take(8); part != nil {
		return binary.LittleEndian.Uint64(part)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	// The last byte of a longer encoding is never zero: every value has one form.
	if r.bad || n <= 0 || n > 1 && r.rest[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// bytes reads a length and so many bytes; none is nil, as in an Empty entry.
func (r *reader) bytes() []byte {
	if n := r.uvarint(); n > 0 {
		return r.take(n)
	}
	return nil
}

func (r *reader) position() Position {
	return Position{Index: id.Index(r.uvarint()), Term: id.Term(r.uvarint())}
}

func (r *reader) readID() ReadID {
	return ReadID{Member: id.Member(r.uint64()), Boot: id.Boot(r.uint64()), Seq: id.Seq(r.uvarint())}
}
