package host

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
)

// Host drives the replicas of one member.
type Host struct {
	opts Options
	boot id.Boot
	// groups are in order of their opening; fixed once the stages turn.
	groups []*Group
	byID   map[id.Group]*Group

	stepper   stepper
	persister persister
	applier   applier
	// executor drives the stages while Run does; a simulator needs none.
	executor atomic.Pointer[executor]

	failure  failure
	measured Measured
}

// failure is the first error that ends a host.
type failure struct {
	mu     sync.Mutex
	err    error
	failed atomic.Bool
}

// New makes a host without groups.
func New(opts Options) *Host {
	opts.Limits = opts.Limits.withDefaults()
	h := &Host{opts: opts, byID: map[id.Group]*Group{}}
	for h.boot == 0 {
		h.boot = id.Boot(opts.Rand.Uint64())
	}
	h.stepper.h = h
	h.stepper.inbox.limit = envelopeBytes
	h.persister.h = h
	h.applier.h = h
	h.measured.init()
	return h
}

// envelopeBytes bounds the envelopes that wait for the stepper, backlogBytes the
// committed entries of a group that wait for the applier: beyond it appends are
// dropped, so that a slow state machine slows its leader down.
const (
	envelopeBytes = 64 << 20
	backlogBytes  = 64 << 20
)

// withDefaults fills in what is zero.
func (l Limits) withDefaults() Limits {
	pick(&l.BatchBytes, 512<<10)
	pick(&l.WaitingCommands, 20_000)
	pick(&l.WaitingBytes, 64<<20)
	pick(&l.FlushBytes, 64<<20)
	pick(&l.RetainBytes, 1<<30)
	pick(&l.AppendBytes, 1<<20)
	pick(&l.CacheBytes, 16<<20)
	pick(&l.ChunkBytes, 256<<10)
	return l
}

func pick[T int | int64](v *T, normal T) {
	if *v == 0 {
		*v = normal
	}
}

// wake says that a stage has work that came from outside of a turn, mark that it
// has work from a stage that is in its turn now.
func (h *Host) wake(stage int) {
	if x := h.executor.Load(); x != nil {
		x.wake(stage)
	}
}

func (h *Host) mark(stage int) {
	if x := h.executor.Load(); x != nil {
		x.mark(stage)
	}
}

// Boot is the random nonce of this run.
func (h *Host) Boot() id.Boot { return h.boot }

// Deliver takes envelopes from the transport; any goroutine may call it. What
// does not fit is lost.
func (h *Host) Deliver(envelopes []Envelope) {
	if h.stepper.inbox.deliver(envelopes) {
		h.wake(stepStage)
	}
}

// Unreachable says that the connections to a member are lost.
func (h *Host) Unreachable(member id.Member) {
	h.stepper.inbox.report(report{kind: reportUnreachable, member: member})
	h.wake(stepStage)
}

// Stages are the stepper, the persister and the applier, for whoever drives
// their turns: run.go or a simulator. A turn that worked may have made work for
// any of them, as may every call of a method of Host or Group, every completed
// sync and every step of a task.
func (h *Host) Stages() [3]env.Turner {
	return [stages]env.Turner{&h.stepper, &h.persister, &h.applier}
}

// Err is what has ended this host, or nil. The stages of a failed host do nothing
// any more.
func (h *Host) Err() error {
	if !h.failure.failed.Load() {
		return nil
	}
	h.failure.mu.Lock()
	defer h.failure.mu.Unlock()
	return h.failure.err
}

// fail ends the host with the first error that is final.
func (h *Host) fail(err error) {
	h.failure.mu.Lock()
	defer h.failure.mu.Unlock()
	if h.failure.err == nil {
		h.failure.err = err
		h.failure.failed.Store(true)
	}
}

func (h *Host) failed() bool { return h.failure.failed.Load() }

// stop ends every call with ErrStopped and refuses new ones. No stage runs any
// more.
func (h *Host) stop() {
	var results []ended
	in := h.stepper.inbox.close()
	for i := range in.proposals {
		p := &in.proposals[i]
		results = append(results, ended{p.call.To, Result{Tag: p.call.Tag, Err: ErrStopped}})
		p.g.admitted(-1, -len(p.cmd))
	}
	for i := range in.questions {
		q := &in.questions[i]
		results = append(results, ended{q.call.To, Result{Tag: q.call.Tag, Err: ErrStopped}})
		q.g.questions.Add(-1)
	}
	for i := range in.reports {
		switch x := in.reports[i].more.(type) {
		case *confCall:
			results = append(results, ended{x.call.To, Result{Tag: x.call.Tag, Err: ErrStopped}})
		case *outgoing:
			if x.loan != nil {
				h.trouble(in.reports[i].g, x.loan.end())
			}
		}
	}
	for _, g := range h.groups {
		results = g.endAll(results, ErrStopped)
	}
	push(results)
}

// resendPause is after how long without an answer a forwarded proposal is sent
// again: an election time-out, since a leader that lives is heard from within it.
func (h *Host) resendPause() time.Duration { return h.opts.Election }
