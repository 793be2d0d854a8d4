package state

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Receiving is a snapshot that is taken in chunk by chunk. It is the host's
// interface of that name; an alias, since neither package imports the other.
type Receiving = interface {
	// Add takes the next chunk that Frozen.Next made. Errors: ErrDamagedSnapshot, the
	// file system's; the snapshot can then only be closed.
	Add(chunk []byte) error
	// Close gives up what was not loaded and removes it.
	Close() error
}

// receiving writes the rows of a snapshot into tables as they come, so that
// neither memory nor the time that Load takes grows with the state. Every chunk is
// checked before a row of it is used; whether all of them came, Load asks.
type receiving struct {
	group         id.Group
	at            raft.Position
	markKey, mark []byte
	into          engine.Installation

	chunks        int
	last          []byte // the last row's key; nil before the first
	marked, ended bool
	failed        error
}

// Receive begins to take in a snapshot at a position, on disk beside the state.
// conf is the configuration in effect there, kept with the mark for Loaded. Any
// goroutine may call it, and the methods of what it returns, one at a time.
func (m *Machine) Receive(at raft.Position, conf raft.PlacedConf) Receiving {
	return &receiving{group: m.group, at: at, markKey: m.markKey, mark: appendMark(nil, at, &conf),
		into: m.db.Prepare(keys.AppendGroupStart(nil, m.group), keys.AppendGroupEnd(nil, m.group))}
}

// Add implements Receiving.
func (r *receiving) Add(encoded []byte) error {
	if r.failed == nil {
		r.failed = r.add(encoded)
	}
	return r.failed
}

func (r *receiving) add(encoded []byte) error {
	c, err := decodeChunk(encoded)
	if err != nil {
		return err
	}
	switch {
	case c.group != r.group || c.at != r.at:
		return damagedSnapshot("chunk of group %d at %v, wanted group %d at %v", c.group, c.at, r.group, r.at)
	case int(c.number) != r.chunks || r.ended:
		return damagedSnapshot("chunk %d in the place of %d", c.number, r.chunks)
	}
	for _, row := range c.rows {
		value, err := r.check(row)
		if err != nil {
			return err
		}
		if err := r.into.Add(row.key, value); err != nil {
			return fmt.Errorf("state: receiving a snapshot: %w", err)
		}
	}
	r.chunks++
	if r.ended = c.last; !r.ended {
		return nil
	}
	if err := r.into.Seal(); err != nil {
		return fmt.Errorf("state: receiving a snapshot: %w", err)
	}
	return nil
}

// check returns the value that a row is to have: the mark's says that a snapshot
// brought it.
func (r *receiving) check(row row) (value []byte, err error) {
	if g, ok := keys.GroupOf(row.key); !ok || g != r.group || keys.KindOf(row.key) == keys.Other {
		return nil, damagedSnapshot("row %x", row.key)
	}
	if r.last != nil && keys.Compare(r.last, row.key) >= 0 {
		return nil, damagedSnapshot("row %v out of order", keys.Text(row.key))
	}
	r.last = append(r.last[:0], row.key...)
	if !keys.Equal(row.key, r.markKey) {
		return row.value, nil
	}
	if mark, _, err := decodeMark(row.value); err != nil || mark != r.at {
		return nil, damagedSnapshot("its mark is not %v", r.at)
	}
	r.marked = true
	return r.mark, nil
}

// whole says what is missing of a snapshot.
func (r *receiving) whole() error {
	switch {
	case r.failed != nil:
		return r.failed
	case !r.ended:
		return damagedSnapshot("only %d chunks", r.chunks)
	case !r.marked && r.at != (raft.Position{}):
		return damagedSnapshot("no mark inside")
	}
	return nil
}

// Close implements Receiving.
func (r *receiving) Close() error {
	r.failed = damagedSnapshot("it was given up")
	return r.into.Close()
}

// Load replaces the state by a snapshot that Receive began, and its mark, in one
// atomic and durable step. One that is not whole is refused and leaves everything
// as it was. Readers of older views get mvcc.ErrReplaced. The caller closes from
// in any case. Errors: ErrDamagedSnapshot, engine.ErrFailed, *mvcc.DamageError.
func (m *Machine) Load(from Receiving) error {
	if m.failed != nil {
		return m.failed
	}
	r, ok := from.(*receiving)
	invariant.Check(ok && r.group == m.group, "a snapshot that another machine received")
	if err := r.whole(); err != nil {
		return err
	}
	m.loads++
	m.close()
	err := r.into.Commit()
	if err == nil {
		err = m.store.Reload()
	}
	if err == nil {
		err = damagedLeases(m.leases.Reload())
	}
	alarms, rights := m.alarms, m.auth
	if err == nil {
		err = m.reload()
	}
	if defect.On(defect.AlarmsOutliveLoad) {
		m.alarms = alarms
	}
	if defect.On(defect.RightsOutliveLoad) {
		m.auth = rights
	}
	if err != nil {
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
