package sim

import (
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
)

// peers are one run's connections to the others, as the simulated network has
// them; it implements server.Peers.
type peers struct {
	r   *replica
	run int
}

var _ server.Peers = (*peers)(nil)

// ConnectedSince implements server.Peers.
func (p *peers) ConnectedSince(m id.Member) (env.Instant, bool) {
	n, other := p.r.w.network, p.r.w.replicaOf(m)
	if other == nil || other == p.r || !n.connected(p.r, other) {
		return 0, false
	}
	since := max(p.r.startedAt, other.startedAt, n.whole[p.r.number][other.number], n.whole[other.number][p.r.number])
	ago := p.r.w.env.Now().Sub(since) + p.r.w.swarm.members.connectedBefore
	return p.r.process.Clock.Now().Add(-ago), true
}

func (n *network) connected(a, b *replica) bool {
	return a.host != nil && b.host != nil && n.cut[a.number][b.number] == 0 && n.cut[b.number][a.number] == 0
}

// question is one that a member has asked another, until it is over.
type question struct {
	from *replica
	run  int
	done func([]byte, error)
}

// Ask implements server.Peers: question and answer are messages, delayed and lost
// as others are.
func (p *peers) Ask(m id.Member, kind server.AskKind, body []byte, deadline env.Instant, done func([]byte, error)) {
	n, to := p.r.w.network, p.r.w.replicaOf(m)
	if to == nil || !n.connected(p.r, to) {
		done(nil, host.ErrNoLeader) // as embed does: nothing was asked
		return
	}
	q := &question{from: p.r, run: p.run, done: done}
	n.questions = append(n.questions, q)
	n.postAt(delivery{from: p.r, to: p.r, do: func() { n.end(q, nil, host.ErrTimeout) }}, p.r.process.Clock.WorldTime(deadline))
	if n.chance(n.swarm.losePermille) {
		return
	}
	n.post(delivery{from: p.r, to: to, do: func() {
		run := to.runs
		to.guard(func() {
			to.services.Answer(kind, body, func(answer []byte, err error) {
				if to.runs == run && to.host != nil && !n.chance(n.swarm.losePermille) {
					n.post(delivery{from: to, to: q.from, do: func() { n.end(q, answer, err) }})
				}
			})
		})
	}})
}

// end ends a question once, unless the member that asked has died.
func (n *network) end(q *question, answer []byte, err error) {
	for i := range n.questions {
		if n.questions[i] == q {
			n.questions = append(n.questions[:i:i], n.questions[i+1:]...)
			if q.from.host != nil && q.from.runs == q.run {
				q.from.guard(func() { q.done(answer, err) })
			}
			return
		}
	}
}

// asked counts the questions that are open.
func (n *network) asked() int { return len(n.questions) }
