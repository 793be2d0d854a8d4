package server

import (
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/auth"
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
func (s Session) Put(call host.Call, req *command.PutRequest) {
	s.propose(call, req.Validate(), len(req.Key)+len(req.Value), req)
}

// DeleteRange deletes keys. Errors: those of Validate, and the host's.
func (s Session) DeleteRange(call host.Call, req *command.DeleteRangeRequest) {
	s.propose(call, req.Validate(), len(req.Key)+len(req.End), req)
}

// Txn runs a transaction that may write. Errors: those of command.ValidateTxn,
// those of its operations, the host's.
func (s Session) Txn(call host.Call, req *command.TxnRequest) {
	s.propose(call, s.m.ValidateTxn(req), 1024, req)
}

// Compact drops history. Errors: command.ErrCompacted, command.ErrFutureRevision,
// the host's.
func (s Session) Compact(call host.Call, req *command.CompactRequest) {
	s.propose(call, nil, 0, req)
}

// ValidateTxn checks a txn's shape under this member's limits.
func (m *Member) ValidateTxn(req *command.TxnRequest) error {
	return command.ValidateTxn(req, m.opts.MaxTxnOps)
}

// headerBytes is a guess at what a command weighs besides its body, so that most
// are encoded into a buffer of the right size at once.
const headerBytes = 96

// proposeOwn proposes what the member itself has to say, which asks for nobody's rights.
func (m *Member) proposeOwn(call host.Call, body command.Body) {
	header := command.Header{Wall: m.opts.Clock.Wall().UnixNano()}
	m.opts.Group.Propose(call, command.Encode(make([]byte, 0, headerBytes), header, body))
}

// Barrier ends call once this member has applied all that was acknowledged
// anywhere before: a read after it is linearizable.
func (m *Member) Barrier(call host.Call) { m.opts.Group.ReadIndex(call) }

// Range reads keys from what this member has applied. Errors: those of Validate, of
// the judgement, command.ErrCompacted, command.ErrFutureRevision, *mvcc.DamageError.
func (s Session) Range(req *command.RangeRequest) (got *command.RangeResponse, err error) {
	err = s.read(func(c *auth.Check) error { return c.Range(req.Key, req.End) }, func(v *state.View) error {
		got, err = v.Range(req)
		return err
	})
	return got, err
}

// AppendRange is Range in the form of the wire, for requests in key order
// (state.View.AppendRange). Errors: as of Range, mvcc.ErrLonger beyond the limits.
func (s Session) AppendRange(dst []byte, req *command.RangeRequest, most mvcc.AppendLimits, head func([]byte, id.Revision) []byte) ([]byte, mvcc.Appended, error) {
	for start := len(dst); ; dst = dst[:start] {
		view := s.m.opts.State.View()
		if err := s.mayRange(view, req); err != nil {
			return dst, mvcc.Appended{}, err
		}
		out, got, err := view.AppendRange(dst, req, most, head)
		if s.m.opts.State.View().Auth() == view.Auth() {
			return out, got, err
		}
		dst = out
	}
}

// mayRange judges a range by a view.
func (s Session) mayRange(view *state.View, req *command.RangeRequest) error {
	if !view.Auth().Enabled() {
		return nil
	}
	check := view.Check(s.who)
	return check.Range(req.Key, req.End)
}

// ReadTxn runs a txn that only reads (command.TxnRequest.ReadOnly). Errors: as for Range.
func (s Session) ReadTxn(req *command.TxnRequest) (got *command.TxnResponse, err error) {
	err = s.read(func(c *auth.Check) error { return c.Txn(req) }, func(v *state.View) error {
		got, err = v.Txn(req)
		return err
	})
	return got, err
}
