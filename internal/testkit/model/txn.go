package model

import (
	"bytes"
	"cmp"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Txn runs a transaction (spec 2.5): choose the branches, check what they need,
// then run their operations in order.
func (s *Store) Txn(r *command.TxnRequest) (*command.TxnResponse, error) {
	path := s.choose(r)
	if err := s.checkBranch(path); err != nil {
		return nil, err
	}
	begin := s.revision
	response := s.run(path, begin)
	if s.changedSince(begin) {
		s.revision = begin + 1
	}
	response.Revision = s.revision
	return response, nil
}

// branch is the side of a txn that is taken, and in nested the same of each
// operation of it that is a txn itself.
type branch struct {
	succeeded bool
	ops       []command.Op
	nested    map[int]branch
}

// choose judges every compare, those of nested txns too, by the state before the
// txn.
func (s *Store) choose(r *command.TxnRequest) branch {
	taken := branch{succeeded: true, ops: r.Success, nested: map[int]branch{}}
	for _, c := range r.Compares {
		if !s.holds(c) {
			taken.succeeded, taken.ops = false, r.Failure
		}
	}
	for i, op := range taken.ops {
		if op.Txn != nil {
			taken.nested[i] = s.choose(op.Txn)
		}
	}
	return taken
}

// holds judges one compare: every key of its range must satisfy it.
func (s *Store) holds(c command.Compare) bool {
	kvs := s.live(c.Key, c.End, s.revision)
	if len(kvs) == 0 {
		if c.Target == command.CompareValue {
			return false
		}
		kvs = []command.KeyValue{{}} // an absent key compares as zero
	}
	for _, kv := range kvs {
		if !satisfies(c, kv) {
			return false
		}
	}
	return true
}

// satisfies compares one key; an unknown target counts as equal, an unknown
// result as true.
func satisfies(c command.Compare, kv command.KeyValue) bool {
	difference := 0
	switch c.Target {
	case command.CompareVersion:
		difference = cmp.Compare(kv.Version, c.Number)
	case command.CompareCreate:
		difference = cmp.Compare(int64(kv.CreateRevision), c.Number)
	case command.CompareMod:
		difference = cmp.Compare(int64(kv.ModRevision), c.Number)
	case command.CompareLease:
		difference = cmp.Compare(int64(kv.Lease), c.Number)
	case command.CompareValue:
		difference = bytes.Compare(kv.Value, c.Value)
	}
	switch c.Result {
	case command.Equal:
		return difference == 0
	case command.Greater:
		return difference > 0
	case command.Less:
		return difference < 0
	case command.NotEqual:
		return difference != 0
	}
	return true
}

// checkBranch checks the taken operations against the state before the txn, so
// that nothing can fail once the first of them has written.
func (s *Store) checkBranch(b branch) error {
	for i, op := range b.ops {
		var err error
		switch {
		case op.Range != nil:
			err = s.checkRangeInTxn(op.Range)
		case op.Put != nil:
			err = s.checkPutInTxn(op.Put)
		case op.Txn != nil:
			err = s.checkBranch(b.nested[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRangeInTxn differs from Range by a quirk: only 0 means the latest, a
// negative revision is held against the compact revision.
func (s *Store) checkRangeInTxn(r *command.RangeRequest) error {
	if r.Revision == 0 {
		return nil
	}
	if r.Revision > s.revision {
		return command.ErrFutureRevision
	}
	if r.Revision < s.compacted {
		return command.ErrCompacted
	}
	return nil
}

// run runs the operations of a branch; every change gets revision begin+1.
func (s *Store) run(b branch, begin id.Revision) *command.TxnResponse {
	response := &command.TxnResponse{Succeeded: b.succeeded}
	for i, op := range b.ops {
		var answer command.OpResponse
		switch {
		case op.Range != nil:
			answer.Range = s.rangeAt(op.Range, s.inside(begin))
		case op.Put != nil:
			answer.Put = s.put(op.Put, begin+1)
		case op.Delete != nil:
			answer.Delete = s.delete(op.Delete, begin+1)
			answer.Delete.Revision = s.inside(begin)
		case op.Txn != nil:
			answer.Txn = s.run(b.nested[i], begin)
		}
		response.Responses = append(response.Responses, answer)
	}
	return response
}

// inside is the revision that an operation inside a txn sees: begin, or one more
// once the txn has changed something.
func (s *Store) inside(begin id.Revision) id.Revision {
	if s.changedSince(begin) {
		return begin + 1
	}
	return begin
}

// changedSince says whether anything was written after a revision.
func (s *Store) changedSince(begin id.Revision) bool {
	return len(s.versions) > 0 && s.versions[len(s.versions)-1].ModRevision > begin
}
