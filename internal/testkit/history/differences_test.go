package history

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/internal/state/command"
)

// A scene shows a difference: to the last of its requests the other server
// answers as said, while the oracle says something else.
type scene struct {
	requests []any
	// answers is part of how the answer is written; dies says that the server ends
	// instead.
	answers string
	dies    bool
}

// difference is a rule and the scene that shows that there is need of it.
type difference struct {
	Rule
	scene
}

// differences are what etcd 3.4 (Debian's 3.4.23) answers in another way than
// etcd 3.7 and the oracle, for requests of the key-value service. The document
// docs/guide/differences-from-etcd-3.4.md has a heading for each.
var differences = []*difference{
	{
		Rule: Rule{
			Title: "Unknown sort target",
			Applies: func(request any) bool {
				return anyRange(request, func(r *command.RangeRequest) bool { return r.Target > command.SortByValue })
			},
		},
		scene: scene{requests: []any{put("a"), &command.RangeRequest{Key: []byte("a"), Target: 9}}, dies: true},
	},
	{
		Rule: Rule{
			Title: "Unknown sort order",
			Applies: func(request any) bool {
				return anyRange(request, func(r *command.RangeRequest) bool { return r.Order > command.SortDescend })
			},
			As: func(request any) any {
				return eachRange(request, func(r *command.RangeRequest) {
					if r.Order > command.SortDescend {
						r.Order, r.Target = command.SortAscend, command.SortByKey
					}
				})
			},
		},
		scene: scene{requests: []any{put("a"), &command.RangeRequest{Key: []byte("a"), Order: 9}}, answers: "count:1"},
	},
	{
		Rule: Rule{Title: "Put that keeps what the same txn has deleted", Applies: keepsDeleted},
		scene: scene{requests: []any{put("a"), &command.TxnRequest{Success: []command.Op{
			{Delete: &command.DeleteRangeRequest{Key: []byte("a"), End: []byte{0}}},
			{Put: &command.PutRequest{Key: []byte("a"), IgnoreValue: true}},
		}}}, dies: true},
	},
	{
		Rule: Rule{
			Title:   "Order of the checks of a txn",
			Applies: func(request any) bool { _, isTxn := request.(*command.TxnRequest); return isTxn },
			First: func(request any) any {
				return eachRange(request, func(r *command.RangeRequest) { r.Revision = 0 })
			},
		},
		scene: scene{requests: []any{&command.TxnRequest{Success: []command.Op{
			{Range: &command.RangeRequest{Key: []byte("a"), Revision: 99}},
			{Put: &command.PutRequest{Key: []byte("a"), IgnoreValue: true}},
		}}}, answers: "etcdserver: key not found"},
	},
}

func put(key string) any { return &command.PutRequest{Key: []byte(key), Value: []byte("v")} }

// rules are those of the differences.
func rules() []*Rule {
	var list []*Rule
	for _, d := range differences {
		list = append(list, &d.Rule)
	}
	return list
}

// anyRange says whether a request is or holds a range of a kind.
func anyRange(request any, is func(*command.RangeRequest) bool) bool {
	found := false
	eachRange(request, func(r *command.RangeRequest) { found = found || is(r) })
	return found
}

// eachRange returns a request whose ranges, those of its txns too, were changed.
func eachRange(request any, change func(*command.RangeRequest)) any {
	switch r := request.(type) {
	case *command.RangeRequest:
		q := *r
		change(&q)
		return &q
	case *command.TxnRequest:
		t := &command.TxnRequest{Compares: r.Compares, Success: slices.Clone(r.Success), Failure: slices.Clone(r.Failure)}
		for _, ops := range [][]command.Op{t.Success, t.Failure} {
			for i := range ops {
				switch op := &ops[i]; {
				case op.Range != nil:
					op.Range = eachRange(op.Range, change).(*command.RangeRequest)
				case op.Txn != nil:
					op.Txn = eachRange(op.Txn, change).(*command.TxnRequest)
				}
			}
		}
		return t
	}
	return request
}

// keepsDeleted says whether a txn may put a key with ignore_value or ignore_lease
// that it has deleted before.
func keepsDeleted(request any) bool {
	t, ok := request.(*command.TxnRequest)
	if !ok {
		return false
	}
	var deleted []*command.DeleteRangeRequest
	var walk func(*command.TxnRequest) bool
	walk = func(t *command.TxnRequest) bool {
		for _, op := range slices.Concat(t.Success, t.Failure) {
			switch {
			case op.Delete != nil:
				deleted = append(deleted, op.Delete)
			case op.Txn != nil && walk(op.Txn):
				return true
			case op.Put != nil && (op.Put.IgnoreValue || op.Put.IgnoreLease):
				if slices.ContainsFunc(deleted, func(d *command.DeleteRangeRequest) bool { return covers(d, op.Put.Key) }) {
					return true
				}
			}
		}
		return false
	}
	return walk(t)
}

func covers(d *command.DeleteRangeRequest, key []byte) bool {
	from := bytes.Compare(key, d.Key)
	switch {
	case len(d.End) == 0:
		return from == 0
	case bytes.Equal(d.End, []byte{0}):
		return from >= 0
	}
	return from >= 0 && bytes.Compare(key, d.End) < 0
}
