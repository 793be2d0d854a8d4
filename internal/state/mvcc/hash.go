package mvcc

import (
	"bytes"
	"encoding/binary"
	"hash"

	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Hash feeds h with the whole logical store: everything that can still be read,
// in one order, whatever has been removed of the rest. Errors: *DamageError.
func (s *Store) Hash(h hash.Hash) error {
	var head [24]byte
	binary.LittleEndian.PutUint64(head[0:], uint64(s.now.Revision))
	binary.LittleEndian.PutUint64(head[8:], uint64(s.now.Compacted))
	binary.LittleEndian.PutUint64(head[16:], uint64(s.now.Written))
	h.Write(head[:])
	if err := s.hashVersions(h); err != nil {
		return err
	}
	low := keys.AppendHistory(nil, s.group, max(s.now.Compacted, 0), 0)
	return walk(s.db, low, keys.AppendHistoryEnd(nil, s.group), func(key, row []byte) error {
		hashRow(h, key, row)
		return nil
	})
}

// hashVersions leaves out what compaction frees: at or below the compact revision
// every version but the newest, and that too if it is a tombstone below it.
func (s *Store) hashVersions(h hash.Hash) error {
	low, high := keys.AppendUserKey(nil, s.group, nil), keys.AppendDataEnd(nil, s.group)
	var last []byte
	settled := false // the newest version at or below the compact revision was met
	return walk(s.db, low, high, func(key, row []byte) error {
		_, user, main, sub, ok := keys.DecodeVersion(key)
		if !ok {
			return errRow
		}
		v, err := decodeVersion(row, main, sub)
		if err != nil {
			return err
		}
		if !bytes.Equal(user, last) {
			last, settled = append(last[:0], user...), false
		}
		if main <= s.now.Compacted {
			if settled || v.dead && main < s.now.Compacted {
				settled = true
				return nil
			}
			settled = true
		}
		hashRow(h, key, row)
		return nil
	})
}

func hashRow(h hash.Hash, key, row []byte) {
	var sizes [8]byte
	binary.LittleEndian.PutUint32(sizes[0:], uint32(len(key)))
	binary.LittleEndian.PutUint32(sizes[4:], uint32(len(row)))
	h.Write(sizes[:])
	h.Write(key)
	h.Write(row)
}

// walk shows every row of a span. It runs in the applier's turn: nothing is
// committed meanwhile.
func walk(db engine.Reader, low, high []byte, row func(key, value []byte) error) error {
	it, err := db.Iter(low, high)
	if err != nil {
		return &DamageError{keys.Text(low).String(), err}
	}
	defer it.Close()
	for ok := it.SeekGE(low); ok; ok = it.Next() {
		value, err := it.Value()
		if err == nil {
			err = row(it.Key(), value)
		}
		if err != nil {
			return &DamageError{keys.Text(it.Key()).String(), err}
		}
	}
	if err := it.Err(); err != nil {
		return &DamageError{keys.Text(low).String(), err}
	}
	return nil
}
