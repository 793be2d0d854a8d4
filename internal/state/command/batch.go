package command

import "encoding/binary"

// A batch entry is commands one after the other, each behind its length.

// AppendToBatch appends an encoded command to a batch entry.
func AppendToBatch(batch, cmd []byte) []byte { return appendBytes(batch, cmd) }

// BatchSize is how many bytes a command of n bytes takes in a batch entry.
func BatchSize(n int) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], uint64(n)) + n
}

// Batch walks the commands of a batch entry:
//
//	for b := command.ReadBatch(entry.Data); b.Next(); {
//		use(b.Command())
//	}
//
// and Err must be asked afterwards.
type Batch struct {
	rest, cmd []byte
	err       error
}

// ReadBatch starts a walk over a batch entry.
func ReadBatch(data []byte) *Batch { return &Batch{rest: data} }

// Next moves to the next command; it is false at the end and at damage.
func (b *Batch) Next() bool {
	if len(b.rest) == 0 || b.err != nil {
		return false
	}
	n, rest, ok := uvarint(b.rest)
	switch {
	case !ok:
		b.err = malformed("batch: bad length")
	case n == 0:
		b.err = malformed("batch: empty command")
	case n > uint64(len(rest)):
		b.err = malformed("batch: cut within a command")
	default:
		b.cmd, b.rest = rest[:n:n], rest[n:]
		return true
	}
	b.cmd, b.rest = nil, nil
	return false
}

// Command is the encoded command that the walk stands at; it aliases the entry.
func (b *Batch) Command() []byte { return b.cmd }

// Err is what ended the walk early: ErrMalformed, or nil.
func (b *Batch) Err() error { return b.err }
