package host

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// persister is the second stage: what the Outputs of all groups want on stable
// storage goes into one frame and one sync. While that sync is under way the next
// frame gathers, so that a slow disk makes larger frames and no queue (no timer
// is needed for group commit).
type persister struct {
	h     *Host
	queue queue[toPersist]
	// gathered is for the next frame, flying is in the frame being synced.
	gathered, flying []toPersist
	inSync           bool
	// progress is where the sync stands, err what it ended with; see synced.
	progress atomic.Int32
	err      error
	out      []Envelope
	saved    []*Group
	// house is when the log's housekeeping is due.
	house env.Instant
}

// toPersist is one order to the persister.
type toPersist struct {
	g *Group
	// number is that of the Output whose save and After follow.
	number uint64
	save   raftlog.Save
	after  []raft.Message
	// installed, when no number is given, says that the state of the snapshot in
	// the oldest held order is in place; otherwise durable is the store's mark.
	installed bool
	durable   id.Index
}

// The progress of a sync.
const (
	syncNone int32 = iota
	syncStarting
	syncUnderWay
	syncDone
)

// logState is what the persister knows of one group.
type logState struct {
	// held waits until a snapshot, the first of it, is in the state (rule 21).
	held  []toPersist
	saved bool
	retention
}

// Turn implements env.Turner.
func (p *persister) Turn(now env.Instant) (worked bool, wake env.Instant) {
	did, more, wake := p.turn(now)
	return did || more, wake
}

// housePause keeps the log's housekeeping out of the way of frames that follow
// each other: it may wait that long, an answer may not.
const housePause = 5 * time.Millisecond

func (p *persister) turn(now env.Instant) (did, more bool, wake env.Instant) {
	if p.h.failed() {
		return false, false, env.Never
	}
	did = p.gather(now)
	if p.inSync && p.progress.Load() == syncDone {
		p.collect(now)
		did = true
	}
	if !p.inSync && !p.h.failed() && (len(p.gathered) > 0 || p.h.opts.Log.Staged() > 0) {
		p.begin(now)
		did = true
	}
	switch {
	case p.h.failed():
		return did, false, env.Never
	case p.inSync:
		return did, false, env.Never // its end wakes this stage
	case p.house <= now:
		var worked bool
		worked, p.house = p.h.opts.Log.Turn(now)
		did, more = did || worked, worked
	}
	if p.retain(now) {
		did = true
	}
	return did, more, min(p.house, p.retainWake())
}

// gather sorts what has arrived into the next frame.
func (p *persister) gather(now env.Instant) bool {
	items := p.queue.take()
	for i := range items {
		item := &items[i]
		l := &item.g.log
		switch {
		case item.number == 0 && item.installed:
			p.release(item.g)
		case item.number == 0:
			l.moved(item.durable, now)
		case len(l.held) > 0 || item.save.Reset != nil && !defect.On(defect.ResetBeforeInstall):
			l.held = append(l.held, *item)
		default:
			p.gathered = append(p.gathered, *item)
		}
	}
	if len(items) == 0 {
		return false
	}
	p.queue.give(items)
	return true
}

// release lets go what waited for the oldest held snapshot, up to the next one.
func (p *persister) release(g *Group) {
	held := g.log.held
	if len(held) == 0 && defect.On(defect.ResetBeforeInstall) {
		return
	}
	n := 1
	for n < len(held) && held[n].save.Reset == nil {
		n++
	}
	p.gathered = append(p.gathered, held[:n]...)
	g.log.held = append([]toPersist(nil), held[n:]...)
}

// begin writes one frame and starts its sync.
func (p *persister) begin(now env.Instant) {
	p.gathered, p.flying = p.flying[:0], p.gathered
	for i := range p.flying {
		item := &p.flying[i]
		item.g.log.wrote(item.save.Entries, now)
		p.h.opts.Log.Append(item.save)
	}
	p.inSync = true
	p.progress.Store(syncStarting)
	p.h.opts.Log.StartSync(p.idle(), p.synced)
	if defect.On(defect.AckBeforeSync) {
		p.acknowledge()
	}
	if !p.progress.CompareAndSwap(syncStarting, syncUnderWay) {
		p.collect(now)
	}
}

// smallFrame is what a frame has that one caller's command may be all of.
const smallFrame = 2 << 10

// idle says that nobody seems to want anything while the frame is synced: no second
// caller waits here, and none elsewhere has sent more than one command can be.
func (p *persister) idle() bool { return p.h.opts.Log.Staged() < smallFrame && !p.h.crowded() }

// synced is called once, when the frame is durable or will never be: within
// StartSync, or from any goroutine later.
func (p *persister) synced(err error) {
	p.err = err
	if p.progress.Swap(syncDone) == syncUnderWay {
		p.h.wake(persistStage)
	}
}

// collect ends a sync.
func (p *persister) collect(now env.Instant) {
	p.inSync = false
	p.house = min(p.house, now.Add(housePause))
	p.progress.Store(syncNone)
	if p.err != nil {
		p.h.fail(p.err)
		return
	}
	p.acknowledge()
	p.flying = recycle(p.flying)
	p.weigh(now)
}

// acknowledge releases what waited for the frame: messages, and the word to the
// stepper, one for each group.
func (p *persister) acknowledge() {
	for i := range p.flying {
		item := &p.flying[i]
		for k := range item.after {
			m := &item.after[k]
			p.out = append(p.out, Envelope{Group: item.g.id, From: p.h.opts.Member, To: m.To, Raft: m})
		}
		item.after = nil
		if !item.g.log.saved {
			item.g.log.saved = true
			p.saved = append(p.saved, item.g)
		}
		item.g.log.lastNumber = item.number
	}
	if len(p.out) > 0 {
		p.h.opts.Transport.Send(p.out)
		p.out = nil // the transport's now
	}
	for _, g := range p.saved {
		g.log.saved = false
		p.h.stepper.inbox.report(report{kind: reportPersisted, g: g, number: g.log.lastNumber})
		p.h.mark(stepStage)
	}
	p.saved = p.saved[:0]
}

func isTrimmed(err error) bool { return errors.Is(err, raftlog.ErrTrimmed) }
