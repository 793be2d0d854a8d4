package server

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// renewal is a lease that a call wants renewed.
type renewal struct {
	call  host.Call
	lease id.Lease
}

// LeaseRenew gives a lease all of its time again. Nothing is written: the leader
// stores when that was. Results: *LeaseRenewed. Errors: command.ErrLeaseNotFound;
// host.ErrNoLeader and raft.ErrNotLeader, after which the caller may try again; the
// host's.
func (m *Member) LeaseRenew(call host.Call, lease id.Lease) {
	w := renewal{call, lease}
	switch leader := m.opts.Group.Leader(); leader {
	case 0:
		m.end(call, host.ErrNoLeader)
	case m.opts.Member:
		m.leases.renewals.add(m, w)
	default:
		m.leases.forwards.add(m, leader, w)
	}
}

// renewals are the renewals that wait on the leader until it is certain that it is
// one: a member that others have ceased to follow must promise nothing that the next
// leader does not know of. They share rounds of confirmation (Group.ReadIndex): those
// that come while one is under way go with the next. All of a round are renewed as of
// its beginning, which is after they came and before any other leader could be
// elected, from whose election on the lease has all of its time again.
type renewals struct {
	mu      sync.Mutex
	waiting []renewal
	open    *round
}

// round is a confirmation under way and who waits for it. term is the one in which
// this member leads, as it believes; begun is later than that, and than all who wait
// have come.
type round struct {
	list  []renewal
	term  id.Term
	begun env.Instant
}

func (r *renewals) add(m *Member, some ...renewal) {
	r.mu.Lock()
	r.waiting = append(r.waiting, some...)
	r.mu.Unlock()
	r.begin(m)
}

// begin starts a round unless one is under way or nobody waits.
func (r *renewals) begin(m *Member) {
	r.mu.Lock()
	if r.open != nil || len(r.waiting) == 0 {
		r.mu.Unlock()
		return
	}
	now := &round{list: r.waiting, term: m.leads()}
	r.open, r.waiting = now, nil
	r.mu.Unlock()
	if now.term == 0 {
		r.confirmed(m, now, raft.ErrNotLeader)
		return
	}
	m.followLeases() // deadlines.since is not after begun
	now.begun = m.opts.Clock.Now()
	if defect.On(defect.RenewUnconfirmed) {
		r.confirmed(m, now, nil)
		return
	}
	m.Barrier(host.Call{Deadline: m.Deadline(), To: completion(func(result host.Result) { r.confirmed(m, now, result.Err) })})
}

// confirmed ends a round, and begins the next one if anybody waits.
func (r *renewals) confirmed(m *Member, ended *round, err error) {
	r.mu.Lock()
	over := r.open != ended
	if !over {
		r.open = nil
	}
	r.mu.Unlock()
	if over {
		return
	}
	if err == nil && m.leads() != ended.term {
		err = raft.ErrNotLeader
	}
	if err == nil {
		m.followLeases() // what was applied before the round counts
	}
	var noted takenBack
	for _, w := range ended.list {
		if err != nil {
			m.end(w.call, err)
			continue
		}
		m.renewed(w, ended.begun, &noted)
	}
	if len(noted.body.Leases) > 0 {
		noted.m = m
		m.proposeDuty(host.Call{To: &noted}, ended.term, &noted.body)
	}
	r.begin(m)
}

// lookLeader gives up a round in which this member has ceased to lead: it would last
// until another leader confirms a read.
func (r *renewals) lookLeader(m *Member) {
	r.mu.Lock()
	open := r.open
	r.mu.Unlock()
	if open != nil && m.leads() != open.term {
		r.confirmed(m, open, raft.ErrNotLeader)
	}
}

// renewed renews a lease of a round that was confirmed.
func (m *Member) renewed(w renewal, at env.Instant, noted *takenBack) {
	d := m.leases.deadlines
	name, ttl, verdict := d.renew(w.lease, at)
	switch verdict {
	case isGone:
		m.end(w.call, command.ErrLeaseNotFound)
	case isRenewed:
		m.measured.Renewed.Add(1)
		w.call.To.Push(host.Result{Tag: w.call.Tag, Response: &LeaseRenewed{TTL: ttl}})
	case isNoted:
		noted.body.Leases = append(noted.body.Leases, command.LeaseRemaining{LeaseName: name})
		noted.list = append(noted.list, w)
		noted.ttls = append(noted.ttls, ttl)
	case isHeld:
		if !d.hold(w) {
			m.end(w.call, raft.ErrNotLeader) // that was decided just now: ask again
		}
	}
}

// takenBack is the Completions of a proposal that takes checkpoints back: the
// renewals that wait for it.
type takenBack struct {
	m    *Member
	body command.LeaseCheckpoint
	list []renewal
	ttls []int64
}

// Push tells them.
func (t *takenBack) Push(r host.Result) {
	for i, w := range t.list {
		if r.Err != nil {
			t.m.end(w.call, raft.ErrNotLeader)
			continue
		}
		t.m.measured.Renewed.Add(1)
		w.call.To.Push(host.Result{Tag: w.call.Tag, Response: &LeaseRenewed{TTL: t.ttls[i]}})
	}
}

// forwards are the renewals that another member's leader is asked for. One question
// is open at a time, and what comes meanwhile goes with the next; if another leads by
// then, the open one is given up.
type forwards struct {
	mu      sync.Mutex
	waiting []renewal
	open    *forwarded
}

// forwarded is an open question.
type forwarded struct {
	leader id.Member
	list   []renewal
}

// mostForwarded is how many renewals a question has at most: ten bytes each.
const mostForwarded = 8192

func (f *forwards) add(m *Member, leader id.Member, w renewal) {
	f.mu.Lock()
	f.waiting = append(f.waiting, w)
	question := f.next(leader)
	f.mu.Unlock()
	f.ask(m, question)
}

// next is the question to ask now, nil if one is open. The lock is held.
func (f *forwards) next(leader id.Member) *forwarded {
	if f.open != nil || len(f.waiting) == 0 {
		return nil
	}
	n := min(len(f.waiting), mostForwarded)
	f.open = &forwarded{leader: leader, list: f.waiting[:n:n]}
	f.waiting = f.waiting[n:]
	return f.open
}

func (f *forwards) ask(m *Member, question *forwarded) {
	if question == nil {
		return
	}
	body := make([]byte, 0, 10*len(question.list))
	for i := range question.list {
		body = binary.AppendVarint(body, int64(question.list[i].lease))
	}
	m.opts.Peers.Ask(question.leader, AskRenew, body, m.Deadline(), func(answer []byte, err error) {
		if err != nil && !errors.Is(err, host.ErrTimeout) {
			err = host.ErrNoLeader // whatever came of it, a renewal may be asked for again
		}
		f.answered(m, question, answer, err)
	})
}

// answered ends a question and asks the next one.
func (f *forwards) answered(m *Member, question *forwarded, answer []byte, err error) {
	f.mu.Lock()
	over := f.open != question
	var next *forwarded
	if !over {
		f.open = nil
		if leader := m.opts.Group.Leader(); leader != 0 && leader != m.opts.Member {
			next = f.next(leader)
		}
	}
	var stranded []renewal
	if f.open == nil {
		stranded, f.waiting = f.waiting, nil
	}
	f.mu.Unlock()
	if over {
		return
	}
	rest, result := refusalOf(0, answer, err)
	for _, w := range question.list {
		ttl, n := binary.Uvarint(rest)
		switch {
		case result.Err != nil:
			m.end(w.call, result.Err)
		case n <= 0:
			m.end(w.call, errAnswer)
		case ttl == 0:
			m.end(w.call, command.ErrLeaseNotFound)
		default:
			w.call.To.Push(host.Result{Tag: w.call.Tag, Response: &LeaseRenewed{TTL: int64(ttl)}})
		}
		rest = rest[max(n, 0):]
	}
	for _, w := range stranded {
		m.end(w.call, host.ErrNoLeader)
	}
	f.ask(m, next)
}

// lookLeader gives up an open question whose member leads no more.
func (f *forwards) lookLeader(m *Member) {
	f.mu.Lock()
	question := f.open
	f.mu.Unlock()
	if question != nil && question.leader != m.opts.Group.Leader() {
		f.answered(m, question, nil, host.ErrNoLeader)
	}
}

// answerRenew answers another member's renewals: the TTL of each, 0 for a lease that
// is not there.
func (m *Member) answerRenew(question []byte, answer func([]byte, error)) {
	g := &gathered{answer: answer}
	var list []renewal
	for deadline := m.Deadline(); len(question) > 0; {
		number, n := binary.Varint(question)
		if n <= 0 {
			answer(nil, errAnswer)
			return
		}
		list = append(list, renewal{host.Call{To: g, Tag: uint64(len(list)), Deadline: deadline}, id.Lease(number)})
		question = question[n:]
	}
	g.left, g.ttls = len(list), make([]int64, len(list))
	if m.leads() == 0 {
		answerer(answer).Push(host.Result{Err: raft.ErrNotLeader})
		return
	}
	if len(list) == 0 {
		g.end()
		return
	}
	m.leases.renewals.add(m, list...)
}

// gathered is the Completions of the renewals of one question.
type gathered struct {
	answer func([]byte, error)

	mu   sync.Mutex
	left int
	ttls []int64
	err  error
}

// Push takes one result, and answers after the last one.
func (g *gathered) Push(r host.Result) {
	g.mu.Lock()
	switch renewed, ok := r.Response.(*LeaseRenewed); {
	case ok:
		g.ttls[r.Tag] = renewed.TTL
	case !errors.Is(r.Err, command.ErrLeaseNotFound):
		g.err = r.Err
	}
	g.left--
	last := g.left == 0
	g.mu.Unlock()
	if last {
		g.end()
	}
}

func (g *gathered) end() {
	if g.err != nil {
		answerer(g.answer).Push(host.Result{Err: g.err})
		return
	}
	body := []byte{0}
	for _, ttl := range g.ttls {
		body = binary.AppendUvarint(body, uint64(ttl))
	}
	g.answer(body, nil)
}
