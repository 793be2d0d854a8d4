package model

import "github.com/kvorum/kvorum/internal/state/command"

// MaxTxnOps is the default of --max-txn-ops.
const MaxTxnOps = 128

// Validate says what is wrong with a request whatever the state is.
func Validate(request any) error {
	switch r := request.(type) {
	case *command.RangeRequest:
		return validateRange(r)
	case *command.PutRequest:
		return validatePut(r)
	case *command.DeleteRangeRequest:
		return validateDelete(r)
	case *command.TxnRequest:
		if err := validateTxn(r, MaxTxnOps); err != nil {
			return err
		}
		if _, err := claimsOf(r.Success); err != nil {
			return err
		}
		_, err := claimsOf(r.Failure)
		return err
	}
	return nil
}

func validateRange(r *command.RangeRequest) error {
	if len(r.Key) == 0 {
		return command.ErrEmptyKey
	}
	if r.Order > command.SortDescend || r.Target > command.SortByValue {
		return command.ErrBadSort
	}
	return nil
}

func validatePut(r *command.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return command.ErrEmptyKey
	case r.IgnoreValue && len(r.Value) > 0:
		return command.ErrValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return command.ErrLeaseProvided
	}
	return nil
}

func validateDelete(r *command.DeleteRangeRequest) error {
	if len(r.Key) == 0 {
		return command.ErrEmptyKey
	}
	return nil
}

// validateTxn checks the shape of a txn. A nested txn has the budget that the
// longest list of its parent leaves; siblings each get all of it.
func validateTxn(r *command.TxnRequest, budget int) error {
	longest := max(len(r.Compares), len(r.Success), len(r.Failure))
	if longest > budget {
		return command.ErrTooManyOps
	}
	for _, c := range r.Compares {
		if len(c.Key) == 0 {
			return command.ErrEmptyKey
		}
	}
	for _, ops := range [][]command.Op{r.Success, r.Failure} {
		for _, op := range ops {
			if err := validateOp(op, budget-longest); err != nil {
				return err
			}
		}
	}
	return nil
}

func validateOp(op command.Op, budget int) error {
	switch {
	case op.Range != nil:
		return validateRange(op.Range)
	case op.Put != nil:
		return validatePut(op.Put)
	case op.Delete != nil:
		return validateDelete(op.Delete)
	case op.Txn != nil:
		return validateTxn(op.Txn, budget)
	}
	return command.ErrKeyNotFound // the text that spec 2.5 gives an unset operation
}

// claims are the keys that a list of operations may put and the ranges that it
// may delete, those of nested txns included.
type claims struct {
	puts    map[string]bool
	deletes []*command.DeleteRangeRequest
}

// deletesKey says whether a deletion covers the key. A deletion to the end of
// the key space is not seen: the quirk of spec 2.5.
func (c *claims) deletesKey(key string) bool {
	for _, d := range c.deletes {
		if !isFromKey(d.End) && contains(d.Key, d.End, []byte(key)) {
			return true
		}
	}
	return false
}

// claimsOf gathers the claims of a list of operations and refuses two puts of a
// key, or a put and a deletion of it. The order of gathering is what makes the
// other quirk of spec 2.5: deletions of this list are known before anything else;
// those of a nested txn only to what comes after it.
func claimsOf(ops []command.Op) (*claims, error) {
	all := &claims{puts: map[string]bool{}}
	for _, op := range ops {
		if op.Delete != nil {
			all.deletes = append(all.deletes, op.Delete)
		}
	}
	for _, op := range ops {
		if op.Txn != nil {
			if err := all.addNested(op.Txn); err != nil {
				return nil, err
			}
		}
	}
	for _, op := range ops {
		if op.Put != nil {
			if err := all.addPut(string(op.Put.Key)); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func (c *claims) addPut(key string) error {
	if c.puts[key] || c.deletesKey(key) {
		return command.ErrDuplicateKey
	}
	c.puts[key] = true
	return nil
}

// addNested adds both branches of a nested txn. They exclude each other, so each
// is held against what was there before the txn, not against the other.
func (c *claims) addNested(r *command.TxnRequest) error {
	taken, err := claimsOf(r.Success)
	if err != nil {
		return err
	}
	other, err := claimsOf(r.Failure)
	if err != nil {
		return err
	}
	both := map[string]bool{}
	for _, branch := range []*claims{taken, other} {
		for key := range branch.puts {
			if c.puts[key] || c.deletesKey(key) {
				return command.ErrDuplicateKey
			}
			both[key] = true
		}
	}
	for key := range both {
		c.puts[key] = true
	}
	c.deletes = append(c.deletes, taken.deletes...)
	c.deletes = append(c.deletes, other.deletes...)
	return nil
}
