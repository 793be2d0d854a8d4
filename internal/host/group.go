package host

import (
	"sync"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Group is everything that the floors above know of one Raft group.
type Group struct {
	h       *Host
	id      id.Group
	machine Machine

	// What is waited for; see pending.go, read.go and conf.go. The counts are the
	// admission: from the call to its end, the way through the inbox included.
	pending          pendings
	reads            reads
	changes          confCalls
	commands, weight atomic.Int64
	questions        atomic.Int64

	// What the stages publish.
	term     atomic.Uint64
	leader   atomic.Uint64
	lastDone atomic.Uint64 // the applied index, visible to readers
	backlog  atomic.Int64  // bytes handed to the applier and not yet applied
	votes    atomic.Bool   // this replica is a voter
	alone    atomic.Bool   // there is no other member, voter or learner
	damaged  atomic.Bool   // neither votes nor stands (rule 5)
	held     atomic.Uint64 // the log from here on is needed by a follower that is sent a state
	hurry    atomic.Int32  // how many quarters of the retention that takes, at most mostHurry
	logged   atomic.Int64  // about how many bytes the log has

	// mu guards the node and now: the stepper holds it while it steps this group,
	// Status and Transfer for a moment.
	mu   sync.Mutex
	node *raft.Node
	now  env.Instant

	// What belongs to one stage each.
	step  stepState
	log   logState
	apply applyState
}

// Propose hands a command, encoded by package command, to the group and returns
// at once; the Result goes to call.To, exactly once, after the command has been
// applied here or is known to be lost. The host owns cmd from now on.
//
// A duty must name in its header the term in which it was made; it is refused in
// every other. Results besides the state's: ErrTooManyRequests, ErrTooLarge,
// ErrStopped, ErrNoLeader (none was known up to the deadline), ErrTimeout and
// ErrTimeoutLeader (the command may be applied yet), ErrLeaderChanged (a duty
// whose leader is gone), and what command.Peek says.
func (g *Group) Propose(call Call, cmd []byte) {
	header, err := command.Peek(cmd)
	if err != nil {
		call.To.Push(Result{Tag: call.Tag, Err: err})
		return
	}
	limits := &g.h.opts.Limits
	if len(cmd) > limits.WaitingBytes {
		call.To.Push(Result{Tag: call.Tag, Err: ErrTooLarge})
		return
	}
	if !g.admit(header.Kind, len(cmd), limits) {
		call.To.Push(Result{Tag: call.Tag, Err: ErrTooManyRequests})
		return
	}
	p := proposal{g: g, call: call, cmd: cmd, class: header.Class, term: header.Term}
	if defect.On(defect.DutyOutlivesTerm) {
		p.class = command.Client
	}
	first, taken := g.h.stepper.inbox.propose(&p)
	if !taken {
		g.admitted(-1, -len(cmd))
		call.To.Push(Result{Tag: call.Tag, Err: ErrStopped})
		return
	}
	if first {
		g.h.wake(stepStage)
	}
}

// admit counts a command in unless it is beyond the limits (rule 16).
func (g *Group) admit(kind command.Kind, bytes int, limits *Limits) bool {
	commands, weight := g.commands.Add(1), g.weight.Add(int64(bytes))
	most, heaviest := int64(limits.WaitingCommands), int64(limits.WaitingBytes)
	if limits.Priority && (kind == command.KindLeaseRevoke || kind == command.KindLeaseExpire) {
		most, heaviest = 2*most, 2*heaviest
	}
	if commands > most || weight > heaviest {
		g.admitted(-1, -bytes)
		return false
	}
	return true
}

// admitted changes what is counted in.
func (g *Group) admitted(commands, bytes int) {
	if commands != 0 {
		g.commands.Add(int64(commands))
		g.weight.Add(int64(bytes))
	}
}

// ReadIndex ends call once this replica has applied everything that was
// acknowledged anywhere before it: a linearizable read may then look. Results:
// ErrTooManyRequests, ErrTimeout, ErrStopped. A leader change is survived: what
// was not answered is asked again.
func (g *Group) ReadIndex(call Call) {
	if g.questions.Add(1) > int64(g.h.opts.Limits.WaitingCommands) {
		g.questions.Add(-1)
		call.To.Push(Result{Tag: call.Tag, Err: ErrTooManyRequests})
		return
	}
	first, taken := g.h.stepper.inbox.ask(question{g, call})
	if !taken {
		g.questions.Add(-1)
		call.To.Push(Result{Tag: call.Tag, Err: ErrStopped})
		return
	}
	if first {
		g.h.wake(stepStage)
	}
}

// Transfer hands leadership to another voter (0: the best). Errors:
// raft.ErrNotLeader, raft.ErrBadTransferee.
func (g *Group) Transfer(to id.Member) error {
	now := g.h.opts.Clock.Now()
	g.mu.Lock()
	g.now = max(g.now, now)
	err := g.node.Transfer(g.now, to)
	g.mu.Unlock()
	if err == nil {
		g.h.stepper.inbox.report(report{kind: reportLook, g: g})
		g.h.wake(stepStage)
	}
	return err
}

// Status looks at the replica.
func (g *Group) Status() Status {
	g.mu.Lock()
	s := g.node.Status()
	g.mu.Unlock()
	s.Applied = id.Index(g.lastDone.Load())
	return Status{Status: s, Group: g.id, Waiting: int(g.commands.Load())}
}

// Term and Leader are the latest that the stepper knows, for the headers of
// answers: one atomic load each, from any goroutine. Leader is 0 when nobody is
// known to lead.
func (g *Group) Term() id.Term { return id.Term(g.term.Load()) }

// Leader is the member that leads, or 0.
func (g *Group) Leader() id.Member { return id.Member(g.leader.Load()) }

// Votes says whether this member is a voter of the configuration in effect here:
// one atomic load. One that is not only follows the log.
func (g *Group) Votes() bool { return g.votes.Load() }

// Applied is the index up to which commands are visible in the machine: one
// atomic load.
func (g *Group) Applied() id.Index { return id.Index(g.lastDone.Load()) }

// endAll ends every call of the group.
func (g *Group) endAll(to []ended, err error) []ended {
	to, count, bytes := g.pending.endAll(to, err)
	g.admitted(-count, -bytes)
	to, count = g.reads.endAll(to, err)
	g.questions.Add(-int64(count))
	return g.changes.endAll(to, err)
}
