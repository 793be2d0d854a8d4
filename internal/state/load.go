package state

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Load replaces the state by a received snapshot and its mark, in one atomic and
// durable step; next yields the chunks that Frozen.Next made, in order. conf is
// the configuration in effect at the mark, kept with it for Loaded. A
// snapshot that is not whole is refused and leaves everything as it was. Readers
// of older views get mvcc.ErrReplaced. Errors: ErrDamagedSnapshot,
// engine.ErrFailed, *mvcc.DamageError.
//
// All chunks are held in memory: the engine cannot give up an installation that
// it has begun, so every chunk must be known to be good before the first row.
func (m *Machine) Load(at raft.Position, conf raft.PlacedConf, next func() (chunk []byte, ok bool)) error {
	if m.failed != nil {
		return m.failed
	}
	chunks, err := gather(m.group, at, m.markKey, next)
	if err != nil {
		return err
	}
	m.loads++
	m.close()
	low, high := keys.AppendGroupStart(nil, m.group), keys.AppendGroupEnd(nil, m.group)
	if err := m.db.Install(low, high, rowsOf(chunks, m.markKey, appendMark(nil, at, &conf))); err != nil {
		m.failed = err
		return err
	}
	if err := m.store.Reload(); err != nil {
		m.failed = err
		return err
	}
	if err := m.reload(); err != nil {
		m.failed = err
		return err
	}
	m.publish()
	return nil
}

// close publishes that no view can be read until the next one is published: what
// an iterator taken from now on sees may be of either state.
func (m *Machine) close() {
	v := *m.view.Load()
	v.horizon.Loads = m.loads
	m.view.Store(&v)
}

// gather reads all chunks of a snapshot and checks that they are one: complete,
// in order, of this group and position, and with that mark inside.
func gather(group id.Group, at raft.Position, markKey []byte, next func() ([]byte, bool)) ([]*chunk, error) {
	var chunks []*chunk
	var before []byte
	marked := false
	for {
		encoded, ok := next()
		if !ok {
			break
		}
		c, err := decodeChunk(encoded)
		if err != nil {
			return nil, err
		}
		switch n := len(chunks); {
		case c.group != group || c.at != at:
			return nil, damagedSnapshot("chunk of group %d at %v, wanted group %d at %v", c.group, c.at, group, at)
		case int(c.number) != n || n > 0 && chunks[n-1].last:
			return nil, damagedSnapshot("chunk %d in the place of %d", c.number, n)
		}
		for _, r := range c.rows {
			if g, ok := keys.GroupOf(r.key); !ok || g != group || keys.KindOf(r.key) == keys.Other {
				return nil, damagedSnapshot("row %x", r.key)
			}
			if before != nil && keys.Compare(before, r.key) >= 0 {
				return nil, damagedSnapshot("row %v out of order", keys.Text(r.key))
			}
			before = r.key
			if keys.Equal(r.key, markKey) {
				mark, _, err := decodeMark(r.value)
				if err != nil || mark != at {
					return nil, damagedSnapshot("its mark is not %v", at)
				}
				marked = true
			}
		}
		chunks = append(chunks, c)
	}
	if len(chunks) == 0 || !chunks[len(chunks)-1].last {
		return nil, damagedSnapshot("only %d chunks", len(chunks))
	}
	if !marked && at != (raft.Position{}) {
		return nil, damagedSnapshot("no mark inside")
	}
	return chunks, nil
}

// rowsOf yields the rows of checked chunks, with this mark instead of theirs.
func rowsOf(chunks []*chunk, markKey, mark []byte) func() (key, value []byte, ok bool) {
	at := 0
	return func() (key, value []byte, ok bool) {
		for len(chunks) > 0 && at == len(chunks[0].rows) {
			chunks, at = chunks[1:], 0
		}
		if len(chunks) == 0 {
			return nil, nil, false
		}
		r := chunks[0].rows[at]
		at++
		if keys.Equal(r.key, markKey) {
			return r.key, mark, true
		}
		return r.key, r.value, true
	}
}
