package host

import (
	"bytes"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// forwarded is a Forward and who sent it.
type forwarded struct {
	from    id.Member
	forward *Forward
}

// takeProposal queues a call's command: a client's among the pending, a duty for
// this turn only.
func (s *stepper) takeProposal(p *proposal) {
	s.touch(p.g)
	if p.class == command.Duty {
		p.g.step.duties = append(p.g.step.duties, *p)
		return
	}
	p.g.pending.add(p, s.now)
}

// propose hands what waits to the leader, this replica or another (rule 13).
func (s *stepper) propose(g *Group) {
	st := &g.step
	term := st.leaderTerm
	s.admitDuties(g)
	switch {
	case s.leads(g):
		all := s.acceptForwards(s.staged[:0], g, term)
		all = g.pending.gather(all, term)
		s.appendAll(g, term, all)
		s.staged = recycle(all)
		if len(st.duties) > 0 {
			s.end(g, g.pending.endDuties)
		}
	case st.leader != 0:
		all := g.pending.gather(s.staged[:0], term)
		if len(all) > 0 {
			s.stampAll(all, term)
			s.forward(g, term, all)
			g.pending.proposed(all, term, g.now, g.now.Add(s.h.resendPause()))
		}
		s.staged = recycle(all)
	}
	if g.pending.resendIsDue(g.now) {
		s.resend(g)
	}
	s.refuseForwards(g)
	st.duties = recycle(st.duties)
}

// end lets the table end some pendings.
func (s *stepper) end(g *Group, how func([]ended) ([]ended, int, int)) {
	var count, bytes int
	s.results, count, bytes = how(s.results)
	g.admitted(-count, -bytes)
}

// admitDuties lets those duties pass that were made for the term in which this
// replica leads, and ends the others (rule 14).
func (s *stepper) admitDuties(g *Group) {
	st := &g.step
	for i := range st.duties {
		p := &st.duties[i]
		if s.leads(g) && p.term == st.leaderTerm {
			g.pending.add(p, s.now)
			continue
		}
		s.results = append(s.results, ended{p.call.To, Result{Tag: p.call.Tag, Err: ErrLeaderChanged}})
		g.admitted(-1, -len(p.cmd))
	}
}

// stampAll writes origin and term into the own commands among all. A command that
// somebody else may hold is copied first.
func (s *stepper) stampAll(all []staged, term id.Term) {
	for i := range all {
		c := &all[i]
		if !c.own {
			continue
		}
		c.origin.Member, c.origin.Boot = s.h.opts.Member, s.h.boot
		if c.shared {
			c.cmd = bytes.Clone(c.cmd)
		}
		command.Stamp(c.cmd, c.origin, term)
	}
}

// appendAll makes batch entries of all that is staged and appends them to the log
// of this leader. What the node does not take waits on, or is forgotten by the
// window: it transfers its leadership, or has just lost it.
func (s *stepper) appendAll(g *Group, term id.Term, all []staged) {
	if len(all) == 0 {
		return
	}
	s.stampAll(all, term)
	taken := 0
	for taken < len(all) {
		count, size := cut(all[taken:], s.h.opts.Limits.BatchBytes)
		data := make([]byte, 0, size)
		for i := range all[taken : taken+count] {
			data = command.AppendToBatch(data, all[taken+i].cmd)
		}
		if _, err := g.node.Propose(g.now, term, data); err != nil {
			break
		}
		taken += count
	}
	g.pending.proposed(all[:taken], term, g.now, env.Never)
	for i := taken; i < len(all); i++ {
		if o := all[i].origin; !all[i].own {
			g.step.window.of(term, sender{o.Member, o.Boot}).remove(o.Seq)
		}
	}
}

// cut says how many commands, at least one, fit into one batch entry, and what
// they weigh in it (rule 16).
func cut(all []staged, limit int) (count, size int) {
	for count < len(all) {
		n := command.BatchSize(len(all[count].cmd))
		if count > 0 && size+n > limit {
			break
		}
		size += n
		count++
	}
	return count, size
}

// forward sends stamped commands to the leader of term.
func (s *stepper) forward(g *Group, term id.Term, all []staged) {
	for len(all) > 0 {
		count, _ := cut(all, s.h.opts.Limits.BatchBytes)
		f := &Forward{Term: term, Commands: make([][]byte, count)}
		for i := range f.Commands {
			f.Commands[i] = all[i].cmd
		}
		s.send(Envelope{Group: g.id, To: g.step.leader, Forward: f})
		all = all[count:]
	}
}

// resend forwards once more, in the same term, what was not applied in time.
func (s *stepper) resend(g *Group) {
	term := g.step.leaderTerm
	if g.step.leader == 0 || s.leads(g) {
		g.pending.lookResend(env.Never) // until a leader is known
		return
	}
	all := g.pending.gatherResend(s.staged[:0], term, g.now, s.h.resendPause())
	s.forward(g, term, all)
	s.staged = recycle(all)
}

// acceptForwards stages what others forwarded to the leader of term, but for what
// they sent before. What is of another term stays for refuseForwards.
func (s *stepper) acceptForwards(to []staged, g *Group, term id.Term) []staged {
	rest := g.step.forwards[:0]
	for _, f := range g.step.forwards {
		if f.forward.Term != term && !defect.On(defect.ForwardOfAnyTerm) {
			rest = append(rest, f)
			continue
		}
		for _, cmd := range f.forward.Commands {
			h, err := command.Peek(cmd)
			duty := h.Class != command.Client && !defect.On(defect.DutyOutlivesTerm)
			if err != nil || duty || h.Term != term && !defect.On(defect.ForwardOfAnyTerm) || h.Origin.Member != f.from {
				continue // no forwarder of ours sends this
			}
			if !g.step.window.of(term, sender{h.Origin.Member, h.Origin.Boot}).add(h.Origin.Seq) && !defect.On(defect.ResendWithoutWindow) {
				continue
			}
			to = append(to, staged{cmd: cmd, origin: h.Origin})
		}
	}
	clear(g.step.forwards[len(rest):])
	g.step.forwards = rest
	return to
}

// refuseForwards answers what was forwarded to this replica in a term that it
// does not lead.
func (s *stepper) refuseForwards(g *Group) {
	for _, f := range g.step.forwards {
		s.refuse(g, f)
	}
	g.step.forwards = recycle(g.step.forwards)
}

// refuse says which proposals were not, and never will be, appended in their
// term, if that is certain: the term is over for this replica, and it began after
// this run did, so that the run knows all that it accepted in it. A proposal that
// a network doubled is thus never refused after its twin was accepted.
func (s *stepper) refuse(g *Group, f forwarded) {
	st, term := &g.step, f.forward.Term
	led := st.window.term
	if term <= st.bornTerm && !defect.On(defect.RefusalTakenForFate) || term > g.Term() || term < led || s.leads(g) && term == st.leaderTerm {
		return
	}
	var refused *Refuse
	for _, cmd := range f.forward.Commands {
		h, err := command.Peek(cmd)
		if err != nil || h.Term != term || h.Origin.Member != f.from {
			continue
		}
		if term == led && st.window.has(term, sender{h.Origin.Member, h.Origin.Boot}, h.Origin.Seq) {
			continue
		}
		// A Refuse speaks of one boot.
		if refused == nil || refused.Boot != h.Origin.Boot {
			refused = &Refuse{Term: term, Boot: h.Origin.Boot}
			s.send(Envelope{Group: g.id, To: f.from, Refuse: refused})
		}
		refused.Seqs = append(refused.Seqs, h.Origin.Seq)
	}
}

// takeRefuse takes a leader's word that it did not append some proposals.
func (s *stepper) takeRefuse(g *Group, r *Refuse) {
	if r.Boot != s.h.boot {
		return
	}
	s.end(g, func(to []ended) (results []ended, count, bytes int) {
		results, count, bytes = g.pending.refuse(to, r.Term, r.Seqs)
		s.h.measured.FailedProposals.Add(uint64(count))
		return results, count, bytes
	})
}
