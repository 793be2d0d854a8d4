package command_test

import (
	"errors"
	"fmt"
	"testing"

	. "github.com/kvorum/kvorum/internal/state/command"
)

func put(key string) Op { return Op{Put: &PutRequest{Key: []byte(key)}} }
func get(key string) Op { return Op{Range: &RangeRequest{Key: []byte(key)}} }
func del(key, end string) Op {
	return Op{Delete: &DeleteRangeRequest{Key: []byte(key), End: []byte(end)}}
}
func then(ops ...Op) Op { return Op{Txn: &TxnRequest{Success: ops}} }
func either(success, failure []Op) Op {
	return Op{Txn: &TxnRequest{Success: success, Failure: failure}}
}
func ops(list ...Op) []Op        { return list }
func txn(list ...Op) *TxnRequest { return &TxnRequest{Success: list} }
func compare(keys ...string) (c []Compare) {
	for _, k := range keys {
		c = append(c, Compare{Key: []byte(k)})
	}
	return c
}

func TestSingleRequests(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"range", (&RangeRequest{Key: b("k"), Order: SortDescend, Target: SortByValue}).Validate(), nil},
		{"range without key", (&RangeRequest{Order: 9}).Validate(), ErrEmptyKey},
		{"range of unknown order", (&RangeRequest{Key: b("k"), Order: SortDescend + 1}).Validate(), ErrBadSort},
		{"range of unknown target", (&RangeRequest{Key: b("k"), Target: SortByValue + 1}).Validate(), ErrBadSort},
		{"put", (&PutRequest{Key: b("k"), Value: b("v"), Lease: 1}).Validate(), nil},
		{"put without key", (&PutRequest{IgnoreValue: true, Value: b("v")}).Validate(), ErrEmptyKey},
		{"value comes before lease", (&PutRequest{Key: b("k"), IgnoreValue: true, Value: b("v"), IgnoreLease: true, Lease: 1}).Validate(), ErrValueProvided},
		{"lease to be ignored", (&PutRequest{Key: b("k"), IgnoreLease: true, Lease: 1}).Validate(), ErrLeaseProvided},
		{"ignoring both", (&PutRequest{Key: b("k"), IgnoreValue: true, IgnoreLease: true}).Validate(), nil},
		{"delete", (&DeleteRangeRequest{Key: b("k")}).Validate(), nil},
		{"delete without key", (&DeleteRangeRequest{End: b("k")}).Validate(), ErrEmptyKey},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
}

func TestTxnOverlaps(t *testing.T) {
	for _, c := range []struct {
		name string
		txn  *TxnRequest
		want error
	}{
		{"nothing", txn(), nil},
		{"two keys", txn(put("a"), put("b"), get("a")), nil},
		{"one key twice", txn(put("a"), get("x"), put("a")), ErrDuplicateKey},
		{"one key in both branches", &TxnRequest{Success: ops(put("a")), Failure: ops(put("a"))}, nil},
		{"twice in the failure branch", &TxnRequest{Failure: ops(put("a"), put("a"))}, ErrDuplicateKey},
		{"put after delete", txn(del("a", ""), put("a")), ErrDuplicateKey},
		{"put before delete", txn(put("a"), del("a", "")), ErrDuplicateKey},
		{"put inside a range", txn(put("bb"), del("a", "c")), ErrDuplicateKey},
		{"put at the start of a range", txn(put("a"), del("a", "c")), ErrDuplicateKey},
		{"put at the end of a range", txn(put("c"), del("a", "c")), nil},
		{"put just after a deleted key", txn(put("a\x00"), del("a", "")), nil},
		{"put between ranges", txn(del("a", "b"), del("c", "d"), put("bb")), nil},
		{"put in joined ranges", txn(del("a", "c"), del("b", "d"), del("bb", "bc"), put("cc")), ErrDuplicateKey},
		{"deletes overlap", txn(del("a", "c"), del("b", "d"), del("b", "")), nil},
		{"reversed delete", txn(del("c", "a"), put("b"), put("c")), nil},
		{"quirk: delete from a key on", txn(del("a", "\x00"), put("b")), nil},
		{"nested and outer put", txn(put("a"), then(put("a"))), ErrDuplicateKey},
		{"nested put, outer delete", txn(then(put("b")), del("a", "c")), ErrDuplicateKey},
		{"nested delete, outer put", txn(put("b"), then(del("a", "c"))), ErrDuplicateKey},
		{"two nested puts", txn(then(put("a")), then(put("a"))), ErrDuplicateKey},
		{"two nested puts in different branches", txn(either(ops(put("a")), nil), either(nil, ops(put("a")))), ErrDuplicateKey},
		{"one nested txn, both branches", txn(either(ops(put("a")), ops(put("a")))), nil},
		{"one nested txn, put here, delete there", txn(either(ops(put("a")), ops(del("a", "")))), nil},
		{"both branches, then outer", txn(either(ops(put("a")), ops(put("a"))), put("a")), ErrDuplicateKey},
		{"earlier nested delete, later nested put", txn(then(del("a", "c")), then(put("b"))), ErrDuplicateKey},
		{"quirk: earlier nested put, later nested delete", txn(then(put("b")), then(del("a", "c"))), nil},
		{"deep", txn(then(then(put("a"))), then(then(then(put("a"))))), ErrDuplicateKey},
		{"deep in one branch of two", txn(either(ops(then(put("a"))), ops(put("b"))), put("b")), ErrDuplicateKey},
	} {
		if err := ValidateTxn(c.txn, 128); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestTxnShapesInOrder(t *testing.T) {
	many := func(n int) (list []Op) {
		for i := range n {
			list = append(list, put(fmt.Sprint(i)))
		}
		return list
	}
	keys := func(n int) []string { return make([]string, n) }
	for _, c := range []struct {
		name string
		txn  *TxnRequest
		want error
	}{
		{"as many as allowed in each list", &TxnRequest{Compares: compare("a", "b", "c", "d"), Success: many(4), Failure: many(4)}, nil},
		{"too many compares come before their empty keys", &TxnRequest{Compares: compare(keys(5)...)}, ErrTooManyOps},
		{"too many in the success branch", &TxnRequest{Success: many(5)}, ErrTooManyOps},
		{"too many in the failure branch", &TxnRequest{Failure: many(5)}, ErrTooManyOps},
		{"compare without key comes before operations", &TxnRequest{Compares: compare("a", ""), Success: []Op{{}}}, ErrEmptyKey},
		{"operation not set", &TxnRequest{Success: []Op{{}}}, ErrKeyNotFound},
		{"operation not set in the branch not likely", &TxnRequest{Failure: []Op{{}}}, ErrKeyNotFound},
		{"shapes come before overlaps", txn(put("a"), put("a"), get("")), ErrEmptyKey},
		{"nested has what the parent left", txn(put("x"), then(many(2)...)), nil},
		{"nested has no more than that", txn(put("x"), then(many(3)...)), ErrTooManyOps},
		{"siblings have it each", txn(either(many(2), nil), either(nil, ops(put("7"), put("8")))), nil},
		{"nothing left", txn(get("a"), get("b"), get("c"), then(get("d"))), ErrTooManyOps},
		{"nested empty txn where nothing is left", txn(get("a"), get("b"), get("c"), then()), nil},
		{"nested compare without key", txn(Op{Txn: &TxnRequest{Compares: compare("")}}), ErrEmptyKey},
	} {
		if err := ValidateTxn(c.txn, 4); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A hostile txn of many nested deletions must not take quadratic time: without
// sorted lists this test takes minutes.
func TestOverlapsOfManyOperationsAreFoundQuickly(t *testing.T) {
	outer := &TxnRequest{}
	for i := range 60 {
		inner := &TxnRequest{}
		for j := range 60 {
			leaf := &TxnRequest{}
			for k := range 8 {
				key := fmt.Sprintf("%02d%02d%02d", k, j, i)
				leaf.Success = append(leaf.Success, del(key, ""))
				leaf.Failure = append(leaf.Failure, put(key+"\x00"))
			}
			inner.Success = append(inner.Success, Op{Txn: leaf})
		}
		outer.Success = append(outer.Success, Op{Txn: inner})
	}
	if err := ValidateTxn(outer, 128); err != nil {
		t.Fatal(err)
	}
}
