package host

import (
	"sync"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/state/command"
)

// pending is a proposal taken here whose call has not ended (rule 13).
//
//	waiting (term 0) --proposed--> sent in term T --own entry applied--> ended
//	   ^                               |
//	   +-- known to be lost: an entry of a later term was applied here, or the
//	       leader of T refused it and it was sent only once
//
// As long as it is sent in a term it is never proposed in another: its entry may
// sit in some log and commit yet.
type pending struct {
	call    Call
	cmd     []byte // nil: the slot is empty
	arrived env.Instant
	// sent is when it last went to the leader of term; sends how often.
	sent  env.Instant
	term  id.Term
	sends int
	// refused is the greatest term whose leader refused it: it waits for a later.
	refused id.Term
	class   command.Class
	// shared says that others may hold cmd, so that it is copied before it is
	// stamped again.
	shared bool
}

// ended is a result on its way to its call.
type ended struct {
	to     Completions
	result Result
}

func push(all []ended) {
	for i := range all {
		all[i].to.Push(all[i].result)
	}
}

// pendings are the proposals of one group taken here. The stepper adds and sends,
// the applier ends; the lock is held for a scan or a look-up, never while a
// command is copied or a result pushed.
//
// Sequences are given without gap, so the table is a ring indexed by sequence:
// a proposal costs no allocation and no hash.
type pendings struct {
	mu sync.Mutex
	// ring holds sequences [first, next) at seq & (len-1); len is a power of two.
	ring        []pending
	first, next id.Seq
	live        int
	// No sequence below waitingFrom waits; waiting counts those that do.
	waitingFrom id.Seq
	waiting     int
	// No deadline is before earliest, no resend is due before resendAt.
	earliest, resendAt env.Instant
}

func (p *pendings) init() {
	p.first, p.next, p.waitingFrom = 1, 1, 1
	p.earliest, p.resendAt = env.Never, env.Never
}

const smallRing = 64

func (p *pendings) at(seq id.Seq) *pending { return &p.ring[int(seq)&(len(p.ring)-1)] }

// add gives a proposal the next sequence.
func (p *pendings) add(x *proposal, now env.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(p.next-p.first) == len(p.ring) {
		p.grow()
	}
	seq := p.next
	p.next++
	*p.at(seq) = pending{call: x.call, cmd: x.cmd, arrived: now, class: x.class}
	if p.waiting == 0 {
		p.waitingFrom = seq
	}
	p.waiting++
	p.live++
	p.earliest = min(p.earliest, deadlineOf(x.call))
}

func deadlineOf(c Call) env.Instant {
	if c.Deadline == 0 {
		return env.Never
	}
	return c.Deadline
}

func (p *pendings) grow() {
	old := p.ring
	p.ring = make([]pending, max(smallRing, 2*len(old)))
	for seq := p.first; seq < p.next; seq++ {
		*p.at(seq) = old[int(seq)&(len(old)-1)]
	}
}

// find returns the live pending of a sequence, or nil.
func (p *pendings) find(seq id.Seq) *pending {
	if seq < p.first || seq >= p.next {
		return nil
	}
	if x := p.at(seq); x.cmd != nil {
		return x
	}
	return nil
}

// remove empties a slot and returns what its admission is to be given back.
func (p *pendings) remove(seq id.Seq, x *pending) (bytes int) {
	if x.term == 0 {
		p.waiting--
	}
	bytes = len(x.cmd)
	*x = pending{}
	p.live--
	if p.live == 0 {
		p.first, p.waitingFrom = p.next, p.next
		if len(p.ring) > keptItems {
			p.ring = nil
		}
		return bytes
	}
	if seq == p.first {
		for p.at(p.first).cmd == nil {
			p.first++
		}
		p.waitingFrom = max(p.waitingFrom, p.first)
	}
	return bytes
}

// staged is a command on its way into a batch or a Forward.
type staged struct {
	cmd    []byte
	origin command.Origin
	own    bool
	shared bool
}

// gather appends the proposals that wait and may be proposed in term.
func (p *pendings) gather(to []staged, term id.Term) []staged {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == 0 {
		return to
	}
	for seq := p.waitingFrom; seq < p.next; seq++ {
		if x := p.at(seq); x.cmd != nil && x.term == 0 && x.refused < term {
			to = append(to, staged{cmd: x.cmd, origin: command.Origin{Seq: seq}, own: true, shared: x.shared})
		}
	}
	return to
}

// proposed notes that gathered proposals went into the leader's log, or to the
// leader, of term, stamped as all says.
// resend is when a forwarded one may be due again.
func (p *pendings) proposed(all []staged, term id.Term, now, resend env.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range all {
		if !all[i].own {
			continue
		}
		x := p.find(all[i].origin.Seq)
		if x == nil || x.term != 0 {
			invariant.Check(false, "proposal %d is gone or was sent twice", all[i].origin.Seq)
		}
		x.cmd, x.shared = all[i].cmd, true
		x.term, x.sent, x.sends = term, now, 1
		p.waiting--
	}
	p.resendAt = min(p.resendAt, resend)
	p.skipSent()
}

// skipSent moves waitingFrom on.
func (p *pendings) skipSent() {
	if p.waiting == 0 {
		p.waitingFrom = p.next
		return
	}
	for x := p.at(p.waitingFrom); x.cmd == nil || x.term != 0; x = p.at(p.waitingFrom) {
		p.waitingFrom++
	}
}

// wait puts a pending that is known to be lost back among those that wait.
func (p *pendings) wait(seq id.Seq, x *pending) {
	x.term, x.sends = 0, 0
	p.waiting++
	p.waitingFrom = min(p.waitingFrom, seq)
}

// maxResendPauses bounds how much longer the pause grows from resend to resend.
const maxResendPauses = 8

// gatherResend appends what was forwarded in term and has not been applied here
// within pause, longer with each time it was sent: the leader keeps a window, so
// sending again in the same term is safe.
func (p *pendings) gatherResend(to []staged, term id.Term, now env.Instant, pause time.Duration) []staged {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resendAt = env.Never
	for seq := p.first; seq < p.next; seq++ {
		x := p.at(seq)
		if x.cmd == nil || x.term != term {
			continue
		}
		if x.sent.Add(pause*time.Duration(min(x.sends, maxResendPauses))) <= now {
			x.sent = now
			x.sends++
			to = append(to, staged{cmd: x.cmd, origin: command.Origin{Seq: seq}, own: true})
		}
		p.resendAt = min(p.resendAt, x.sent.Add(pause*time.Duration(min(x.sends, maxResendPauses))))
	}
	return to
}

// settle ends the pendings whose entries were applied and appends their results;
// it returns what their admission is to be given back.
func (p *pendings) settle(to []ended, outcomes []command.Outcome, me id.Member, boot id.Boot) (results []ended, count, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range outcomes {
		o := &outcomes[i]
		if o.Origin.Member != me || o.Origin.Boot != boot {
			continue
		}
		x := p.find(o.Origin.Seq)
		if x == nil {
			continue // its deadline has passed
		}
		if x.term != o.Term {
			invariant.Check(false, "proposal %d was applied in term %d, but sent in term %d", o.Origin.Seq, o.Term, x.term)
		}
		to = append(to, ended{x.call.To, Result{Tag: x.call.Tag, Index: o.Index, Response: o.Response, Err: o.Err}})
		bytes += p.remove(o.Origin.Seq, x)
		count++
	}
	return to, count, bytes
}

// lose is called when an entry of term has been applied here entry by entry: what
// was sent in an earlier term and has not been settled never will be. A client's
// proposal waits again, a duty ends (rule 14). again says that some wait.
func (p *pendings) lose(to []ended, term id.Term) (results []ended, count, bytes int, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == p.waiting {
		return to, 0, 0, false
	}
	for seq, end := p.first, p.next; seq < end; seq++ {
		x := p.at(seq)
		if x.cmd == nil || x.term == 0 || x.term >= term {
			continue
		}
		if x.class == command.Duty && !defect.On(defect.DutyProposedAgain) {
			to = append(to, ended{x.call.To, Result{Tag: x.call.Tag, Err: ErrLeaderChanged}})
			bytes += p.remove(seq, x)
			count++
			continue
		}
		p.wait(seq, x)
		again = true
	}
	return to, count, bytes, again
}

// jump is called when a snapshot whose last entry has term was installed: of what
// was sent in a term up to it nobody can say any more what became of it.
func (p *pendings) jump(to []ended, term id.Term) (results []ended, count, bytes int) {
	return p.end(to, func(x *pending) error {
		if x.term != 0 && x.term <= term && !defect.On(defect.PendingOverJump) {
			return ErrTimeoutLeader
		}
		return nil
	})
}

// refuse takes the word of the leader of term that it did not append a proposal,
// which proves something only if it was sent once.
func (p *pendings) refuse(to []ended, term id.Term, seqs []id.Seq) (results []ended, count, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seq := range seqs {
		x := p.find(seq)
		if x == nil || x.term != term || x.sends != 1 && !defect.On(defect.RefusalTakenForFate) {
			continue
		}
		if x.class == command.Duty {
			to = append(to, ended{x.call.To, Result{Tag: x.call.Tag, Err: ErrLeaderChanged}})
			bytes += p.remove(seq, x)
			count++
			continue
		}
		x.refused = max(x.refused, term)
		p.wait(seq, x)
	}
	return to, count, bytes
}

// expire ends the calls whose deadline has passed. leaderSince is when the
// present leader became known, window how long after its begin a call may blame
// a leader's failure (spec 1.5).
func (p *pendings) expire(to []ended, now, leaderSince env.Instant, window time.Duration) (results []ended, count, bytes int) {
	p.mu.Lock()
	due := now >= p.earliest
	if due {
		p.earliest = env.Never
	}
	p.mu.Unlock()
	if !due {
		return to, 0, 0
	}
	return p.end(to, func(x *pending) error {
		deadline := deadlineOf(x.call)
		switch {
		case deadline > now:
			p.earliest = min(p.earliest, deadline)
			return nil
		case !x.shared:
			return ErrNoLeader
		case leaderSince > x.arrived && leaderSince <= x.arrived.Add(window) || x.term == 0:
			return ErrTimeoutLeader
		}
		return ErrTimeout
	})
}

// endDuties ends the duties that wait: they are proposed at once or never.
func (p *pendings) endDuties(to []ended) (results []ended, count, bytes int) {
	return p.end(to, func(x *pending) error {
		if x.class == command.Duty && x.term == 0 {
			return ErrLeaderChanged
		}
		return nil
	})
}

// endAll ends every call.
func (p *pendings) endAll(to []ended, err error) (results []ended, count, bytes int) {
	return p.end(to, func(*pending) error { return err })
}

// end ends the calls for which why returns an error.
func (p *pendings) end(to []ended, why func(*pending) error) (results []ended, count, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for seq, last := p.first, p.next; seq < last && p.live > 0; seq++ {
		x := p.at(seq)
		if x.cmd == nil {
			continue
		}
		err := why(x)
		if err == nil {
			continue
		}
		to = append(to, ended{x.call.To, Result{Tag: x.call.Tag, Err: err}})
		bytes += p.remove(seq, x)
		count++
	}
	return to, count, bytes
}

// resendIsDue says whether a forwarded proposal may have to be sent again.
func (p *pendings) resendIsDue(now env.Instant) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now >= p.resendAt
}

// lookResend sets when to look again for proposals to send again.
func (p *pendings) lookResend(at env.Instant) {
	p.mu.Lock()
	p.resendAt = at
	p.mu.Unlock()
}

// wake is when a deadline or a resend may be due.
func (p *pendings) wake() env.Instant {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == 0 {
		return env.Never
	}
	return min(p.earliest, p.resendAt)
}
