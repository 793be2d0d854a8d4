package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// Questions are calls that are answered by one member's state: plain ranges, and
// those of this file. They are judged when they are answered; of the questions
// only plain ranges are in the history that is searched for an order.
//
//	streams      ranges in pieces, the world going on between two of them
//	looks        txns that only read
//	hashes       HashKV, held against the oracle's
//	removals     physical compactions: ended when the member has removed all

// hashRequest asks a member for HashKV.
type hashRequest struct{ revision id.Revision }

// pieceBytes is the size of request that the pieces of a stream go by.
const pieceBytes = 64

// removalPatience is how long a member may take to remove what a compaction
// freed, its outages not counted.
const removalPatience = 20 * time.Second

// vary makes another kind of question of a drawn request now and then.
func (c *client) vary(d draft) draft {
	switch request := d.request.(type) {
	case *command.RangeRequest:
		switch {
		case c.other.OneIn(25):
			d.request = &hashRequest{revision: request.Revision}
		case request.ValidateStream() == nil && request.Target == command.SortByKey && c.other.OneIn(5):
			d.stream = true
		}
	case *command.CompactRequest:
		if !d.duty && c.other.OneIn(2) {
			request.Physical = true
		}
	}
	return d
}

// local says whether a question is answered without asking the group.
func local(request any) bool {
	switch request := request.(type) {
	case *command.RangeRequest:
		return request.Serializable
	case *command.TxnRequest:
		return request.Serializable()
	}
	_, isHash := request.(*hashRequest)
	return isHash
}

// isQuestion says whether a call is answered by a look at the state.
func isQuestion(request any) bool {
	switch request := request.(type) {
	case *command.RangeRequest, *hashRequest:
		return true
	case *command.TxnRequest:
		return request.ReadOnly()
	}
	return false
}

// searched says whether the call is part of the history that is searched for an
// order: every write, and plain ranges.
func (d draft) searched() bool {
	_, isRange := d.request.(*command.RangeRequest)
	return isRange && !d.stream || !isQuestion(d.request)
}

// ask puts the question of a call to the member; done is false if there is more
// to come later.
func (c *client) ask(call *call) (response any, done bool, err error) {
	member := call.replica.services
	as := member.As(c.w.master())
	switch request := call.draft.request.(type) {
	case *command.RangeRequest:
		if call.draft.stream {
			return c.askStream(call, request)
		}
		response, err = untyped(as.Range(request))
	case *command.TxnRequest:
		response, err = untyped(as.ReadTxn(request))
	case *hashRequest:
		var h mvcc.KVHash
		h, err = member.HashKV(request.revision, func() error { return nil })
		response = h
	case *command.CompactRequest:
		_, removed := member.Removal()
		call.lookAt = c.w.env.Now().Add(5 * time.Millisecond)
		return call.result.Response, removed >= request.Revision, nil
	}
	return response, true, err
}

// askStream takes the next piece.
func (c *client) askStream(call *call, request *command.RangeRequest) (any, bool, error) {
	if call.stream == nil {
		call.stream, call.got = call.replica.services.As(c.w.master()).RangeStream(request), &command.RangeResponse{}
	}
	piece, last, err := call.stream.Next()
	if err != nil {
		return nil, true, err
	}
	if len(call.got.KVs) > 0 {
		c.w.trace.mark(markPieces)
	}
	call.got.KVs = append(call.got.KVs, piece.KVs...)
	call.got.Revision, call.got.More, call.got.Count = piece.Revision, piece.More, piece.Count
	if !last {
		call.lookAt = c.w.env.Now().Add(time.Duration(c.other.Int64N(int64(10 * time.Millisecond))))
	}
	return call.got, last, nil
}

func untyped[R any](response *R, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return response, nil
}

// judgeQuestion holds what a question was answered with against the oracle. A
// lost one (err is no refusal) has no answer to judge.
func (w *world) judgeQuestion(call *call, response any, err error) error {
	switch request := call.draft.request.(type) {
	case *command.RangeRequest:
		if call.draft.stream && errors.Is(err, command.ErrCompacted) && w.ledger.oracle.Compacted() > 0 {
			return nil // whatever revision the first piece has pinned
		}
		return w.judgeRead(call, request, response, err)
	case *command.TxnRequest:
		return w.judgeLook(call, request, response, err)
	case *hashRequest:
		return w.judgeHash(call, request, response, err)
	}
	return fmt.Errorf("%s is no question", call.name)
}

// judgeLook judges a txn that only reads.
func (w *world) judgeLook(call *call, request *command.TxnRequest, response any, err error) error {
	oracle := w.ledger.oracle
	revisions := func(wrong func(id.Revision) bool) bool {
		for _, op := range append(request.Success[:len(request.Success):len(request.Success)], request.Failure...) {
			if op.Range.Revision != 0 && wrong(op.Range.Revision) {
				return true
			}
		}
		return false
	}
	switch {
	case errors.Is(err, command.ErrCompacted) && revisions(func(r id.Revision) bool { return r < oracle.Compacted() }):
		return nil
	case errors.Is(err, command.ErrFutureRevision) &&
		revisions(func(r id.Revision) bool { return request.Serializable() || r > call.mustSee }):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %s\n\trefused with %w", call.name, model.Text(request), err)
	}
	got := response.(*command.TxnResponse)
	if got.Revision > oracle.Revision() || !request.Serializable() && got.Revision < call.mustSee {
		return fmt.Errorf("%s: read at revision %d, must see %d, %d is the last", call.name, got.Revision, call.mustSee, oracle.Revision())
	}
	want, err := oracle.At(got.Revision).Txn(request)
	if a, b := model.Text(got), answerText(want, err); a != b {
		return fmt.Errorf("%s: %s\n\tread      %s\n\tthe model %s", call.name, model.Text(request), a, b)
	}
	return nil
}

// judgeHash judges a HashKV.
func (w *world) judgeHash(call *call, request *hashRequest, response any, err error) error {
	oracle := w.ledger.oracle
	switch {
	case errors.Is(err, command.ErrCompacted) && request.revision > 0 && request.revision < oracle.Compacted(),
		errors.Is(err, command.ErrFutureRevision) && request.revision > 0:
		return nil
	case err != nil:
		return fmt.Errorf("%s: hash at %d: %w", call.name, request.revision, err)
	}
	got := response.(mvcc.KVHash)
	if got.Now > oracle.Revision() || got.Compacted > oracle.Compacted() {
		return fmt.Errorf("%s: hash %+v, though the group is at %d, compacted at %d", call.name, got, oracle.Revision(), oracle.Compacted())
	}
	if want := oracle.HashKV(got.At, got.Compacted); got.Sum != want {
		return fmt.Errorf("%s: hash %+v, the model %08x", call.name, got, want)
	}
	w.trace.mark(markHash)
	return nil
}
