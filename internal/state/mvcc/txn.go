package mvcc

import (
	"bytes"
	"cmp"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Txn runs a transaction (spec 2.5). All compares on the path taken are judged by
// the state before it, then everything that could refuse an operation is
// checked, then the operations run and can no longer fail. Errors:
// command.ErrLeaseNotFound, ErrKeyNotFound, ErrFutureRevision, ErrCompacted;
// *DamageError.
func (s *Store) Txn(r *command.TxnRequest) (*command.TxnResponse, error) {
	var path []bool
	if err := choose(s, r, latest, &path); err != nil {
		return nil, err
	}
	rest := path
	if err := s.checkOps(r, &rest); err != nil {
		return nil, err
	}
	rest = path
	resp, err := s.run(r, &rest)
	if err != nil {
		return nil, err
	}
	resp.Revision = s.settle()
	s.done.Txns.Add(1)
	return resp, nil
}

// choose appends the outcome of the txn's compares to path, then those of the
// txns nested in the branch taken, in order.
func choose(from reads, r *command.TxnRequest, rev id.Revision, path *[]bool) error {
	succeeded := true
	for i := range r.Compares {
		ok, err := holds(from, &r.Compares[i], rev)
		if err != nil {
			return err
		}
		if !ok {
			succeeded = false
			break
		}
	}
	*path = append(*path, succeeded)
	for i := range branch(r, succeeded) {
		if nested := branch(r, succeeded)[i].Txn; nested != nil {
			if err := choose(from, nested, rev, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func branch(r *command.TxnRequest, succeeded bool) []command.Op {
	if succeeded {
		return r.Success
	}
	return r.Failure
}

// step takes the next outcome off a path.
func step(path *[]bool) bool {
	succeeded := (*path)[0]
	*path = (*path)[1:]
	return succeeded
}

// holds judges one compare: every key of its range must satisfy it. No key at
// all is compared as zeroes, but fails a compare of values.
func holds(from reads, c *command.Compare, rev id.Revision) (bool, error) {
	if len(c.End) == 0 && c.Target != command.CompareValue {
		t, ok, err := from.newest(c.Key)
		if err != nil {
			return false, err
		}
		if !ok {
			t = tip{}
		}
		v := t.version()
		return satisfies(c, &v), nil
	}
	sc, err := from.scan(c.Key, c.End, rev)
	if err != nil {
		return false, err
	}
	defer sc.close()
	for any := false; ; any = true {
		_, v, err := sc.next()
		switch {
		case err != nil:
			return false, err
		case v != nil:
			if !satisfies(c, v) {
				return false, nil
			}
		case any:
			return true, nil
		default:
			return c.Target != command.CompareValue && satisfies(c, &version{}), nil
		}
	}
}

// satisfies compares one version; an unknown target counts as equal, an unknown
// result as true (spec 2.5).
func satisfies(c *command.Compare, v *version) bool {
	order := 0
	switch c.Target {
	case command.CompareVersion:
		order = cmp.Compare(v.number, c.Number)
	case command.CompareCreate:
		order = cmp.Compare(int64(v.create), c.Number)
	case command.CompareMod:
		order = cmp.Compare(int64(v.mod), c.Number)
	case command.CompareLease:
		order = cmp.Compare(int64(v.lease), c.Number)
	case command.CompareValue:
		order = bytes.Compare(v.value, c.Value)
	}
	switch c.Result {
	case command.Equal:
		return order == 0
	case command.NotEqual:
		return order != 0
	case command.Greater:
		return order > 0
	case command.Less:
		return order < 0
	}
	return true
}

// checkOps checks the branch taken against the state before the txn, in the
// order of the operations.
func (s *Store) checkOps(r *command.TxnRequest, path *[]bool) error {
	ops := branch(r, step(path))
	for i := range ops {
		var err error
		switch op := &ops[i]; {
		case op.Range != nil:
			err = checkRange(op.Range.Revision, s.now)
		case op.Put != nil:
			err = s.checkPutInTxn(op.Put)
		case op.Txn != nil:
			err = s.checkOps(op.Txn, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// run runs the branch taken; its only errors are damage.
func (s *Store) run(r *command.TxnRequest, path *[]bool) (resp *command.TxnResponse, err error) {
	succeeded := step(path)
	ops := branch(r, succeeded)
	resp = &command.TxnResponse{Succeeded: succeeded}
	if len(ops) > 0 {
		resp.Responses = make([]command.OpResponse, len(ops))
	}
	for i := range ops {
		answer := &resp.Responses[i]
		switch op := &ops[i]; {
		case op.Range != nil:
			s.done.Ranges.Add(1)
			answer.Range, err = rangeAt(s, op.Range, readAt(op.Range.Revision), s.head())
		case op.Put != nil:
			answer.Put, err = s.put(op.Put)
		case op.Delete != nil:
			answer.Delete, err = s.deleteRange(op.Delete)
		case op.Txn != nil:
			answer.Txn, err = s.run(op.Txn, path)
		}
		if err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// readAt is what a range inside a txn reads at: 0, or a negative revision that
// checkRange let pass, is the state that the txn has reached.
func readAt(rev id.Revision) id.Revision {
	if rev <= 0 {
		return latest
	}
	return rev
}
