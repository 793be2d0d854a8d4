package host

import (
	"context"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// Host drives the replicas of one member.
type Host struct{}

// New makes a host without groups.
func New(opts Options) *Host { panic("contract only") }

// Boot is the random nonce of this run.
func (h *Host) Boot() id.Boot { return 0 }

// Open brings a group to life: one that the log knows is started by rule 12
// (state and log are reconciled, committed entries replayed); any other is
// created with conf as its first configuration. Call it before any turn.
// Errors: *raftlog.DamageError for a lone voter with a damaged log (rule 5),
// what Machine.Apply says, the file system's.
func (h *Host) Open(group id.Group, machine Machine, conf raft.Conf) (*Group, error) {
	return nil, nil
}

// Deliver takes envelopes from the transport; any goroutine may call it.
func (h *Host) Deliver(envelopes []Envelope) {}

// Unreachable says that the connections to a member are lost.
func (h *Host) Unreachable(member id.Member) {}

// Stages are the stepper, the persister and the applier, for whoever drives
// their turns: run.go or a simulator.
func (h *Host) Stages() [3]env.Turner { return [3]env.Turner{} }

// Run drives the stages until ctx ends or a stage fails, then ends every call
// with ErrStopped. The error names what failed; nil after ctx.
func (h *Host) Run(ctx context.Context) error { return nil }

// Close flushes the machines, trims, closes the log. No stage runs any more.
func (h *Host) Close() error { return nil }

// Group is everything that the floors above know of one Raft group.
type Group struct{}

// Propose hands a command, encoded by package command, to the group and returns
// at once; the Result goes to call.To, exactly once, after the command has been
// applied here or is known to be lost. The host owns cmd from now on.
func (g *Group) Propose(call Call, cmd []byte) {}

// ReadIndex ends call once this replica has applied everything that was
// acknowledged anywhere before it: a linearizable read may then look.
func (g *Group) ReadIndex(call Call) {}

// ProposeConf changes the configuration by one voter.
func (g *Group) ProposeConf(call Call, conf raft.Conf) {}

// Transfer hands leadership to another voter (0: the best).
func (g *Group) Transfer(to id.Member) error { return nil }

// Status looks at the replica.
func (g *Group) Status() Status { return Status{} }

// Term and Leader are the latest that the stepper knows, for the headers of
// answers: one atomic load each, from any goroutine. Leader is 0 when nobody is
// known to lead.
func (g *Group) Term() id.Term { return 0 }

// Leader is the member that leads, or 0.
func (g *Group) Leader() id.Member { return 0 }
