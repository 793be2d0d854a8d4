package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// tenure is one life of a lease, and what a clock that is right says of it.
type tenure struct {
	command.LeaseName
	ttl int64
	// granted is when the grant was applied first, over when the end was; 0 is not yet.
	granted, over env.Instant
	// renewed is when the latest renewal began that anybody was told of, tried when
	// the latest one ended that may have been one.
	renewed, tried env.Instant
	notes          []note
}

// note is a checkpoint in the log.
type note struct {
	term      id.Term
	remaining int64
}

// tenures are all lives of leases. No lease ends early: from the moment at which a
// renewal that was answered began, or the grant was applied, its TTL passes on every
// clock of the world, of which the fastest gains driftPPM. None ends late: lateBound
// after its TTL has passed on the slowest clock since all of that and since a
// leader counts (then the grace is on top); only what was checkpointed before that, if it
// was and nobody has renewed since. Lateness is judged in the calm.
type tenures struct {
	now   func() env.Instant
	mark  func(string)
	drift int64
	grace time.Duration
	lives map[id.Lease]*tenure // the latest of each
	// elected is when a leader was elected last, in which term, or when it first looked
	// at its leases with an entry of that term applied; settled when the calm had come,
	// 0 before.
	elected     env.Instant
	term, ruled id.Term
	settled     env.Instant
	// latest is how late a lease has ended at most.
	latest time.Duration
}

// lateBound is how late a lease may end: a leader's first entry, a look, a tick of its
// wheel, and an entry that ends it, each on slow disks.
const lateBound = time.Second

// lookBound is how long a leader may take until it looks at a grant that it has applied,
// and counts its time from then: it looks twenty times a second.
const lookBound = 100 * time.Millisecond

func newTenures() tenures {
	return tenures{lives: map[id.Lease]*tenure{}}
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// least is how much true time passes at least while a clock counts d, most how much
// at most.
func (l *tenures) least(d time.Duration) time.Duration {
	return time.Duration(int64(d)/(1e6+l.drift)*1e6) - 2*time.Microsecond
}

func (l *tenures) most(d time.Duration) time.Duration {
	return time.Duration(int64(d)/(1e6-l.drift)*1e6) + time.Millisecond
}

// earliest is when a life may end.
func (l *tenures) earliest(t *tenure) env.Instant {
	return max(t.granted, t.renewed).Add(l.least(seconds(t.ttl)))
}

// due is when a life must have ended, but for lateBound.
func (l *tenures) due(t *tenure) env.Instant {
	left := t.ttl
	for _, n := range t.notes {
		if n.term >= l.term {
			break
		}
		if left = n.remaining; left == 0 {
			left = t.ttl
		}
	}
	return max(
		max(t.granted, t.tried).Add(l.most(seconds(t.ttl))),
		l.elected.Add(l.most(l.grace+seconds(left))),
		l.settled,
	)
}

// leads takes note that a leader was elected.
func (l *tenures) leads(term id.Term) {
	if term > l.term {
		l.term, l.elected = term, l.now()
	}
}

// rules takes note that a leader looks at its leases with an entry of its term
// applied: it counts from the first time on.
func (l *tenures) rules(term id.Term) {
	if term > l.ruled {
		l.ruled, l.elected = term, l.now()
	}
}

// living is a life that is not over, nil if there is none.
func (l *tenures) living() *tenure {
	for _, lease := range slices.Sorted(maps.Keys(l.lives)) {
		if t := l.lives[lease]; t.over == 0 {
			return t
		}
	}
	return nil
}

// obey takes note of a command about leases that the oracle has obeyed.
func (l *tenures) obey(oracle *model.Store, term id.Term, body command.Body, refused error) error {
	if refused != nil {
		return nil
	}
	switch b := body.(type) {
	case *command.LeaseGrant:
		l.lives[b.ID] = &tenure{
			LeaseName: command.LeaseName{ID: b.ID, Birth: oracle.Birth(b.ID)}, ttl: b.TTL, granted: l.now(),
		}
	case *command.LeaseRevoke:
		l.lives[b.ID].over = l.now()
	case *command.LeaseExpire:
		for _, name := range b.Leases {
			if t := l.lives[name.ID]; t != nil && t.over == 0 && t.LeaseName == name {
				if err := l.expired(t); err != nil {
					return err
				}
			}
		}
	case *command.LeaseCheckpoint:
		for _, n := range b.Leases {
			if t := l.lives[n.ID]; t != nil && t.over == 0 && t.LeaseName == n.LeaseName {
				t.notes = append(t.notes, note{term, n.Remaining})
				l.mark(markNoted)
			}
		}
	}
	return nil
}

// expired judges the end of a life whose time was over, as a leader said.
func (l *tenures) expired(t *tenure) error {
	t.over = l.now()
	l.mark(markEnded)
	if at := l.earliest(t); t.over < at {
		return fmt.Errorf("lease %d of %d s ends %v early: granted at %v, renewed at %v, now it is %v",
			t.ID, t.ttl, at.Sub(t.over), t.granted, t.renewed, t.over)
	}
	if l.settled == 0 {
		return nil
	}
	l.latest = max(l.latest, t.over.Sub(l.due(t)))
	return l.late(t, t.over)
}

// late judges a life that has not ended before an instant of the calm.
func (l *tenures) late(t *tenure, now env.Instant) error {
	if due := l.due(t); now > due.Add(lateBound) {
		return fmt.Errorf("lease %d of %d s is late: it was to end at %v and lives at %v; granted at %v, tried to renew at %v, last election at %v, notes %v",
			t.ID, t.ttl, due, now, t.granted, t.tried, l.elected, t.notes)
	}
	return nil
}

// told judges a renewal, or a question about the time that is left, that began at an
// instant and was answered now: found says that there was such a lease.
func (l *tenures) told(lease id.Lease, began env.Instant, found bool) error {
	t, now := l.lives[lease], l.now()
	switch {
	case found && (t == nil || t.over != 0 && t.over < began):
		return fmt.Errorf("lease %d is spoken of as alive, and was gone before that was asked for", lease)
	case !found && t != nil && t.over == 0 && t.granted < began:
		return fmt.Errorf("lease %d is spoken of as gone at %v, and lives", lease, now)
	}
	return nil
}

// renewed takes note of a renewal that was answered. One that may be of the life
// before is none of this one's.
func (l *tenures) renewed(lease id.Lease, began env.Instant) {
	if t := l.lives[lease]; t.granted < began {
		t.renewed = max(t.renewed, began)
	}
}

// tried takes note that a renewal may have been made up to an instant.
func (l *tenures) tried(lease id.Lease, upto env.Instant) {
	if t := l.lives[lease]; t != nil {
		t.tried = max(t.tried, upto)
	}
}

// paused takes note that a member is paused, with renewals that may wait for it, and
// grants that it may not have looked at yet.
func (l *tenures) paused(until env.Instant) {
	for _, t := range l.lives {
		if max(t.tried, t.granted.Add(lookBound)) >= l.now() {
			t.tried = max(t.tried, until)
		}
	}
}

// fence judges what holders of the lock write: each names the revision at which it
// came into the queue, and nobody who came later has written before, nor is anybody
// who came earlier still in the queue.
type fence struct{ highest id.Revision }

// The keys of the lock: those of its queue, and the one that its holders write.
const (
	queuePrefix, queueEnd = "m/", "m0"
	fencedKey             = "n"
)

func (f *fence) judge(list []event, live map[string]command.KeyValue) error {
	for i := range list {
		e := &list[i]
		if string(e.Key) != fencedKey || e.deleted {
			continue
		}
		var came id.Revision
		if _, err := fmt.Sscan(string(e.Value), &came); err != nil {
			return fmt.Errorf("%s is not a fencing revision: %w", kvText(&e.KeyValue), err)
		}
		if came < f.highest {
			return fmt.Errorf("the holder of revision %d writes after that of %d", came, f.highest)
		}
		f.highest = came
		for key, kv := range live {
			if len(key) > len(queuePrefix) && key[:len(queuePrefix)] == queuePrefix && kv.CreateRevision < came {
				return fmt.Errorf("the holder of revision %d writes, though %s is before it", came, kvText(&kv))
			}
		}
	}
	return nil
}
