package raft

import (
	"encoding/binary"
	"errors"

	"github.com/kvorum/kvorum/internal/id"
)

// The encoding of a Conf, version 1:
//
//	1 byte   version, 1
//	uvarint  number of voters, then 8 bytes each, little-endian, ascending
//	uvarint  number of learners, then the same
//	uvarint  number of outgoing voters, then the same; 0 unless it is joint
//
// The data of a Change entry are a Conf and, behind it, to the end of the data, the
// context. The encoding of a Conf says where it ends, so a Conf alone is a change
// with an empty context: that is what the first entries of this kind were.
//
// A list that is not in order, or a learner that votes, is refused: a program could
// not obey it.
const confVersion = 1

// ErrBadConf is what DecodeConf and DecodeChange refuse with.
var ErrBadConf = errors.New("raft: malformed or unknown configuration")

// EncodeConf returns the encoding of a configuration.
func EncodeConf(c Conf) []byte { return appendConf(nil, c) }

// DecodeConf reads what EncodeConf wrote. Errors: ErrBadConf.
func DecodeConf(data []byte) (Conf, error) {
	c, context, err := DecodeChange(data)
	if err == nil && len(context) > 0 {
		return Conf{}, ErrBadConf
	}
	return c, err
}

// EncodeChange returns the data of a Change entry: a configuration and what
// whoever applies the entry is to know of it.
func EncodeChange(c Conf, context []byte) []byte { return append(appendConf(nil, c), context...) }

// DecodeChange reads what EncodeChange, or EncodeConf, wrote; an empty context is
// nil, another one shares data's memory. Errors: ErrBadConf.
func DecodeChange(data []byte) (c Conf, context []byte, err error) {
	r := reader{rest: data}
	c = r.conf()
	if r.bad {
		return Conf{}, nil, ErrBadConf
	}
	if len(r.rest) > 0 {
		context = r.rest
	}
	return c, context, nil
}

func appendConf(buf []byte, c Conf) []byte {
	buf = append(buf, confVersion)
	for _, list := range [...][]id.Member{c.Voters, c.Learners, c.Outgoing} {
		buf = binary.AppendUvarint(buf, uint64(len(list)))
		for _, m := range list {
			buf = binary.LittleEndian.AppendUint64(buf, uint64(m))
		}
	}
	return buf
}

func (r *reader) conf() Conf {
	r.bad = r.byte() != confVersion || r.bad
	c := Conf{Voters: r.members(), Learners: r.members(), Outgoing: r.members()}
	r.bad = r.bad || !c.valid()
	return c
}

func (r *reader) members() []id.Member {
	count := r.uvarint()
	if count > uint64(len(r.rest)/8) {
		r.bad = true
	}
	if r.bad || count == 0 {
		return nil
	}
	list := make([]id.Member, count)
	for i := range list {
		list[i] = id.Member(r.uint64())
	}
	return list
}
