package server

import (
	"errors"
	"sync"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Automatic compaction (spec/server-ops.md 5): every member notes how the revision
// grows, the leader proposes compactions: duties (rule 14).

// Compaction says how much history is kept without anybody asking; at most one of the
// two is set, and neither is all of it.
type Compaction struct {
	// Period keeps the history of about so long.
	Period time.Duration
	// Revisions keeps so many.
	Revisions int64
}

// On says whether there is anything to do.
func (c Compaction) On() bool { return c.Period > 0 || c.Revisions > 0 }

// CompactionNews says what becomes of one automatic compaction.
type CompactionNews struct {
	Compaction
	To id.Revision
	// Begun: it is proposed now; else it has ended after Took, well or with Err.
	Begun bool
	Took  time.Duration
	Err   error
}

const (
	// revisionPause is the time between two compactions that keep a number of revisions.
	revisionPause = 5 * time.Minute
	// longestPause is the longest time between two that keep a period: shorter ones have
	// their own length. looks is how many times within that pause the revision is noted,
	// and a compaction that failed tried again; leastLook is the shortest time between.
	longestPause = time.Hour
	looks        = 10
	leastLook    = 10 * time.Millisecond
)

// compactor decides when to compact, and to which revision. Times are those that its
// callers tell.
//
//	periodic   the first time a whole period after the start, then every pause of
//	           min(period, 1 h): to the latest revision that is a period old
//	revision   every 5 minutes: to the revision minus what is kept
//
// A compaction that fails is tried again at the next look. One that others have made
// already counts as made.
type compactor struct {
	Compaction

	mu   sync.Mutex
	due  env.Instant // the next look
	made env.Instant // the latest compaction that this member made, or the start
	// first says that none was made yet.
	first bool
	busy  bool
	last  id.Revision // what was compacted to
	notes []note      // of the latest period, oldest first
}

// note is what the revision was at a time.
type note struct {
	at       env.Instant
	revision id.Revision
}

func newCompactor(c Compaction, now env.Instant) *compactor {
	return &compactor{Compaction: c, due: now, made: now, first: true}
}

// pause is the time between two compactions, look that between two looks.
func (c *compactor) pause() time.Duration {
	if c.Period > 0 {
		return min(c.Period, longestPause)
	}
	return revisionPause
}

func (c *compactor) look() time.Duration {
	if c.Period > 0 {
		return max(c.pause()/looks, leastLook)
	}
	return revisionPause
}

// turn notes the revision of now if that is due, and says to which one this member,
// if it leads, is to compact; 0 is none. The compaction is under way from then on.
func (c *compactor) turn(now env.Instant, revision id.Revision, leads bool) (to id.Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.On() || now < c.due {
		return 0
	}
	start := c.first && len(c.notes) == 0 && now == c.made
	c.due = now.Add(c.look())
	if c.Period > 0 {
		to = c.note(now, revision)
	} else if !start {
		to = revision - id.Revision(c.Revisions)
	}
	pause := c.pause()
	if c.first && c.Period > 0 {
		pause = c.Period
	}
	if !leads || c.busy || to <= c.last || now < c.made.Add(pause) {
		return 0
	}
	c.busy = true
	return to
}

// note remembers the revision of now, and returns the latest that is a period old; 0 if
// none is.
func (c *compactor) note(now env.Instant, revision id.Revision) id.Revision {
	c.notes = append(c.notes, note{now, revision})
	old := 0
	for old < len(c.notes) && c.notes[old].at.Add(c.Period) <= now {
		old++
	}
	if old == 0 {
		return 0
	}
	c.notes = append(c.notes[:0], c.notes[old-1:]...) // the latest of the old ones stays
	return c.notes[0].revision
}

// ended says what came of a compaction.
func (c *compactor) ended(now env.Instant, to id.Revision, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	if err == nil || errors.Is(err, command.ErrCompacted) {
		c.first, c.made, c.last = false, now, to
	}
}

// AutoCompact lets the time of automatic compaction go on. It returns when it is to be
// called again, by one goroutine; never, if there is none.
func (m *Member) AutoCompact() (again env.Instant) {
	c := m.compactor
	if !c.On() {
		return env.Never
	}
	now := m.opts.Clock.Now()
	term := m.leads()
	if to := c.turn(now, m.Revision(), term != 0); to != 0 {
		m.tellCompaction(CompactionNews{Compaction: c.Compaction, To: to, Begun: true})
		m.proposeDuty(host.Call{To: completion(func(r host.Result) {
			ended := m.opts.Clock.Now()
			c.ended(ended, to, r.Err)
			if errors.Is(r.Err, command.ErrCompacted) {
				r.Err = nil
			}
			m.tellCompaction(CompactionNews{Compaction: c.Compaction, To: to, Took: ended.Sub(now), Err: r.Err})
		})}, term, &command.CompactRequest{Revision: to})
	}
	return now.Add(c.look())
}

func (m *Member) tellCompaction(n CompactionNews) {
	if m.opts.CompactionNews != nil {
		m.opts.CompactionNews(n)
	}
}
