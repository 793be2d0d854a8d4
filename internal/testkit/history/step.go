// Package history plays random histories of the key-value service against a
// server and holds every answer, message or refusal, against the oracle's: the
// whole path as a client sees it, protobuf in and protobuf out.
//
// A history is a list of steps that one seed draws: calls and restarts. One
// server runs many histories; each begins with a deletion of everything and a
// compaction, and the numbers that its steps hold are shifted to where the
// server's revision is. What fails is made smaller by leaving steps out and
// playing the rest again.
package history

import (
	"fmt"
	"math"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// Restart is a way for a server's run to end and the next to begin.
type Restart uint8

// The ways; Stay is none.
const (
	Stay Restart = iota
	// Clean is a stop that is asked for.
	Clean
	// Kill ends the process: what it has written stays.
	Kill
	// PowerLoss takes what was not synced too.
	PowerLoss
)

func (r Restart) String() string {
	return [...]string{"goes on", "is stopped and started", "is killed and started", "loses power and is started"}[r]
}

// Step is one call, or one restart between two calls.
type Step struct {
	// Request is a command.*Request whose revisions are those of a history that
	// began at revision 1; nil in a step that is a restart only.
	Request any
	// Stream asks for a range in pieces.
	Stream bool
	// Form seeds what the message looks like where the request leaves it open.
	Form uint64
	// Restart happens instead of a call, or during it: after so many operations
	// of the disk.
	Restart Restart
	After   int
}

func (s Step) String() string {
	if s.Request == nil {
		return "the server " + s.Restart.String()
	}
	text := model.Text(s.Request)
	if s.Stream {
		text += " in pieces"
	}
	if c, ok := s.Request.(*command.CompactRequest); ok && c.Physical {
		text += " physical"
	}
	if s.Restart != Stay {
		text += fmt.Sprintf(" (after %d operations of the disk it %v)", s.After, s.Restart)
	}
	return text
}

// shift moves the revisions of a request by as much as a history begins later
// than at 1. What is no revision of the history (0, negative, far outside) stays.
func shift(request any, by id.Revision) any {
	if by == 0 {
		return request
	}
	switch r := request.(type) {
	case *command.RangeRequest:
		q := *r
		for _, rev := range []*id.Revision{
			&q.Revision, &q.MinModRevision, &q.MaxModRevision, &q.MinCreateRevision, &q.MaxCreateRevision,
		} {
			*rev = shifted(*rev, by)
		}
		return &q
	case *command.CompactRequest:
		return &command.CompactRequest{Revision: shifted(r.Revision, by), Physical: r.Physical}
	case *command.TxnRequest:
		t := &command.TxnRequest{
			Compares: slices.Clone(r.Compares), Success: shiftOps(r.Success, by), Failure: shiftOps(r.Failure, by),
		}
		for i := range t.Compares {
			if c := &t.Compares[i]; c.Target == command.CompareCreate || c.Target == command.CompareMod {
				c.Number = int64(shifted(id.Revision(c.Number), by))
			}
		}
		return t
	}
	return request
}

func shiftOps(ops []command.Op, by id.Revision) []command.Op {
	out := slices.Clone(ops)
	for i := range out {
		switch op := &out[i]; {
		case op.Range != nil:
			op.Range = shift(op.Range, by).(*command.RangeRequest)
		case op.Txn != nil:
			op.Txn = shift(op.Txn, by).(*command.TxnRequest)
		}
	}
	return out
}

func shifted(rev, by id.Revision) id.Revision {
	if rev <= 0 || rev > math.MaxInt32 {
		return rev
	}
	return rev + by
}
