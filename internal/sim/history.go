package sim

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/linear"
)

// history is every call that was made, and what clients have been told.
type history struct {
	position int64
	names    []string
	calls    []linear.Operation
	// revision is the highest revision, compacted the highest compaction, that any
	// answer has told.
	revision, compacted id.Revision
}

// tick gives the next position in the one order of calls and returns.
func (h *history) tick() int64 {
	h.position++
	return h.position
}

func (h *history) add(name string, op linear.Operation) {
	h.names = append(h.names, name)
	h.calls = append(h.calls, op)
}

// learn takes note of what an answer tells.
func (h *history) learn(request, response any) {
	var told id.Revision
	switch r := response.(type) {
	case *command.PutResponse:
		told = r.Revision
	case *command.DeleteRangeResponse:
		told = r.Revision
	case *command.TxnResponse:
		told = r.Revision
	case *command.RangeResponse:
		told = r.Revision
	case *command.LeaseGrantResponse:
		told = r.Revision
	case *command.LeaseRevokeResponse:
		told = r.Revision
	case *command.CompactResponse:
		told = r.Revision
		h.compacted = max(h.compacted, request.(*command.CompactRequest).Revision)
	}
	h.revision = max(h.revision, told)
}

// resolved is the history with the fate of every unknown write learnt from the
// ledger: it is there with its answer, or it never happened and is left out. What
// no client has a name for, the ends of leases and the calls of people, is added.
func (h *history) resolved(l *ledger) []linear.Operation {
	var all []linear.Operation
	for i, op := range h.calls {
		if op.Unknown {
			c, place := l.find(h.names[i])
			if place == 0 || nothingDone(c.err) {
				continue
			}
			op.Unknown, op.Response, op.Err, op.Place = false, c.response, c.err, place
			op.Return = linear.Forever
		}
		all = append(all, op)
	}
	for i, c := range l.commands {
		if body, ok := c.request.(command.Body); ok && c.name == "" && isKV(body) && !nothingDone(c.err) {
			place := int64(i) + 1
			all = append(all, linear.Operation{
				Client: -1, Call: -place, Return: linear.Forever, Place: place, Request: c.request, Response: c.response, Err: c.err,
			})
		}
	}
	return all
}
