package command

import (
	"bytes"
	"slices"
)

// Shape checks that need no state; the doors make them before a command is
// encoded, in the order of spec 2.1-2.5.

// Validate checks the request. Errors: ErrEmptyKey, ErrBadSort.
func (q *RangeRequest) Validate() error {
	if len(q.Key) == 0 {
		return ErrEmptyKey
	}
	if q.Order > SortDescend || q.Target > SortByValue {
		return ErrBadSort
	}
	return nil
}

// ValidateStream checks a range that is to be answered in pieces (spec 2.2).
// Errors: those of Validate, ErrStreamSort, ErrStreamFilter.
func (q *RangeRequest) ValidateStream() error {
	if err := q.Validate(); err != nil {
		return err
	}
	switch {
	case q.Order != SortNone && (q.Order != SortAscend || q.Target != SortByKey):
		return ErrStreamSort
	case q.Filtered():
		return ErrStreamFilter
	}
	return nil
}

// KeyOrder says whether the answer has the keys in their order, cut where the limit
// is reached.
func (q *RangeRequest) KeyOrder() bool { return q.Target == SortByKey && q.Order != SortDescend }

// Filtered says whether keys are left out by their revisions.
func (q *RangeRequest) Filtered() bool {
	return q.MinModRevision != 0 || q.MaxModRevision != 0 || q.MinCreateRevision != 0 || q.MaxCreateRevision != 0
}

// Validate checks the request. Errors: ErrEmptyKey, ErrValueProvided,
// ErrLeaseProvided.
func (p *PutRequest) Validate() error {
	switch {
	case len(p.Key) == 0:
		return ErrEmptyKey
	case p.IgnoreValue && len(p.Value) != 0:
		return ErrValueProvided
	case p.IgnoreLease && p.Lease != 0:
		return ErrLeaseProvided
	}
	return nil
}

// Validate checks the request. Errors: ErrEmptyKey.
func (d *DeleteRangeRequest) Validate() error {
	if len(d.Key) == 0 {
		return ErrEmptyKey
	}
	return nil
}

// ValidateTxn checks a txn and the txns within it (spec 2.5). maxOps bounds the
// longest of its three lists; a nested txn has what its parent left. Errors:
// ErrTooManyOps, ErrEmptyKey, ErrKeyNotFound for an operation that is not set,
// ErrDuplicateKey, and those of the operations.
func ValidateTxn(t *TxnRequest, maxOps int) error {
	if err := validateShape(t, maxOps, 1); err != nil {
		return err
	}
	for _, ops := range [...][]Op{t.Success, t.Failure} {
		if _, err := collectWrites(ops); err != nil {
			return err
		}
	}
	return nil
}

func validateShape(t *TxnRequest, maxOps, depth int) error {
	longest := max(len(t.Compares), len(t.Success), len(t.Failure))
	if longest > maxOps || depth > MaxTxnDepth {
		return ErrTooManyOps
	}
	for i := range t.Compares {
		if len(t.Compares[i].Key) == 0 {
			return ErrEmptyKey
		}
	}
	for _, ops := range [...][]Op{t.Success, t.Failure} {
		for i := range ops {
			if err := validateOp(&ops[i], maxOps-longest, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

func validateOp(op *Op, maxOps, depth int) error {
	switch {
	case op.Range != nil:
		return op.Range.Validate()
	case op.Put != nil:
		return op.Put.Validate()
	case op.Delete != nil:
		return op.Delete.Validate()
	case op.Txn != nil:
		return validateShape(op.Txn, maxOps, depth+1)
	}
	return ErrKeyNotFound
}

// interval is the keys from low up to, not including, high.
type interval struct{ low, high []byte }

// writes is what a list of operations may write: the keys put and the intervals
// deleted, both sorted, the intervals disjoint. Sorted lists are merged at each
// level; an operation is merged at most maxOps times whatever the nesting, since
// the lists along any path of nested txns share one budget.
type writes struct {
	puts [][]byte
	dels []interval
}

// collectWrites gathers what ops may write and refuses two puts of one key, or a
// put inside a deletion, that could both happen. As in the reference (spec 2.5),
// a put of an earlier nested txn is not held against a deletion of a later one,
// nor any put against a deletion of everything from a key on.
func collectWrites(ops []Op) (writes, error) {
	var w writes
	for i := range ops {
		if d := ops[i].Delete; d != nil {
			if iv, ok := deleted(d); ok {
				w.dels = append(w.dels, iv)
			}
		}
	}
	slices.SortFunc(w.dels, func(a, b interval) int { return bytes.Compare(a.low, b.low) })
	w.dels = joined(w.dels[:0], w.dels, nil)
	for i := range ops {
		if ops[i].Txn == nil {
			continue
		}
		if err := w.addTxn(ops[i].Txn); err != nil {
			return w, err
		}
	}
	var puts [][]byte
	for i := range ops {
		if p := ops[i].Put; p != nil {
			puts = append(puts, p.Key)
		}
	}
	slices.SortFunc(puts, bytes.Compare)
	for i := 1; i < len(puts); i++ {
		if bytes.Equal(puts[i-1], puts[i]) {
			return w, ErrDuplicateKey
		}
	}
	return w, w.addPuts(puts)
}

// addTxn adds what a nested txn may write. Its branches exclude each other, so
// they are not held against each other.
func (w *writes) addTxn(t *TxnRequest) error {
	then, err := collectWrites(t.Success)
	if err != nil {
		return err
	}
	otherwise, err := collectWrites(t.Failure)
	if err != nil {
		return err
	}
	if err := w.addPuts(unionKeys(then.puts, otherwise.puts)); err != nil {
		return err
	}
	w.dels = unionIntervals(w.dels, unionIntervals(then.dels, otherwise.dels))
	return nil
}

// addPuts adds sorted, distinct keys.
func (w *writes) addPuts(puts [][]byte) error {
	for _, key := range puts {
		if covered(w.dels, key) {
			return ErrDuplicateKey
		}
	}
	merged := unionKeys(w.puts, puts)
	if len(merged) != len(w.puts)+len(puts) {
		return ErrDuplicateKey
	}
	w.puts = merged
	return nil
}

// deleted is the interval that a deletion covers; ok is false for an empty one
// and for one without an upper end.
func deleted(d *DeleteRangeRequest) (iv interval, ok bool) {
	if len(d.End) == 0 {
		high := append(slices.Clone(d.Key), 0)
		return interval{d.Key, high}, true
	}
	return interval{d.Key, d.End}, bytes.Compare(d.Key, d.End) < 0
}

// unionIntervals merges two lists of sorted, disjoint intervals.
func unionIntervals(a, b []interval) []interval {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	return joined(make([]interval, 0, len(a)+len(b)), a, b)
}

// joined appends the intervals of two sorted lists to merged, in order, and joins
// those that touch. merged may be the beginning of a when b is empty.
func joined(merged, a, b []interval) []interval {
	for len(a)+len(b) > 0 {
		from := &a
		if len(a) == 0 || len(b) > 0 && bytes.Compare(b[0].low, a[0].low) < 0 {
			from = &b
		}
		iv := (*from)[0]
		*from = (*from)[1:]
		last := len(merged) - 1
		switch {
		case last < 0 || bytes.Compare(merged[last].high, iv.low) < 0:
			merged = append(merged, iv)
		case bytes.Compare(merged[last].high, iv.high) < 0:
			merged[last].high = iv.high
		}
	}
	return merged
}

// covered says whether key lies in one of the sorted, disjoint intervals.
func covered(list []interval, key []byte) bool {
	i, found := slices.BinarySearchFunc(list, key, func(iv interval, key []byte) int { return bytes.Compare(iv.low, key) })
	return found || i > 0 && bytes.Compare(key, list[i-1].high) < 0
}

// unionKeys merges two sorted lists of distinct keys.
func unionKeys(a, b [][]byte) [][]byte {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	union := make([][]byte, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := bytes.Compare(a[0], b[0]); {
		case c < 0:
			union, a = append(union, a[0]), a[1:]
		case c > 0:
			union, b = append(union, b[0]), b[1:]
		default:
			union, a, b = append(union, a[0]), a[1:], b[1:]
		}
	}
	return append(append(union, a...), b...)
}
