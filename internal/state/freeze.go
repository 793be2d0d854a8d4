package state

import (
	"fmt"
	"path"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// maxChunkBytes is the size of a chunk when Next is asked for no smaller one.
const maxChunkBytes = 8 << 20

// Frozen is a state saved at its mark. It is the host's interface of that name;
// an alias, since neither package imports the other.
type Frozen = interface {
	At() raft.Position
	Next(maxBytes int) (chunk []byte, ok bool, err error)
	Close() error
}

// frozen reads the state at one position in chunks from a checkpoint. Next may be
// called elsewhere than in the applier's turn, by one goroutine at a time.
type frozen struct {
	group  id.Group
	at     raft.Position
	from   engine.Checkpoint
	next   []byte // the key to go on with
	number uint32
	ended  bool
	rows   []byte
}

// Freeze flushes the store and takes a frozen copy of the state. Errors:
// engine.ErrFailed, *mvcc.DamageError.
func (m *Machine) Freeze() (Frozen, error) {
	if m.failed != nil {
		return nil, m.failed
	}
	m.saves++
	from, err := m.db.Checkpoint(path.Join(m.dir, fmt.Sprintf("group-%d-save-%d", m.group, m.saves)))
	if err != nil {
		return nil, err
	}
	// The mark inside the checkpoint is the position of the snapshot (rule 21).
	at, _, err := readMark(from.Get, m.markKey)
	if err != nil {
		from.Close()
		return nil, err
	}
	return &frozen{group: m.group, at: at, from: from, next: keys.AppendGroupStart(nil, m.group)}, nil
}

// At is the position that the state is frozen at.
func (f *frozen) At() raft.Position { return f.at }

// Close gives the checkpoint back.
func (f *frozen) Close() error { return f.from.Close() }

// Next returns the next chunk, of about maxBytes and at least one row; ok is
// false after the last one. Errors: *engine.CorruptionError.
func (f *frozen) Next(maxBytes int) (encoded []byte, ok bool, err error) {
	if f.ended {
		return nil, false, nil
	}
	if maxBytes <= 0 || maxBytes > maxChunkBytes {
		maxBytes = maxChunkBytes
	}
	it, err := f.from.Iter(keys.AppendGroupStart(nil, f.group), keys.AppendGroupEnd(nil, f.group))
	if err != nil {
		return nil, false, err
	}
	defer it.Close()
	var first, last []byte
	rows := 0
	f.rows = f.rows[:0]
	more := it.SeekGE(f.next)
	for ; more && (rows == 0 || len(f.rows) < maxBytes); more = it.Next() {
		value, err := it.Value()
		if err != nil {
			return nil, false, err
		}
		if rows == 0 {
			first = append([]byte(nil), it.Key()...)
		}
		last = append(last[:0], it.Key()...)
		f.rows = appendBytes(appendBytes(f.rows, it.Key()), value)
		rows++
	}
	if err := it.Err(); err != nil {
		return nil, false, err
	}
	if more {
		f.next = append(f.next[:0], it.Key()...)
	} else {
		f.ended = true
	}
	c := chunk{group: f.group, at: f.at, number: f.number, last: f.ended}
	f.number++
	return c.encode(nil, first, last, rows, f.rows), true, nil
}
