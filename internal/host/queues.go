package host

import (
	"sync"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// The stages, in the order of One Put; they index Host.Stages.
const (
	stepStage = iota
	persistStage
	applyStage
	stages
)

// queue hands items from any number of producers to the one stage that owns it.
// Its lock is held for the time of an append or of a swap, never while working.
// The two slices change places, so that a busy queue allocates nothing.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	spare []T
}

func (q *queue[T]) push(item T) {
	q.mu.Lock()
	q.items = append(q.items, item)
	q.mu.Unlock()
}

// take returns all that is queued, in the order of arrival. The slice is the
// caller's until it is given back.
func (q *queue[T]) take() []T {
	q.mu.Lock()
	items := q.items
	if len(items) > 0 {
		q.items, q.spare = q.spare, nil
	}
	q.mu.Unlock()
	return items
}

// give returns the slice of the last take for use again.
func (q *queue[T]) give(items []T) {
	if cap(items) == 0 {
		return
	}
	items = recycle(items)
	q.mu.Lock()
	if q.spare == nil {
		q.spare = items
	}
	q.mu.Unlock()
}

// keptItems is the longest slice that is kept for use again: a burst must not
// stay in memory for ever.
const keptItems = 1 << 14

// recycle empties a slice, drops what its items point to, and keeps the array.
func recycle[T any](items []T) []T {
	if cap(items) > keptItems {
		return nil
	}
	clear(items)
	return items[:0]
}

// proposal is a command on its way to the stepper.
type proposal struct {
	g     *Group
	call  Call
	cmd   []byte
	class command.Class
	// term is what a duty was made for; a client's command has none yet.
	term id.Term
}

// question is a read on its way to the stepper.
type question struct {
	g    *Group
	call Call
}

// report is what another stage, a task or a caller tells the stepper. Exactly one
// of the functions of step.go that take a report looks at each kind.
type report struct {
	kind reportKind
	g    *Group
	// number is that of an Output; index an applied index; member whom it is about.
	number uint64
	index  id.Index
	base   raft.Position
	member id.Member
	more   any
}

type reportKind uint8

const (
	// Output number, and all before it, is on stable storage.
	reportPersisted reportKind = iota + 1
	// The state has applied up to index.
	reportApplied
	// The log begins after base now.
	reportTrimmed
	// more is a *loadedEntries.
	reportLoaded
	// The connections to member are lost.
	reportUnreachable
	// more is the *outgoing that a state was frozen for, the *readChunk of one, the
	// *addedChunk of an incoming one.
	reportFrozen
	reportRead
	reportAdded
	// more is a *confCall.
	reportChange
	// There is something to look at: proposals that wait again, or an input that
	// went into the node outside of a turn.
	reportLook
)

// loadedEntries answers a raft.Load.
type loadedEntries struct {
	load    raft.Load
	entries []raft.Entry
}

// input is all that the stepper takes in one turn.
type input struct {
	proposals []proposal
	questions []question
	envelopes []Envelope
	reports   []report
}

// inbox is the stepper's queue: one lock and one swap for every kind of input.
type inbox struct {
	mu        sync.Mutex
	in, spare input
	// waiting are the bytes of the envelopes in it, at most limit.
	waiting, limit int
	// knocked: somebody outside of the stages has put something in, and wakes the
	// stepper; whoever comes before it has taken need not.
	knocked bool
	// closed: the host has stopped, calls are refused.
	closed bool
	// dropped counts envelopes that found the inbox full.
	dropped atomic.Uint64
}

// propose queues a proposal unless the host has stopped. first says that the
// stepper is to be woken.
func (b *inbox) propose(p *proposal) (first, taken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, false
	}
	b.in.proposals = append(b.in.proposals, *p)
	return b.knock(), true
}

// ask queues a read unless the host has stopped.
func (b *inbox) ask(q question) (first, taken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, false
	}
	b.in.questions = append(b.in.questions, q)
	return b.knock(), true
}

// knock says whether the caller is the first since the last take.
func (b *inbox) knock() (first bool) {
	first = !b.knocked
	b.knocked = true
	return first
}

// report queues a report; the host's own are never refused.
func (b *inbox) report(r report) {
	b.mu.Lock()
	b.in.reports = append(b.in.reports, r)
	b.mu.Unlock()
}

// change queues the report of a call unless the host has stopped.
func (b *inbox) change(r report) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.in.reports = append(b.in.reports, r)
	return true
}

// deliver queues envelopes; those that do not fit are lost, as a network loses
// them. One always fits.
func (b *inbox) deliver(envelopes []Envelope) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range envelopes {
		weight := envelopes[i].weight()
		if b.waiting > 0 && b.waiting+weight > b.limit || b.closed {
			b.dropped.Add(1)
			continue
		}
		b.waiting += weight
		b.in.envelopes = append(b.in.envelopes, envelopes[i])
	}
	return b.knock()
}

func (b *inbox) take() input {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := b.in
	b.in, b.spare = b.spare, input{}
	b.waiting, b.knocked = 0, false
	return in
}

func (b *inbox) give(in input) {
	in.proposals = recycle(in.proposals)
	in.questions = recycle(in.questions)
	in.envelopes = recycle(in.envelopes)
	in.reports = recycle(in.reports)
	b.mu.Lock()
	b.spare = in
	b.mu.Unlock()
}

// close refuses calls from now on and returns those that nobody took yet.
func (b *inbox) close() input {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	in := b.in
	b.in, b.waiting = input{}, 0
	return in
}

// envelopeWeight is what an envelope costs besides the bytes that it carries,
// entryWeight what an entry or a command does.
const (
	envelopeWeight = 128
	entryWeight    = 48
)

// weight is about what an envelope takes in memory.
func (e *Envelope) weight() int {
	w := envelopeWeight
	switch {
	case e.Raft != nil:
		if a, ok := e.Raft.Body.(*raft.Append); ok {
			w += weightOf(a.Entries)
		}
	case e.Forward != nil:
		for _, cmd := range e.Forward.Commands {
			w += entryWeight + len(cmd)
		}
	case e.Snapshot != nil:
		w += len(e.Snapshot.Bytes)
	}
	return w
}

func weightOf(entries []raft.Entry) int {
	w := 0
	for i := range entries {
		w += entryWeight + len(entries[i].Data)
	}
	return w
}
