package host

import (
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// A follower that lacks more than what is in memory is read the log back, at the
// pace of chunks of states and for the same reason: two members' processors and
// disks have work with it that clients would wait behind. There is no pause for a
// follower that does not get nearer to the end of the log, and none while nothing is
// committed: then it may be the one that the others need for a quorum.
//
// A follower that has nothing is sent the state instead, if the whole log is longer
// than what a restart replays: its disk writes a state once, but what it replays goes
// into its log, into tables, and through their compactions.

// logEnd is what the stepper knows of the end of a group's log.
type logEnd struct {
	// commit is at most the node's, last the last index that an Output had.
	commit, last id.Index
	// moved is when commit last moved, or nothing was left to commit.
	moved env.Instant
	// wrote is when entries last came.
	wrote env.Instant
	// reads wait for their time.
	reads []pacedRead
	// The last read was for to, at at; it lacked so many entries.
	to  id.Member
	lag id.Index
	at  env.Instant
}

type pacedRead struct {
	raft.Load
	due env.Instant
}

// follow notes what an Output says.
func (e *logEnd) follow(out *raft.Output, now env.Instant) {
	if out.Hard.Commit > e.commit || e.commit >= e.last {
		e.moved = now
	}
	e.commit = out.Hard.Commit
	if out.Install != nil {
		e.last = out.Install.At.Index
	}
	if n := len(out.Entries); n > 0 {
		e.last, e.wrote = out.Entries[n-1].Index, now
	}
}

// stalled says that for longer than d something was to be committed and nothing
// was.
func (e *logEnd) stalled(now env.Instant, d time.Duration) bool {
	return e.commit < e.last && now.Sub(e.moved) > d
}

// bulkPause is how long a group pauses between two pieces of what others lack: see
// chunkPause.
func (s *stepper) bulkPause(g *Group) time.Duration {
	hurry := g.hurry.Load()
	switch {
	case hurry >= mostHurry || g.step.stalled(g.now, s.h.opts.Heartbeat):
		return 0
	case g.now.Sub(g.step.wrote) < busyFor:
		return busyPause >> hurry
	}
	return chunkPause
}

// load has entries read back for a follower, now or when it is time.
func (s *stepper) load(g *Group, l raft.Load) {
	if l.Low == 1 && g.logged.Load() > s.h.opts.Limits.FlushBytes {
		s.loaded(g, l, nil)
		return
	}
	e := &g.step.logEnd
	lag := e.last - l.Low
	behind := l.To == e.to && lag >= e.lag && g.now.Sub(e.at) < time.Second
	e.to, e.lag, e.at = l.To, lag, g.now
	pause := s.bulkPause(g)
	if behind || pause == 0 {
		s.read(g, l)
		return
	}
	l.MaxBytes = min(l.MaxBytes, s.h.opts.Limits.ChunkBytes)
	due := max(g.now, s.readDue)
	s.readDue = due.Add(pause)
	if due <= g.now {
		s.read(g, l)
		return
	}
	e.reads = append(e.reads, pacedRead{l, due})
}

// read has entries read by a task, since a turn never waits for a disk.
func (s *stepper) read(g *Group, l raft.Load) {
	h := s.h
	h.opts.Tasks.Go("read the log back", func() (done bool) {
		entries, err := h.opts.Log.Entries(g.id, l.Low, l.High, l.MaxBytes)
		if err != nil && !isTrimmed(err) {
			h.fail(err)
		}
		s.loaded(g, l, entries)
		return true
	})
}

// loaded hands to the stepper what was read; no entries say that they are not to be
// had, and a snapshot is.
func (s *stepper) loaded(g *Group, l raft.Load, entries []raft.Entry) {
	s.inbox.report(report{kind: reportLoaded, g: g, more: &loadedEntries{l, entries}})
	s.h.wake(stepStage)
}

// turnReads begins the reads whose time has come.
func (s *stepper) turnReads(g *Group) (wake env.Instant) {
	e := &g.step.logEnd
	wake = env.Never
	if len(e.reads) == 0 {
		return wake
	}
	now := s.bulkPause(g) == 0
	keep := e.reads[:0]
	for _, r := range e.reads {
		if now || r.due <= g.now {
			s.read(g, r.Load)
			continue
		}
		wake = min(wake, r.due)
		keep = append(keep, r)
	}
	e.reads = keep
	return wake
}
