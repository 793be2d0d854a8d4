package server

import (
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/lease"
)

// What an entry that ends leases may cost (rule 26), and how often and how many of
// them are proposed: with others between them, since the applier does nothing else
// meanwhile. An entry costs as much as a put besides what it does, so that shorter ones
// more often take more of the processors.
const (
	expireLeases = 256
	expireBytes  = 256 << 10
	expireTime   = 800 * time.Microsecond
	// What ending a lease and deleting a key of it takes the applier, about.
	leaseTime = 2 * time.Microsecond
	keyTime   = 8 * time.Microsecond

	expireInFlight = 1
	// expirePause is the time to the next look when there is more to do, and so between
	// two entries: a client's command that comes meanwhile waits for one of them and not
	// for all. expireLook is the time when there is not. The latter and a tick of the
	// wheel are how late it may be noticed that a lease has ended.
	expirePause = 1500 * time.Microsecond
	expireLook  = 50 * time.Millisecond
	// lookedAt is how many leases one call looks at, while renewals wait.
	lookedAt = 2048
	// checkpointLeases is how many leases one checkpoint has at most.
	checkpointLeases = 1000
)

// Expire lets the time of leases go on: it notices which have ended and, if this
// member leads, proposes their ends: duties (rule 14), which nobody obeys once
// another leads. It returns when it is to be called again.
func (m *Member) Expire() (again env.Instant) {
	now := m.opts.Clock.Now()
	m.leases.forwards.lookLeader(m)
	m.leases.renewals.lookLeader(m)
	m.followLeases()
	m.tokens.follow(now)
	d := m.leases.deadlines
	d.mu.Lock()
	more := d.turn(now, lookedAt)
	// While members do not agree about the keys no lease ends: those that are due wait.
	frozen := m.opts.State.View().Stopped(&command.LeaseExpire{}) != nil
	more = d.term != 0 && d.waiting() > 0 && !frozen || more
	d.mu.Unlock()
	if !frozen && m.leases.inFlight.Load() < expireInFlight {
		m.proposeEnds(now)
	}
	more = m.checkpoint(now) || more
	if more {
		return now.Add(expirePause)
	}
	return now.Add(expireLook)
}

// proposeEnds proposes the end of some leases, if any is due.
func (m *Member) proposeEnds(now env.Instant) {
	d := m.leases.deadlines
	d.mu.Lock()
	term := d.term
	var list []command.LeaseName
	if term != 0 {
		list = d.take(now, new(entryOfEnds).fits)
	}
	d.mu.Unlock()
	if len(list) == 0 {
		return
	}
	p := &ends{m: m, list: list}
	m.leases.inFlight.Add(1)
	m.proposeDuty(host.Call{To: p}, term, &command.LeaseExpire{Leases: p.list})
}

// proposeDuty proposes what this member does as the leader of a term. No deadline
// ends it: it is applied, or known never to be.
func (m *Member) proposeDuty(call host.Call, term id.Term, body command.Body) {
	if _, ends := body.(*command.LeaseExpire); ends && defect.On(defect.ExpireOutlivesTerm) {
		m.propose(call, nil, 0, body)
		return
	}
	header := command.Header{Class: command.Duty, Term: term, Wall: m.opts.Clock.Wall().UnixNano()}
	m.opts.Group.Propose(call, command.Encode(make([]byte, 0, headerBytes), header, body))
}

// entryOfEnds is what an entry that ends leases costs so far.
type entryOfEnds struct {
	leases, bytes int
	time          time.Duration
}

// fits says whether a lease may end in the entry too, and counts it if so. The first
// one always may.
func (e *entryOfEnds) fits(w lease.Weight) bool {
	keys, bytes := w.Most()
	time := leaseTime + time.Duration(keys)*keyTime
	if e.leases > 0 && (e.leases == expireLeases || e.time+time > expireTime || e.bytes+bytes > expireBytes) {
		return false
	}
	e.leases, e.bytes, e.time = e.leases+1, e.bytes+bytes, e.time+time
	return true
}

// spare lets leases run whose end is known not to come.
func (m *Member) spare(list []command.LeaseName, now env.Instant) {
	d := m.leases.deadlines
	d.mu.Lock()
	over := d.spare(list, now, nil)
	d.mu.Unlock()
	m.endAll(over)
}

// ends is the Completions of one proposal that ends leases.
type ends struct {
	m    *Member
	list []command.LeaseName
}

// Push takes what came of it. Leases that have ended are gone from the state by now.
// Of others it is certain that this proposal does not end them any more while this
// member leads; another leader knows better.
func (e *ends) Push(host.Result) {
	e.m.followLeases()
	if !defect.On(defect.LostEndLeaks) {
		e.m.spare(e.list, e.m.opts.Clock.Now())
	}
	e.m.leases.inFlight.Add(-1)
}

// checkpoint tells the next leader what leases have left, once in a while if this
// member leads (opts.LeaseCheckpoint). It says whether there is more to tell.
func (m *Member) checkpoint(now env.Instant) (more bool) {
	l := &m.leases
	if m.opts.LeaseCheckpoint == 0 || now < l.checkpointDue || l.noting.Load() {
		return false
	}
	d := l.deadlines
	d.mu.Lock()
	term := d.term
	if term == 0 {
		d.noted = 0
		d.mu.Unlock()
		l.checkpointDue = now.Add(m.opts.LeaseCheckpoint)
		return false
	}
	list, more := d.note(now, m.opts.LeaseCheckpoint, lookedAt)
	d.mu.Unlock()
	if !more {
		l.checkpointDue = now.Add(m.opts.LeaseCheckpoint)
	}
	if len(list) > 0 {
		l.noting.Store(true)
		m.proposeDuty(host.Call{To: &notes{m, list}}, term, &command.LeaseCheckpoint{Leases: list})
	}
	return more
}

// notes is the Completions of one checkpoint.
type notes struct {
	m    *Member
	list []command.LeaseRemaining
}

// Push takes what came of it.
func (n *notes) Push(host.Result) {
	n.m.followLeases()
	d := n.m.leases.deadlines
	d.mu.Lock()
	over := d.unnote(n.list, nil)
	d.mu.Unlock()
	n.m.endAll(over)
	n.m.leases.noting.Store(false)
}
