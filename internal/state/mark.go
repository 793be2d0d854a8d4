package state

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
)

// The row of the applied mark: format, index, term, 1 if a snapshot brought it;
// then follow the index of the configuration that came with it, and that itself.
const (
	rowMark    = "mark"
	markFormat = 1
	markBytes  = 18
)

func appendMark(dst []byte, at raft.Position, loaded *raft.PlacedConf) []byte {
	dst = append(dst, markFormat)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(at.Index))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(at.Term))
	if loaded == nil {
		return append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint64(append(dst, 1), uint64(loaded.Index))
	return append(dst, raft.EncodeConf(loaded.Conf)...)
}

func decodeMark(row []byte) (at raft.Position, loaded *raft.PlacedConf, err error) {
	bad := func() (raft.Position, *raft.PlacedConf, error) {
		return raft.Position{}, nil, &mvcc.DamageError{Row: rowMark, Err: fmt.Errorf("not a mark: %x", row)}
	}
	if len(row) < markBytes || row[0] != markFormat || row[17] > 1 || row[17] == 0 && len(row) > markBytes {
		return bad()
	}
	at.Index = id.Index(binary.LittleEndian.Uint64(row[1:]))
	at.Term = id.Term(binary.LittleEndian.Uint64(row[9:]))
	if row[17] == 0 {
		return at, nil, nil
	}
	loaded = &raft.PlacedConf{}
	switch rest := row[markBytes:]; {
	case len(rest) == 0: // the first rows of this format had no configuration
	case len(rest) < 8:
		return bad()
	default:
		loaded.Index = id.Index(binary.LittleEndian.Uint64(rest))
		if loaded.Conf, err = raft.DecodeConf(rest[8:]); err != nil {
			return bad()
		}
	}
	return at, loaded, nil
}

func readMark(get func(key, buf []byte) ([]byte, error), key []byte) (at raft.Position, loaded *raft.PlacedConf, err error) {
	row, err := get(key, nil)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return raft.Position{}, nil, nil
	case err != nil:
		return raft.Position{}, nil, &mvcc.DamageError{Row: rowMark, Err: err}
	}
	return decodeMark(row)
}

// Mark is the position up to which the state has applied.
func (m *Machine) Mark() raft.Position { return m.mark }

// Loaded says whether a snapshot brought the mark and nothing was applied since,
// and which configuration came with it. Both are stored with the mark: after a
// crash between the loading of a snapshot and the reset of the log (rule 21) they
// tell a log that has not heard of the snapshot from one that has lost entries, and
// what that log does not know. A mark written by the first version has an empty
// configuration.
func (m *Machine) Loaded() (conf raft.PlacedConf, ok bool) {
	if m.loaded == nil {
		return raft.PlacedConf{}, false
	}
	return *m.loaded, true
}

// Durable is the mark in the part of the store that survives a power loss.
// Errors: *mvcc.DamageError.
func (m *Machine) Durable() (raft.Position, error) {
	at, _, err := readMark(m.db.Durable, m.markKey)
	return at, err
}

func (m *Machine) setMark() {
	m.markRow = appendMark(m.markRow[:0], m.mark, m.loaded)
	m.batch.Set(m.markKey, m.markRow)
}

// payMark writes the mark that the defect MarkOutsideBatch left out.
func (m *Machine) payMark() error {
	if !m.owed {
		return nil
	}
	m.owed = false
	m.setMark()
	return m.db.Commit(m.batch)
}
