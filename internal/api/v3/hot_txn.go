package v3

import (
	"sync"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// hotTxn answers KV.Txn. One that may write goes through the log, and its request
// is not needed any more then; one that only reads waits for its turn to read.
type hotTxn struct{ *kv }

// heldTxn is a request with the memory of its parts.
type heldTxn struct {
	command.TxnRequest
	parts txnParts
	as    server.Session
}

var (
	heldTxns = sync.Pool{New: func() any { return new(heldTxn) }}
	puts     = sync.Pool{New: func() any { return new(command.PutRequest) }}
)

// release gives the memory back: the txn must no longer be in use.
func (t *heldTxn) release() {
	t.TxnRequest, t.as = command.TxnRequest{}, server.Session{}
	t.parts.empty()
	heldTxns.Put(t)
}

// Begin is rpc.Hot's.
func (s hotTxn) Begin(call *rpc.Call, message []byte) { s.begin(call, message, false) }

func (s hotTxn) begin(call *rpc.Call, message []byte, caughtUp bool) {
	in := heldTxns.Get().(*heldTxn)
	err := s.admit(call, readTxn(message, &in.TxnRequest, &in.parts), false)
	if err == nil && (in.ReadOnly() || s.member.AuthEnabled()) { // who proposes it does so too
		err = toWire(s.member.ValidateTxn(&in.TxnRequest))
	}
	as, later, err := s.hotSession(call, err, caughtUp)
	switch {
	case err != nil:
		in.release()
		call.Refuse(err)
		return
	case later:
		in.release()
		s.catchUp(call, func() { s.begin(call, message, true) })
		return
	case !in.ReadOnly():
		as.Txn(s.hostCall(call), &in.TxnRequest)
		in.release()
		return
	}
	in.as = as
	call.State = in
	if in.Serializable() {
		call.Push(host.Result{})
	} else {
		s.member.Barrier(s.hostCall(call))
	}
}

// Answer is rpc.Hot's.
func (s hotTxn) Answer(dst []byte, call *rpc.Call, result host.Result) ([]byte, error) {
	if result.Err != nil {
		call.State = nil
		return dst, toWire(result.Err)
	}
	out, wrote := result.Response.(*command.TxnResponse)
	if !wrote {
		in := call.State.(*heldTxn)
		if !in.short() || !s.reads.tryEnter() {
			return dst, rpc.ErrElsewhere
		}
		var err error
		out, err = in.as.ReadTxn(&in.TxnRequest)
		s.reads.leave()
		call.State = nil
		in.release()
		if err != nil {
			return dst, toWire(err)
		}
	}
	return appendTxnBody(appendHeader(dst, s.member.Header(), out.Revision), out), nil
}

// shortTxn is how many keys a txn may read on a connection's writer.
const shortTxn = 8

// short says whether a txn that only reads asks for a few single keys.
func (t *heldTxn) short() bool {
	if len(t.Compares)+max(len(t.Success), len(t.Failure)) > shortTxn {
		return false
	}
	for i := range t.Compares {
		if len(t.Compares[i].End) > 0 {
			return false
		}
	}
	for _, ops := range [...][]command.Op{t.Success, t.Failure} {
		for i := range ops {
			if len(ops[i].Range.End) > 0 {
				return false
			}
		}
	}
	return true
}
