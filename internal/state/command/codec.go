package command

import (
	"encoding/binary"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

// FormatVersion is the first byte of every command that this program writes.
const FormatVersion = 1

// The fixed part of a command: every field stands at the same place, so that the
// host stamps origin and term, and reads them, without looking at the rest.
// Numbers are little-endian. The rest is user, idempotency key and body.
const (
	offFormat = 0
	offKind   = 1
	offClass  = 3
	offMember = 4
	offBoot   = 12
	offSeq    = 20
	offTerm   = 28
	offWall   = 36
	offAuth   = 44
	offNeeds  = 52
	fixedSize = 54
)

// Body is what a command asks: *PutRequest, *DeleteRangeRequest, *TxnRequest,
// *CompactRequest, or one of those of leases and members.
type Body interface {
	// Kind is the kind of command that carries this body.
	Kind() Kind
	// Cost is what the command adds, at most, to the byte count of rule 17.
	Cost() int64
	appendTo(dst []byte) []byte
	decode(r *reader)
}

// Command is a decoded command. Byte slices in the body alias the encoding.
type Command struct {
	Header
	Body Body

	// The most frequent body and the reader are here so that decoding a put into
	// a Command that is used again allocates nothing.
	put PutRequest
	r   reader
}

// Encode appends the encoding of a command to dst. The kind is the body's, a
// class of 0 means the kind's usual one. The body must have passed validation:
// an operation of a txn that is not set is a broken invariant.
func Encode(dst []byte, h Header, body Body) []byte {
	kind := body.Kind()
	if h.Class == 0 {
		h.Class = kind.Class()
	}
	var fixed [fixedSize]byte
	fixed[offFormat] = FormatVersion
	binary.LittleEndian.PutUint16(fixed[offKind:], uint16(kind))
	fixed[offClass] = byte(h.Class)
	putOrigin(fixed[:], h.Origin)
	binary.LittleEndian.PutUint64(fixed[offTerm:], uint64(h.Term))
	binary.LittleEndian.PutUint64(fixed[offWall:], uint64(h.Wall))
	binary.LittleEndian.PutUint64(fixed[offAuth:], h.AuthRevision)
	fixed[offNeeds], fixed[offNeeds+1] = h.Needs.Major, h.Needs.Minor
	dst = append(dst, fixed[:]...)
	dst = appendString(dst, h.User)
	dst = appendString(dst, h.IdempotencyKey)
	return body.appendTo(dst)
}

func putOrigin(cmd []byte, o Origin) {
	binary.LittleEndian.PutUint64(cmd[offMember:], uint64(o.Member))
	binary.LittleEndian.PutUint64(cmd[offBoot:], uint64(o.Boot))
	binary.LittleEndian.PutUint64(cmd[offSeq:], uint64(o.Seq))
}

// Stamp writes origin and term into an encoded command, in place.
func Stamp(cmd []byte, o Origin, term id.Term) {
	if len(cmd) < fixedSize {
		invariant.Fail("stamped a command of %d bytes", len(cmd))
	}
	putOrigin(cmd, o)
	StampTerm(cmd, term)
}

// StampTerm writes the term into an encoded command, in place: for a proposal
// that is made again under a new leader.
func StampTerm(cmd []byte, term id.Term) {
	if len(cmd) < fixedSize {
		invariant.Fail("stamped a command of %d bytes", len(cmd))
	}
	binary.LittleEndian.PutUint64(cmd[offTerm:], uint64(term))
}

// Peek reads the fixed part of a command: every field of the header but User and
// IdempotencyKey. Errors: ErrMalformed, *UnknownError.
func Peek(cmd []byte) (Header, error) {
	if len(cmd) == 0 {
		return Header{}, malformed("empty command")
	}
	if cmd[offFormat] != FormatVersion {
		return Header{}, &UnknownError{"format version", uint64(cmd[offFormat])}
	}
	if len(cmd) < fixedSize {
		return Header{}, malformed("cut within the header")
	}
	h := Header{
		Kind:         Kind(binary.LittleEndian.Uint16(cmd[offKind:])),
		Class:        Class(cmd[offClass]),
		Origin:       originOf(cmd),
		Term:         id.Term(binary.LittleEndian.Uint64(cmd[offTerm:])),
		Wall:         int64(binary.LittleEndian.Uint64(cmd[offWall:])),
		AuthRevision: binary.LittleEndian.Uint64(cmd[offAuth:]),
		Needs:        Version{cmd[offNeeds], cmd[offNeeds+1]},
	}
	if _, known := h.Kind.info(); !known {
		return Header{}, &UnknownError{"kind", uint64(h.Kind)}
	}
	if h.Class != Client && h.Class != Duty {
		return Header{}, &UnknownError{"class", uint64(h.Class)}
	}
	return h, nil
}

func originOf(cmd []byte) Origin {
	return Origin{
		Member: id.Member(binary.LittleEndian.Uint64(cmd[offMember:])),
		Boot:   id.Boot(binary.LittleEndian.Uint64(cmd[offBoot:])),
		Seq:    id.Seq(binary.LittleEndian.Uint64(cmd[offSeq:])),
	}
}

// Decode reads a whole command; byte slices of its body alias cmd. Errors:
// ErrMalformed, *UnknownError.
func Decode(cmd []byte) (Command, error) {
	c := new(Command)
	err := c.Decode(cmd)
	return *c, err
}

// Decode reads a whole command into c, whose former body must no longer be in
// use. Errors: ErrMalformed, *UnknownError.
func (c *Command) Decode(cmd []byte) error {
	h, err := Peek(cmd)
	if err != nil {
		return err
	}
	c.r = reader{b: cmd[fixedSize:]}
	r := &c.r
	if user := r.bytes(); string(user) == c.User {
		h.User = c.User // most often it is the same one again, or nobody
	} else {
		h.User = string(user)
	}
	h.IdempotencyKey = string(r.bytes())
	c.Header = h
	if h.Kind == KindPut {
		c.put = PutRequest{}
		c.Body = &c.put
	} else {
		info, _ := h.Kind.info()
		c.Body = info.body()
	}
	if r.err == "" {
		c.Body.decode(r)
	}
	if r.err == "" && len(r.b) != 0 {
		r.fail("bytes after the end")
	}
	if r.err != "" {
		c.Body = nil
		return malformed(h.Kind.String() + ": " + r.err)
	}
	return nil
}
