package sim

import (
	"slices"
	"sort"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// network carries envelopes between the members, badly.
type network struct {
	w     *world
	rand  *simenv.Rand
	swarm netSwarm
	// cut[from][to] counts the partitions that part the two in this direction.
	cut [][]int
	// queue is ordered by (due, seq).
	queue []delivery
	seq   uint64
	// whole is since when each partition has been over.
	whole [][]env.Instant
	// questions are those that are open.
	questions []*question
}

// delivery is one envelope on its way. A message of raft travels encoded, so that
// replicas share no memory and the codec is on the path.
type delivery struct {
	due      env.Instant
	seq      uint64
	from, to *replica
	envelope host.Envelope
	message  []byte
	do       func() // instead: what happens when it arrives
}

func newNetwork(w *world) *network {
	return &network{w: w, rand: w.env.Rand("network"), swarm: w.swarm.network}
}

// grow makes room for one more member.
func (n *network) grow(members int) {
	n.cut, n.whole = append(n.cut, nil), append(n.whole, nil)
	for i := range n.cut {
		n.cut[i] = append(n.cut[i], make([]int, members-len(n.cut[i]))...)
		n.whole[i] = append(n.whole[i], make([]env.Instant, members-len(n.whole[i]))...)
	}
}

// port is one member's end of the network; it implements host.Transport.
type port struct {
	n    *network
	from *replica
	run  int
}

// Send implements host.Transport.
func (p *port) Send(envelopes []host.Envelope) {
	if p.from.runs != p.run {
		return // the last words of a run that has ended
	}
	for _, e := range envelopes {
		p.n.send(p.from, e)
	}
}

func (n *network) send(from *replica, e host.Envelope) {
	to := n.w.replicaOf(e.To)
	if to == nil || to == from {
		n.w.fail("a message of member %v to %v, which is not another member", e.From, e.To)
		return
	}
	d := delivery{from: from, to: to, envelope: e}
	if e.Raft != nil {
		d.message = raft.AppendMessage(nil, *e.Raft)
		n.w.auditor.said(from, *e.Raft)
		n.w.witness.said(from, *e.Raft)
	}
	n.w.trace.fold(eventSend, uint64(from.member), uint64(to.member), digest(d.message))
	if n.cut[from.number][to.number] > 0 || n.chance(n.swarm.losePermille) {
		return
	}
	n.post(d)
	if n.chance(n.swarm.repeatPermille) {
		n.post(d)
	}
}

func (n *network) chance(permille int64) bool { return permille > 0 && n.rand.Int64N(1000) < permille }

// post draws when a message arrives: messages overtake each other.
func (n *network) post(d delivery) {
	delay := between(n.rand, n.swarm.minDelay, n.swarm.maxDelay)
	if n.chance(n.swarm.slowPermille) {
		delay += time.Duration(n.rand.Int64N(int64(n.swarm.slowDelay)))
	}
	n.postAt(d, n.w.env.Now().Add(delay))
}

// postAt has a message arrive at a time.
func (n *network) postAt(d delivery, due env.Instant) {
	n.seq++
	d.due, d.seq = due, n.seq
	at := sort.Search(len(n.queue), func(i int) bool { return n.queue[i].due > d.due })
	n.queue = slices.Insert(n.queue, at, d)
}

// nextDue is when the first message arrives.
func (n *network) nextDue() env.Instant {
	if len(n.queue) == 0 {
		return env.Never
	}
	return n.queue[0].due
}

// deliver hands over the first message.
func (n *network) deliver() {
	d := n.queue[0]
	n.queue = n.queue[1:]
	n.w.trace.fold(eventDeliver, uint64(d.from.member), uint64(d.to.member), d.seq)
	if d.to.host == nil || n.cut[d.from.number][d.to.number] > 0 {
		return
	}
	if d.do != nil {
		d.do()
		if d.to.host != nil {
			d.to.wake()
		}
		return
	}
	e := d.envelope
	switch {
	case e.Raft != nil:
		m, err := raft.DecodeMessage(d.message)
		if err != nil {
			n.w.fail("a message does not come back from its encoding: %v", err)
			return
		}
		e.Raft = &m
		tell := n.w.trace.tell
		switch m.Body.(type) {
		case *raft.Heartbeat, *raft.RoundReply:
			tell = n.w.trace.tellDetail
		}
		tell(n.w.env.Now(), "%v <- %v  %s", d.to, d.from, messageText(m))
	case e.Forward != nil:
		e.Forward = &host.Forward{Term: e.Forward.Term, Commands: cloneAll(e.Forward.Commands)}
		n.w.trace.tell(n.w.env.Now(), "%v <- %v  forward of %d, term %d", d.to, d.from, len(e.Forward.Commands), e.Forward.Term)
	case e.Snapshot != nil:
		chunk := *e.Snapshot
		chunk.Bytes = slices.Clone(chunk.Bytes)
		e.Snapshot = &chunk
		n.w.trace.tell(n.w.env.Now(), "%v <- %v  snapshot %d at %v, chunk %d", d.to, d.from, chunk.Seq, chunk.At, chunk.Number)
	case e.Receipt != nil:
		receipt := *e.Receipt
		e.Receipt = &receipt
		n.w.trace.tell(n.w.env.Now(), "%v <- %v  receipt for %d chunks of snapshot %d, verdict %d", d.to, d.from, receipt.Next, receipt.Seq, receipt.Verdict)
	}
	d.to.guard(func() { d.to.host.Deliver([]host.Envelope{e}) })
	d.to.wake()
}

func cloneAll(list [][]byte) [][]byte {
	clones := make([][]byte, len(list))
	for i := range list {
		clones[i] = slices.Clone(list[i])
	}
	return clones
}

// part cuts a from b, and b from a unless it is one-way.
func (n *network) part(a, b *replica, oneWay bool, by int) {
	n.cut[a.number][b.number] += by
	n.whole[a.number][b.number] = n.w.env.Now()
	if !oneWay {
		n.cut[b.number][a.number] += by
		n.whole[b.number][a.number] = n.w.env.Now()
	}
}

// notice tells the others that the connections to a member are gone, as a
// transport would, or not.
func (n *network) notice(of *replica) {
	for _, r := range n.w.replicas {
		if r != of && r.host != nil && n.chance(n.swarm.noticePermille) {
			r.guard(func() { r.host.Unreachable(of.member) })
			r.wake()
		}
	}
}

// heal ends every partition and every unkindness.
func (n *network) heal() {
	for _, row := range n.cut {
		clear(row)
	}
	n.swarm.losePermille, n.swarm.repeatPermille, n.swarm.slowPermille = 0, 0, 0
	n.swarm.maxDelay = min(n.swarm.maxDelay, 2*time.Millisecond)
}

// replicaOf finds a replica by its member id.
func (w *world) replicaOf(member id.Member) *replica {
	for _, r := range w.replicas {
		if r.member == member {
			return r
		}
	}
	return nil
}
