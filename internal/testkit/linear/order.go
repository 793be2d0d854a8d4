// Package linear judges histories of calls to the key-value store: is there one
// order of all calls, agreeing with the real time of calls and returns, in which
// the oracle (testkit/model) gives every answer that was seen?
//
// There are two judges. CheckOrder is told the order of the writes, as a log or
// their revisions give it, and verifies it: cheap, for every kind of request.
// CheckKeys is told nothing and searches an order for each key by itself, with
// porcupine: a black box that trusts neither log nor revisions.
package linear

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// Forever is the Return of a call that was never answered.
const Forever = math.MaxInt64

// Operation is one call of a history.
type Operation struct {
	// Client makes one call at a time.
	Client int
	// Call and Return are positions in one order of all calls and returns.
	Call, Return int64
	// Request is one of package command's; Response and Err are the answer.
	Request, Response any
	Err               error
	// Unknown says that the call ended without a sure answer and that nobody knows
	// what became of it: Response and Err mean nothing. A call whose fate was
	// learnt from the log is not unknown: it has that answer and returns Forever.
	Unknown bool
	// Place orders what went through the log; 0 is a read that did not.
	Place int64
}

// String tells the call on one line.
func (o Operation) String() string {
	answer := model.Text(o.Response)
	if o.Err != nil {
		answer = model.Text(o.Err)
	}
	if o.Unknown {
		answer = "?"
	}
	when := fmt.Sprintf("%d..%d", o.Call, o.Return)
	if o.Return == Forever {
		when = fmt.Sprintf("%d..", o.Call)
	}
	return fmt.Sprintf("client %d [%s] %s -> %s", o.Client, when, model.Text(o.Request), answer)
}

// span are the places at which the state was what an operation saw: (low, high].
// A write sees and makes one place only.
type span struct{ low, high int64 }

// CheckOrder replays the placed operations in the order of their places into an
// empty store; each must be answered as the oracle answers, each read as the
// oracle answers at the revision of its header; and the order must agree with
// real time. It returns the oracle after the last operation. Unknown operations
// without a place are held not to have happened.
func CheckOrder(history []Operation) (*model.Store, error) {
	placed, reads, err := split(history)
	if err != nil {
		return nil, err
	}
	store := model.New()
	spans := make(map[int64]span, len(history)) // by Call
	firsts := map[id.Revision]int64{1: 0}       // the place at which a revision began
	for _, op := range placed {
		response, refusal := store.Apply(op.Request)
		if err := sameAnswer(op, response, refusal); err != nil {
			return store, err
		}
		if _, known := firsts[store.Revision()]; !known {
			firsts[store.Revision()] = op.Place
		}
		spans[op.Call] = span{op.Place - 1, op.Place}
	}
	for _, op := range reads {
		s, err := checkRead(store, op, firsts)
		if err != nil {
			return store, err
		}
		spans[op.Call] = s
	}
	return store, checkRealTime(slices.Concat(placed, reads), spans)
}

// split sorts the operations into those of the log, in order, and the answered
// reads.
func split(history []Operation) (placed, reads []Operation, err error) {
	for _, op := range history {
		_, isRange := op.Request.(*command.RangeRequest)
		switch {
		case op.Place != 0:
			placed = append(placed, op)
		case op.Unknown || isRange && op.Err != nil:
		case isRange:
			reads = append(reads, op)
		default:
			return nil, nil, fmt.Errorf("answered, but nowhere in the log: %v", op)
		}
	}
	sort.SliceStable(placed, func(i, j int) bool { return placed[i].Place < placed[j].Place })
	for i := 1; i < len(placed); i++ {
		if placed[i-1].Place == placed[i].Place {
			return nil, nil, fmt.Errorf("two operations in one place:\n\t%v\n\t%v", placed[i-1], placed[i])
		}
	}
	return placed, reads, nil
}

func sameAnswer(op Operation, response any, refusal error) error {
	if op.Unknown {
		return nil
	}
	got, want := model.Text(op.Response), model.Text(response)
	if op.Err != nil {
		got = model.Text(op.Err)
	}
	if refusal != nil {
		want = model.Text(refusal)
	}
	if got != want {
		return fmt.Errorf("wrong answer: %v\n\tthe model says: %s", op, want)
	}
	return nil
}

// checkRead compares a read with the store at the revision of its header.
func checkRead(final *model.Store, op Operation, firsts map[id.Revision]int64) (span, error) {
	got := op.Response.(*command.RangeResponse)
	first, known := firsts[got.Revision]
	if !known {
		return span{}, fmt.Errorf("a read of a revision that never was: %v", op)
	}
	want, err := final.At(got.Revision).Range(op.Request.(*command.RangeRequest))
	if err := sameAnswer(op, want, err); err != nil {
		return span{}, err
	}
	next, known := firsts[got.Revision+1]
	if !known {
		next = Forever
	}
	return span{first - 1, next - 1}, nil
}

// checkRealTime verifies that nothing sees less than what had returned before it
// was called. Serializable reads may be stale, so they are not judged, but what
// they saw had happened: they count as witnesses.
func checkRealTime(ops []Operation, spans map[int64]span) error {
	calls := slices.Clone(ops)
	sort.Slice(calls, func(i, j int) bool { return calls[i].Call < calls[j].Call })
	returns := slices.Clone(ops)
	sort.Slice(returns, func(i, j int) bool { return returns[i].Return < returns[j].Return })
	seen, witness, next := int64(0), Operation{}, 0
	for _, op := range calls {
		for ; next < len(returns) && returns[next].Return < op.Call; next++ {
			if place := spans[returns[next].Call].low + 1; place > seen {
				seen, witness = place, returns[next]
			}
		}
		s := spans[op.Call]
		r, isRange := op.Request.(*command.RangeRequest)
		isRead := isRange && op.Place == 0
		switch {
		case isRead && r.Serializable:
		case isRead && s.high < seen, !isRead && s.high <= seen:
			return fmt.Errorf("stale: %v\n\tplace %d, though place %d had been seen by\n\t%v", op, s.high, seen, witness)
		}
	}
	return nil
}
