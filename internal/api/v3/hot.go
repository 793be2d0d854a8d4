package v3

import (
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// The KV service without a goroutine per call (rules 30, 32): what kv.go does
// with generated messages and a goroutine that waits, these bodies do with the
// bytes of the wire, on the connection's reader and its writer. A request is
// decoded, checked and handed to the member; its answer is appended once the
// result is there. Reads that may be long leave the writer for the pool.

// registerHot serves the methods of the KV service that are called most.
func registerHot(to rpc.HotRegistrar, s *kv) {
	to.RegisterHot(pb.KV_Put_FullMethodName, hotPut{s})
	to.RegisterHot(pb.KV_DeleteRange_FullMethodName, hotDelete{s})
	to.RegisterHot(pb.KV_Range_FullMethodName, hotRange{s})
	to.RegisterHot(pb.KV_Txn_FullMethodName, hotTxn{s})
}

// inline are the limits of a read on a connection's writer: some ten
// microseconds. What is longer is begun again in the pool.
var inline = mvcc.AppendLimits{Rows: 64, Bytes: 64 << 10}

// admit makes the checks that come before a handler, once the message is read.
func (s *kv) admit(call *rpc.Call, unread error, learnerMay bool) error {
	if unread != nil {
		return unread
	}
	return Check(call, s.member, command.FirstVersion, learnerMay, false)
}

// hostCall names a call as the one to end.
func (s *kv) hostCall(call *rpc.Call) host.Call {
	return host.Call{To: call, Deadline: s.member.Deadline()}
}

// hotPut answers KV.Put.
type hotPut struct{ *kv }

// Begin is rpc.Hot's. The request goes into the command before the member
// returns; the call may have ended by then.
func (s hotPut) Begin(call *rpc.Call, message []byte) { s.begin(call, message, false) }

func (s hotPut) begin(call *rpc.Call, message []byte, caughtUp bool) {
	in := puts.Get().(*command.PutRequest)
	err := s.admit(call, readPut(message, in), false)
	as, later, err := s.hotSession(call, err, caughtUp)
	switch {
	case err != nil:
		call.Refuse(err)
	case later:
		s.catchUp(call, func() { s.begin(call, message, true) })
	default:
		as.Put(s.hostCall(call), in)
	}
	*in = command.PutRequest{}
	puts.Put(in)
}

// Answer is rpc.Hot's.
func (s hotPut) Answer(dst []byte, _ *rpc.Call, result host.Result) ([]byte, error) {
	if result.Err != nil {
		return dst, toWire(result.Err)
	}
	out := result.Response.(*command.PutResponse)
	return appendPutBody(appendHeader(dst, s.member.Header(), out.Revision), out), nil
}

// hotDelete answers KV.DeleteRange.
type hotDelete struct{ *kv }

// Begin is rpc.Hot's.
func (s hotDelete) Begin(call *rpc.Call, message []byte) { s.begin(call, message, false) }

func (s hotDelete) begin(call *rpc.Call, message []byte, caughtUp bool) {
	in := new(command.DeleteRangeRequest)
	err := s.admit(call, readDelete(message, in), false)
	as, later, err := s.hotSession(call, err, caughtUp)
	switch {
	case err != nil:
		call.Refuse(err)
	case later:
		s.catchUp(call, func() { s.begin(call, message, true) })
	default:
		as.DeleteRange(s.hostCall(call), in)
	}
}

// Answer is rpc.Hot's.
func (s hotDelete) Answer(dst []byte, _ *rpc.Call, result host.Result) ([]byte, error) {
	if result.Err != nil {
		return dst, toWire(result.Err)
	}
	out := result.Response.(*command.DeleteRangeResponse)
	return appendDeleteBody(appendHeader(dst, s.member.Header(), out.Revision), out), nil
}

// hotRange answers KV.Range.
type hotRange struct{ *kv }

// askedRange is a range and who asks for it.
type askedRange struct {
	command.RangeRequest
	as server.Session
}

// askedOf is the range that a call keeps, which is used again by later calls.
func askedOf(call *rpc.Call) *askedRange {
	in, _ := call.State.(*askedRange)
	if in == nil {
		in = new(askedRange)
		call.State = in
	}
	return in
}

// ask has a range answered once it may be read, or refuses it for err or for its
// caller. later: the caller can be judged only once this member has caught up.
func (s *kv) ask(call *rpc.Call, in *askedRange, err error, caughtUp bool) (later bool) {
	in.as, later, err = s.hotSession(call, err, caughtUp)
	switch {
	case err != nil:
		call.Refuse(err)
	case later:
	case in.Serializable:
		call.Push(host.Result{})
	default:
		s.member.Barrier(s.hostCall(call))
	}
	return later && err == nil
}

// Begin is rpc.Hot's.
func (s hotRange) Begin(call *rpc.Call, message []byte) { s.begin(call, message, false) }

func (s hotRange) begin(call *rpc.Call, message []byte, caughtUp bool) {
	in := askedOf(call)
	err := readRange(message, &in.RangeRequest)
	if err = s.admit(call, err, in.Serializable); err == nil {
		err = toWire(in.Validate())
	}
	if s.ask(call, in, err, caughtUp) {
		s.catchUp(call, func() { s.begin(call, message, true) })
	}
}

// Answer is rpc.Hot's.
func (s hotRange) Answer(dst []byte, call *rpc.Call, result host.Result) ([]byte, error) {
	in := call.State.(*askedRange)
	if result.Err != nil {
		*in = askedRange{}
		return dst, toWire(result.Err)
	}
	if !in.KeyOrder() || in.Limit > inline.Rows || !s.reads.tryEnter() {
		return dst, rpc.ErrElsewhere // to Source
	}
	out, err := s.read(dst, in)
	s.reads.leave()
	if errors.Is(err, mvcc.ErrLonger) {
		return dst, rpc.ErrElsewhere
	}
	*in = askedRange{}
	return out, toWire(err)
}

// read appends the answer to a range in key order; one that is long ends with
// mvcc.ErrLonger.
func (s *kv) read(dst []byte, in *askedRange) ([]byte, error) {
	head := s.member.Header()
	out, got, err := in.as.AppendRange(dst, &in.RangeRequest, inline, func(dst []byte, now id.Revision) []byte {
		return appendHeader(dst, head, now)
	})
	if err != nil {
		return dst, err
	}
	return appendRangeEnd(out, got.More, got.Count), nil
}
