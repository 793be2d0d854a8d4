package state

import (
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
)

const (
	// removalRest is the pause after each slice of removal, so that writers find
	// the applier free and the disk's share of deletions is bounded. Once the store
	// has fallen behind with its own work the pause is a longer one: removal would
	// make writers wait.
	removalRest       = 16 * time.Millisecond
	removalRestBehind = 50 * time.Millisecond
	// longestRest is the longest that may be asked for: nothing ends a pause early.
	longestRest = time.Second
	// removalRestHurried is the pause while somebody waits for the end.
	removalRestHurried = time.Millisecond
	// backlogLook is how many slices pass between two looks at the store.
	backlogLook = 10
)

// PaceRemoval has a step of the removal of what compactions freed look at no more than
// so many changes (below 1: mvcc.Store's own number), and gives the pause between two
// steps, up to 1 s (0: the usual). Whoever hurries removal waits for one such pause at
// most. It is the replica's own affair; call it before any turn.
func (m *Machine) PaceRemoval(changes int, rest time.Duration) {
	m.store.PaceRemoval(changes)
	m.removalRest = min(rest, longestRest)
	if rest == 0 {
		m.removalRest = removalRest
	}
}

// Turn lets the store keep its house, removes a slice of compacted history, and
// counts a slice of the keys that are not counted yet.
func (m *Machine) Turn(now env.Instant) (worked bool, wake env.Instant) {
	worked, wake = m.db.Turn(now)
	if m.failed != nil {
		return worked, wake
	}
	if now < m.restUntil {
		return worked, min(wake, m.restUntil)
	}
	more, err := m.slice(now)
	if err != nil {
		m.failed = err
		return worked || more, wake
	}
	if more {
		m.restUntil = now.Add(m.rest())
		wake = min(wake, m.restUntil)
	}
	return worked, wake
}

// slice does a slice of everything that is done beside applying.
func (m *Machine) slice(now env.Instant) (worked bool, err error) {
	freeing := m.store.Freeing()
	freed, err := m.free()
	if err != nil {
		return true, err
	}
	if freeing {
		m.counts.measureRemoval(now, m.store.Freeing())
	}
	tallied, err := m.tally()
	return freed || tallied, err
}

// rest is the pause after a slice of removal, or of counting.
func (m *Machine) rest() time.Duration {
	if m.slices++; m.slices%backlogLook == 0 && m.db.Metrics().StallBytes > 0 {
		return max(m.removalRest, removalRestBehind)
	}
	if m.hurry.Load() > 0 {
		return removalRestHurried
	}
	if m.store.Freeing() {
		return m.removalRest
	}
	return removalRest
}

// HurryRemoval has removal go on faster than is good for writers, until enough is
// called: somebody waits for its end. Any goroutine may call it.
func (m *Machine) HurryRemoval() (enough func()) {
	m.hurry.Add(1)
	return func() { m.hurry.Add(-1) }
}

// free does one slice of removal.
func (m *Machine) free() (worked bool, err error) {
	if m.owed {
		return true, m.payMark()
	}
	if defect.On(defect.CompactLate) && m.shown < m.store.Removing() {
		m.shown = m.store.State().Compacted
		m.publish()
		return true, nil
	}
	if defect.On(defect.EventBeforeView) && m.ahead.Load() != nil {
		m.publish()
		return true, nil
	}
	if !m.store.Freeing() {
		return false, nil
	}
	if err := m.store.Remove(m.batch, m.hurry.Load() > 0); err != nil {
		return true, err
	}
	if err := m.db.Commit(m.batch); err != nil {
		return true, err
	}
	m.publish()
	return true, nil
}

// tally does one slice of counting keys.
func (m *Machine) tally() (worked bool, err error) {
	if worked, err = m.store.Tally(); worked && err == nil {
		m.publish()
	}
	return worked, err
}
