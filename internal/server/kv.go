package server

import (
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// The key-value service. Put, DeleteRange, Txn and Compact return at once; what
// came of them goes to the Completions that the call names. A refusal before
// anything is proposed is pushed there too, so that every call ends in one place.
//
// Reads take two steps: Barrier, unless the reader asked for a serializable
// answer, and then Range or ReadTxn on the view of that moment.

// Put writes a key. Errors: those of PutRequest.Validate, host.ErrTooLarge, the
// host's, command.ErrLeaseNotFound, command.ErrKeyNotFound.
func (m *Member) Put(call host.Call, req *command.PutRequest) {
	m.propose(call, req.Validate(), len(req.Key)+len(req.Value), req)
}

// DeleteRange deletes keys. Errors: those of Validate, and the host's.
func (m *Member) DeleteRange(call host.Call, req *command.DeleteRangeRequest) {
	m.propose(call, req.Validate(), len(req.Key)+len(req.End), req)
}

// Txn runs a transaction that may write. Errors: those of command.ValidateTxn,
// those of its operations, the host's.
func (m *Member) Txn(call host.Call, req *command.TxnRequest) {
	m.propose(call, m.ValidateTxn(req), 1024, req)
}

// Compact drops history. Errors: command.ErrCompacted, command.ErrFutureRevision,
// the host's.
func (m *Member) Compact(call host.Call, req *command.CompactRequest) {
	m.propose(call, nil, 0, req)
}

// ValidateTxn checks a txn's shape under this member's limits.
func (m *Member) ValidateTxn(req *command.TxnRequest) error {
	return command.ValidateTxn(req, m.opts.MaxTxnOps)
}

// headerBytes is a guess at what a command weighs besides its body, so that most
// are encoded into a buffer of the right size at once.
const headerBytes = 96

// propose encodes a command that passed its checks and hands it to the group.
func (m *Member) propose(call host.Call, invalid error, size int, body command.Body) {
	if invalid == nil && size > m.opts.MaxRequestBytes {
		invalid = host.ErrTooLarge
	}
	if invalid != nil {
		call.To.Push(host.Result{Tag: call.Tag, Err: invalid})
		return
	}
	header := command.Header{Wall: m.opts.Clock.Wall().UnixNano()}
	cmd := command.Encode(make([]byte, 0, headerBytes+size), header, body)
	if len(cmd) > m.opts.MaxRequestBytes {
		call.To.Push(host.Result{Tag: call.Tag, Err: host.ErrTooLarge})
		return
	}
	m.opts.Group.Propose(call, cmd)
}

// Barrier ends call once this member has applied all that was acknowledged
// anywhere before: a read after it is linearizable.
func (m *Member) Barrier(call host.Call) { m.opts.Group.ReadIndex(call) }

// Range reads keys from what this member has applied. Errors: those of Validate,
// command.ErrCompacted, command.ErrFutureRevision, *mvcc.DamageError.
func (m *Member) Range(req *command.RangeRequest) (*command.RangeResponse, error) {
	return m.opts.State.View().Range(req)
}

// AppendRange is Range in the form of the wire, for requests in key order
// (state.View.AppendRange). Errors: as of Range, mvcc.ErrLonger beyond the limits.
func (m *Member) AppendRange(dst []byte, req *command.RangeRequest, most mvcc.AppendLimits, head func([]byte, id.Revision) []byte) ([]byte, mvcc.Appended, error) {
	return m.opts.State.View().AppendRange(dst, req, most, head)
}

// ReadTxn runs a txn that only reads (command.TxnRequest.ReadOnly). Errors: as for Range.
func (m *Member) ReadTxn(req *command.TxnRequest) (*command.TxnResponse, error) {
	return m.opts.State.View().Txn(req)
}
