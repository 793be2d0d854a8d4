package server

import (
	"encoding/binary"
	"math"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
)

// The lease service (spec 4). Grants and revocations go through the log. Renewals and
// questions about the time that is left are the leader's, who alone has a clock that
// counts: other members ask it. What ends leases is in expire.go.

// leases is what a member has for them.
type leases struct {
	deadlines *deadlines
	renewals  renewals
	forwards  forwards
	// inFlight counts the proposals of LeaseExpire that are not ended.
	inFlight atomic.Int32
	// noting says that a checkpoint is under way; checkpointDue is when the next round
	// of them begins, and Expire's alone.
	noting        atomic.Bool
	checkpointDue env.Instant
	// term is the latest one of which it is certain that this member leads or led in it.
	term atomic.Uint64
}

// LeaseRenewed answers a renewal: the lease has all of its TTL again, in seconds.
type LeaseRenewed struct{ TTL int64 }

// LeaseLeft answers a question about the time that is left, in seconds.
type LeaseLeft struct{ Remaining, Granted int64 }

// LeaseGrant makes a lease; one with ID 0 is given an ID that nobody has, and a TTL
// below the least is raised to it. Results: *command.LeaseGrantResponse. Errors:
// command.ErrLeaseTTLTooLarge, command.ErrLeaseExists, the host's.
func (s Session) LeaseGrant(call host.Call, req *command.LeaseGrant) {
	m := s.m
	grant := command.LeaseGrant{ID: req.ID, TTL: max(req.TTL, m.opts.MinLeaseTTL, 1)}
	for grant.ID == 0 {
		grant.ID = id.Lease(m.opts.Rand.Uint64() >> 1)
	}
	s.propose(call, req.Validate(), 0, &grant)
}

// LeaseRevoke ends a lease and deletes its keys. Results: *command.LeaseRevokeResponse.
// Errors: command.ErrLeaseNotFound, the host's.
func (s Session) LeaseRevoke(call host.Call, lease id.Lease) {
	s.propose(call, nil, 0, &command.LeaseRevoke{ID: lease})
}

// Leases lists the leases that this member has applied: the leader those first that
// end first, others by their numbers. Errors: those of the judgement, which asks to
// read all keys of all of them.
func (s Session) Leases() (list []id.Lease, err error) {
	err = s.read(func(c *auth.Check) error {
		if err := c.AnyUser(); err != nil || c.Admin() == nil {
			return err
		}
		for _, lease := range s.m.allLeases() {
			if err := c.LeaseRead(lease); err != nil {
				return err
			}
		}
		return nil
	}, func(*state.View) error {
		list = s.m.allLeases()
		return nil
	})
	return list, err
}

func (m *Member) allLeases() []id.Lease {
	m.followLeases()
	return m.leases.deadlines.all()
}

// LeaseKeys lists the keys of a lease in byte order, as this member has them now.
// Errors: those of the judgement, engine.ErrIterators, *mvcc.DamageError.
func (s Session) LeaseKeys(lease id.Lease) (list [][]byte, err error) {
	err = s.read(func(c *auth.Check) error { return c.AnyUser() }, func(v *state.View) error {
		if list, err = v.LeaseKeys(lease, math.MaxInt); err != nil {
			return err
		}
		// What is told is judged, not what hangs on the lease by then.
		check := v.Check(s.who)
		check.Keys = func(id.Lease) ([][]byte, error) { return list, nil }
		return check.LeaseRead(lease)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// MayRenew says whether the caller may renew a lease. Errors: those of the judgement.
func (s Session) MayRenew(lease id.Lease) error {
	return s.read(func(c *auth.Check) error { return c.LeaseWrite(lease) }, func(*state.View) error { return nil })
}

// leads says in which term this member leads; 0 if it does not. Group.Term and
// Group.Leader alone may be of two moments; a term that is new is therefore looked
// at once more under the group's lock. It counts from when an entry of that term is
// applied: what entries of former terms say of leases, which may be applied after the
// election, was said by others.
func (m *Member) leads() id.Term {
	if m.opts.Group.Leader() != m.opts.Member {
		return 0
	}
	term := m.opts.Group.Term()
	if id.Term(m.leases.term.Load()) == term {
		return term
	}
	status := m.opts.Group.Status()
	if status.Role != raft.Leader || m.opts.State.View().At.Term != status.Hard.Term {
		return 0
	}
	m.leases.term.Store(uint64(status.Hard.Term))
	return status.Hard.Term
}

// followLeases takes in what has changed since it was last called.
func (m *Member) followLeases() {
	d := m.leases.deadlines
	term := m.leads()
	d.mu.RLock()
	news := d.feed.More() || d.term != term
	d.mu.RUnlock()
	if !news {
		return
	}
	d.mu.Lock()
	over := d.follow(m.opts.Clock.Now(), term, nil)
	d.mu.Unlock()
	m.endAll(over)
}

func (m *Member) endAll(list []ended) {
	for i := range list {
		m.end(list[i].call, list[i].err)
	}
}

// LeaseTimeToLive asks how much of its time a lease has left. Results: *LeaseLeft.
// Errors: command.ErrLeaseNotFound; host.ErrNoLeader and raft.ErrNotLeader, after
// which the caller may try again; host.ErrLeaderChanged, host.ErrTimeout, the host's.
func (m *Member) LeaseTimeToLive(call host.Call, lease id.Lease) {
	switch leader := m.opts.Group.Leader(); leader {
	case 0:
		m.end(call, host.ErrNoLeader)
	case m.opts.Member:
		m.timeToLive(call, lease)
	default:
		question := binary.AppendVarint(nil, int64(lease))
		m.opts.Peers.Ask(leader, AskTimeToLive, question, deadlineOf(call, m), func(answer []byte, err error) {
			call.To.Push(leftOf(call.Tag, answer, err))
		})
	}
}

func deadlineOf(call host.Call, m *Member) env.Instant {
	if call.Deadline != 0 {
		return call.Deadline
	}
	return m.Deadline()
}

// timeToLive answers once it is certain that this member leads.
func (m *Member) timeToLive(call host.Call, lease id.Lease) {
	term := m.leads()
	if term == 0 {
		m.end(call, raft.ErrNotLeader)
		return
	}
	m.Barrier(host.Call{Deadline: deadlineOf(call, m), To: completion(func(r host.Result) {
		switch {
		case r.Err != nil:
			m.end(call, r.Err)
			return
		case m.leads() != term:
			m.end(call, host.ErrLeaderChanged)
			return
		}
		m.followLeases()
		remaining, granted, known := m.leases.deadlines.left(lease, m.opts.Clock.Now())
		if !known {
			m.end(call, command.ErrLeaseNotFound)
			return
		}
		call.To.Push(host.Result{Tag: call.Tag, Response: &LeaseLeft{Remaining: remaining, Granted: granted}})
	})})
}

// completion is a Completions that is a function; it must not wait.
type completion func(host.Result)

// Push implements host.Completions.
func (c completion) Push(r host.Result) { c(r) }

// leftOf is what the leader's answer tells the call that asked.
func leftOf(tag uint64, answer []byte, err error) host.Result {
	rest, result := refusalOf(tag, answer, err)
	if result.Err != nil {
		return result
	}
	remaining, n := binary.Uvarint(rest)
	granted, k := binary.Uvarint(rest[max(n, 0):])
	if n <= 0 || k <= 0 {
		return host.Result{Tag: tag, Err: errAnswer}
	}
	result.Response = &LeaseLeft{Remaining: int64(remaining), Granted: int64(granted)}
	return result
}

// answerLeft answers another member's question.
func (m *Member) answerLeft(question []byte, answer func([]byte, error)) {
	number, n := binary.Varint(question)
	if n <= 0 {
		answer(nil, errAnswer)
		return
	}
	m.timeToLive(host.Call{Deadline: m.Deadline(), To: completion(func(r host.Result) {
		if r.Err != nil {
			answerer(answer).Push(r)
			return
		}
		left := r.Response.(*LeaseLeft)
		answer(binary.AppendUvarint(binary.AppendUvarint([]byte{0}, uint64(left.Remaining)), uint64(left.Granted)), nil)
	})}, id.Lease(number))
}
