package sim

import (
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// A client gives up a renewal while the member that it asked is paused: the member makes
// it when it goes on. (World 2026113440 of one member took a right end for a late one.)
// Nothing waits any more for a pause that begins later.
func TestARenewalMayWaitForAMemberThatIsPaused(t *testing.T) {
	at := func(d time.Duration) env.Instant { return env.Instant(0).Add(d) }
	const lease = id.Lease(7)
	now := at(100 * time.Millisecond)
	l := newTenures()
	l.now, l.settled = func() env.Instant { return now }, now
	life := &tenure{LeaseName: command.LeaseName{ID: lease}, ttl: 1, granted: now}
	l.lives[lease] = life
	l.tried(lease, at(400*time.Millisecond))
	l.paused(at(2600 * time.Millisecond))
	due := at(2600 * time.Millisecond).Add(l.most(time.Second) + lateBound)
	if err := l.late(life, due); err != nil {
		t.Error(err)
	}
	if l.late(life, due+1) == nil {
		t.Error("a lease may be late for ever")
	}
	now = at(2600*time.Millisecond) + 1
	l.paused(at(9 * time.Second))
	if l.late(life, due+1) == nil {
		t.Error("it waits for a pause that began when no renewal was left")
	}
}

// A leader is paused after it has applied a grant and before it has looked at its leases:
// it counts from when it goes on. (World 6000120 of one member took a right end for a late
// one.) What it had looked at, it counts through a pause.
func TestAPausedLeaderMayNotHaveSeenAGrant(t *testing.T) {
	at := func(d time.Duration) env.Instant { return env.Instant(0).Add(d) }
	for _, c := range []struct {
		name   string
		pause  time.Duration // after the grant
		counts time.Duration
	}{
		{"before the look", 20 * time.Millisecond, 4700 * time.Millisecond},
		{"after the look", lookBound + 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := at(time.Second)
			l := newTenures()
			l.now, l.settled = func() env.Instant { return now }, now
			life := &tenure{LeaseName: command.LeaseName{ID: 7}, ttl: 1, granted: now}
			l.lives[7] = life
			now = life.granted.Add(c.pause)
			l.paused(life.granted.Add(4700 * time.Millisecond))
			due := life.granted.Add(c.counts + l.most(time.Second) + lateBound)
			if err := l.late(life, due); err != nil {
				t.Error(err)
			}
			if l.late(life, due+1) == nil {
				t.Error("a lease may be late for ever")
			}
		})
	}
}
