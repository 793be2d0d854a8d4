package host

import (
	"errors"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// A disk that takes what is written and does not get it synced stalls this replica
// alone: heartbeats leave as before, the others commit without it, and nobody would
// elect another leader. What is committed is not applied here before it is durable
// here (rule 12), so calls made here wait for the disk. Therefore
//
//	after half an election time-out   a leader hands over, if others have synced what
//	                                  its own disk has not, and can do without it;
//	                                  a follower declines to be made leader
//	after a whole one                 who does not lead ends the calls that wait here,
//	                                  so that their clients ask another member
//
// A leader without an heir goes on: it cannot be worse than nobody.

// Stall tells of a disk that does not get the log synced.
type Stall struct {
	// Lasts is for how long nothing has become durable, though something should.
	Lasts time.Duration
	// Leads says that this replica leads, Heir who is asked to lead in its place; 0
	// is nobody.
	Leads bool
	Heir  id.Member
	// Over says that the disk works again, after so long.
	Over bool
}

// ErrStalled ends a call that was not proposed: this member's disk stalls.
var ErrStalled = errors.New("host: the disk of the log stalls")

// handOverAgain is after how many election time-outs a stalled leader tries to hand
// over again: each try keeps proposals waiting for one.
const handOverAgain = 3

// progress is what the stepper sees of the disk's work for one group.
type progress struct {
	// handed is the last Output that went to the persister, done the last that came
	// back, install the last with a snapshot: it waits for the state, not for a disk.
	handed, done, install uint64
	// waited is for how long nothing has come back, looked when that was added to.
	// Between two looks no more than a heartbeat counts: a process that was stopped
	// must not blame its disk.
	waited time.Duration
	looked env.Instant
	// told that it stalls; again is when a leader may try to hand over.
	told  bool
	again env.Instant
}

type groupStall struct {
	group id.Group
	stall Stall
}

// hand notes that an Output goes to the persister.
func (d *progress) hand(out *raft.Output, now env.Instant) {
	if d.handed == d.done {
		d.looked = now
	}
	d.handed = out.Number
	if out.Install != nil {
		d.install = out.Number
	}
}

// stalls says whether nothing has become durable for half an election time-out.
func (s *stepper) stalls(g *Group) bool { return g.step.disk.waited >= s.h.opts.Election/2 }

// persisted notes that an Output is durable.
func (s *stepper) persisted(g *Group, number uint64) {
	d := &g.step.disk
	if d.told {
		d.told = false
		s.tellStall(g, Stall{Lasts: d.waited, Leads: s.leads(g), Over: true})
	}
	d.done, d.waited, d.looked, d.again = number, 0, g.now, 0
}

func (s *stepper) tellStall(g *Group, stall Stall) {
	if s.h.opts.Stalled != nil {
		s.stalled = append(s.stalled, groupStall{g.id, stall})
	}
}

// watchDisk looks whether the disk makes progress, acts if it does not, and returns
// when to look again. A replica that decides alone only waits.
func (s *stepper) watchDisk(g *Group) (wake env.Instant) {
	d := &g.step.disk
	if d.done == d.handed || d.install > d.done || g.alone.Load() {
		d.looked = g.now
		return env.Never
	}
	d.waited += min(g.now.Sub(d.looked), s.h.opts.Heartbeat)
	d.looked = g.now
	if s.stalls(g) {
		s.bearStall(g, d)
	}
	return g.now.Add(s.h.opts.Heartbeat)
}

func (s *stepper) bearStall(g *Group, d *progress) {
	stall := Stall{Lasts: d.waited, Leads: s.leads(g)}
	if stall.Leads && d.again <= g.now {
		if stall.Heir = heir(g.node.Status()); stall.Heir != 0 && g.node.Transfer(g.now, stall.Heir) == nil {
			d.again = g.now.Add(handOverAgain * s.h.opts.Election)
		} else {
			stall.Heir = 0
		}
	}
	if !d.told || stall.Heir != 0 {
		d.told = true
		s.tellStall(g, stall)
	}
	if d.waited >= s.h.opts.Election && !stall.Leads {
		s.end(g, g.pending.giveUp)
		if g.questions.Load() > 0 {
			var count int
			s.results, count = g.reads.endAll(s.results, ErrStalled)
			g.questions.Add(-int64(count))
		}
	}
}

// heir is the voter that should lead in place of a leader whose disk stalls, or 0:
// one that has synced all that is committed. That must be more than this leader's
// own disk has: then the others are enough to decide, and are better off.
func heir(at raft.Status) (best id.Member) {
	if at.Hard.Commit <= at.Durable {
		return 0
	}
	match := at.Hard.Commit - 1
	for _, p := range at.Progress {
		if p.Member != at.ID && p.Active && p.Match > match && slices.Contains(at.Conf.Voters, p.Member) {
			best, match = p.Member, p.Match
		}
	}
	return best
}

// giveUp ends the calls of a replica that cannot apply anything: what was proposed
// may be applied by the others.
func (p *pendings) giveUp(to []ended) (results []ended, count, bytes int) {
	return p.end(to, func(x *pending) error {
		if x.shared {
			return ErrTimeoutLeader
		}
		return ErrStalled
	})
}
