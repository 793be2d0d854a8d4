package model

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

func put(key, value string) *command.PutRequest {
	return &command.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func remove(key, end string) *command.DeleteRangeRequest {
	return &command.DeleteRangeRequest{Key: []byte(key), End: []byte(end)}
}

func get(key, end string) *command.RangeRequest {
	return &command.RangeRequest{Key: []byte(key), End: []byte(end)}
}

// must applies a request that may not be refused.
func must[R any](t *testing.T, s *Store, request any) R {
	t.Helper()
	response, err := s.Do(request)
	if err != nil {
		t.Fatalf("%T: %v", request, err)
	}
	return response.(R)
}

func refused(t *testing.T, s *Store, request any, want error) {
	t.Helper()
	before := s.Revision()
	if _, err := s.Do(request); !errors.Is(err, want) {
		t.Fatalf("%T: %v, want %v", request, err, want)
	}
	if s.Revision() != before {
		t.Fatalf("%T: a refused request raised the revision", request)
	}
}

func keys(r *command.RangeResponse) string {
	var all string
	for _, kv := range r.KVs {
		all += string(kv.Key) + " "
	}
	return all
}

// The two lives of a key, as spec 2.3 and 2.4 tell them.
func TestAKeyLivesTwice(t *testing.T) {
	s := New()
	if r := must[*command.PutResponse](t, s, put("a", "1")); r.Revision != 2 {
		t.Fatalf("the first put of a store has revision %d, want 2", r.Revision)
	}
	must[*command.PutResponse](t, s, put("a", "2"))
	want := command.KeyValue{Key: []byte("a"), Value: []byte("2"), CreateRevision: 2, ModRevision: 3, Version: 2}
	if r := must[*command.RangeResponse](t, s, get("a", "")); !reflect.DeepEqual(r.KVs[0], want) {
		t.Fatalf("got %+v", r.KVs[0])
	}
	if r := must[*command.DeleteRangeResponse](t, s, remove("a", "")); r.Deleted != 1 || r.Revision != 4 {
		t.Fatalf("got %+v", r)
	}
	if r := must[*command.DeleteRangeResponse](t, s, remove("a", "")); r.Deleted != 0 || r.Revision != 4 {
		t.Fatalf("a deletion of nothing: %+v", r)
	}
	must[*command.PutResponse](t, s, put("a", "3"))
	want = command.KeyValue{Key: []byte("a"), Value: []byte("3"), CreateRevision: 5, ModRevision: 5, Version: 1}
	if r := must[*command.RangeResponse](t, s, get("a", "")); !reflect.DeepEqual(r.KVs[0], want) {
		t.Fatalf("got %+v", r.KVs[0])
	}
	past := get("a", "")
	past.Revision = 3
	if r := must[*command.RangeResponse](t, s, past); string(r.KVs[0].Value) != "2" || r.Revision != 5 {
		t.Fatalf("a read of the past has the past's value and the present's header: %+v", r)
	}
}

func TestRangesOfSpecOneSix(t *testing.T) {
	s := New()
	for _, k := range []string{"a", "b", "c", "d"} {
		must[*command.PutResponse](t, s, put(k, "x"))
	}
	for _, c := range []struct{ key, end, want string }{
		{"b", "", "b "}, {"b", "d", "b c "}, {"b", "\x00", "b c d "}, {"\x00", "\x00", "a b c d "},
		{"c", "b", ""}, {"c", "c", ""},
	} {
		if got := keys(must[*command.RangeResponse](t, s, get(c.key, c.end))); got != c.want {
			t.Errorf("[%q, %q): %q, want %q", c.key, c.end, got, c.want)
		}
	}
	refused(t, s, get("", ""), command.ErrEmptyKey)
}

func TestLimitSortAndFilter(t *testing.T) {
	s := New()
	for _, kv := range []string{"a3", "b1", "c2", "d0"} {
		must[*command.PutResponse](t, s, put(kv[:1], kv[1:]))
	}
	ask := func(change func(*command.RangeRequest)) *command.RangeResponse {
		r := get("a", "z")
		change(r)
		return must[*command.RangeResponse](t, s, r)
	}
	r := ask(func(r *command.RangeRequest) { r.Limit = 2 })
	if keys(r) != "a b " || !r.More || r.Count != 4 {
		t.Errorf("limit: %+v", r)
	}
	r = ask(func(r *command.RangeRequest) { r.Limit, r.Order, r.Target = 2, command.SortAscend, command.SortByValue })
	if keys(r) != "d b " || !r.More {
		t.Errorf("sorted, then cut: %+v", r)
	}
	r = ask(func(r *command.RangeRequest) { r.Limit, r.Target = 2, command.SortByValue })
	if keys(r) != "b c " || !r.More {
		t.Errorf("the quirk, cut in key order first (a b c), then sorted: %+v", r)
	}
	r = ask(func(r *command.RangeRequest) { r.MinModRevision, r.MaxModRevision = 3, 4 })
	if keys(r) != "b c " || r.More || r.Count != 4 {
		t.Errorf("filters do not change the count: %+v", r)
	}
	r = ask(func(r *command.RangeRequest) { r.CountOnly, r.Limit = true, 1 })
	if len(r.KVs) != 0 || r.More || r.Count != 4 {
		t.Errorf("count only: %+v", r)
	}
	r = ask(func(r *command.RangeRequest) { r.KeysOnly, r.Order = true, command.SortDescend })
	if keys(r) != "d c b a " || r.KVs[0].Value != nil {
		t.Errorf("keys only, backwards: %+v", r)
	}
}

func TestCompactionRefusesThePastAndKeepsTheTombstoneAtItsRevision(t *testing.T) {
	s := New()
	for _, r := range []any{put("a", "1"), put("a", "2"), put("b", "1"), remove("b", ""), put("c", "1"), remove("a", "")} {
		if _, err := s.Do(r); err != nil {
			t.Fatal(err)
		}
	}
	must[*command.CompactResponse](t, s, &command.CompactRequest{Revision: 0})
	refused(t, s, &command.CompactRequest{Revision: 0}, command.ErrCompacted)
	refused(t, s, &command.CompactRequest{Revision: 8}, command.ErrFutureRevision)
	must[*command.CompactResponse](t, s, &command.CompactRequest{Revision: 5})
	past := get("a", "")
	past.Revision = 4
	refused(t, s, past, command.ErrCompacted)
	past.Revision = 5
	if r := must[*command.RangeResponse](t, s, past); string(r.KVs[0].Value) != "2" {
		t.Fatalf("the compact revision itself is readable: %+v", r)
	}
	var kept []id.Revision
	for _, v := range s.Versions() {
		kept = append(kept, v.ModRevision)
	}
	// 2 was superseded by 3, 4 by its tombstone 5; 5 is the tombstone at the
	// compact revision; 6 and 7 are above it.
	if want := []id.Revision{3, 5, 6, 7}; !reflect.DeepEqual(kept, want) {
		t.Fatalf("kept %v, want %v", kept, want)
	}
}

func TestTxnIsOneRevisionAndReadsItsOwnWrites(t *testing.T) {
	s := New()
	must[*command.PutResponse](t, s, put("a", "1"))
	old := get("a", "")
	old.Revision = 2
	r := must[*command.TxnResponse](t, s, &command.TxnRequest{
		Compares: []command.Compare{{Key: []byte("a"), Target: command.CompareMod, Number: 2}},
		Success: []command.Op{
			{Range: get("a", "")}, {Put: put("a", "2")}, {Range: get("a", "")}, {Range: old},
			{Txn: &command.TxnRequest{
				Compares: []command.Compare{{Key: []byte("a"), Target: command.CompareValue, Value: []byte("1")}},
				Success:  []command.Op{{Put: put("b", "1")}},
			}},
			{Delete: remove("nothing", "")},
		},
	})
	if !r.Succeeded || r.Revision != 3 {
		t.Fatalf("%+v", r)
	}
	for i, want := range []struct {
		value    string
		revision id.Revision
	}{0: {"1", 2}, 2: {"2", 3}, 3: {"1", 3}} {
		if want.value == "" {
			continue
		}
		got := r.Responses[i].Range
		if string(got.KVs[0].Value) != want.value || got.Revision != want.revision {
			t.Errorf("range %d: %+v, want %+v", i, got, want)
		}
	}
	if inner := r.Responses[4].Txn; !inner.Succeeded || inner.Revision != 0 {
		t.Errorf("compares of a nested txn see the state before the txn, its header is empty: %+v", inner)
	}
	if r.Responses[5].Delete.Revision != 3 {
		t.Errorf("a deletion of nothing after a write shows the txn's revision: %+v", r.Responses[5].Delete)
	}
}

func TestTxnFailsAsAWholeOnlyForTheBranchTaken(t *testing.T) {
	s := New()
	future := get("a", "")
	future.Revision = 2 // begin + 1: future even after a write
	bad := []command.Op{{Put: put("a", "1")}, {Range: future}}
	refused(t, s, &command.TxnRequest{Success: bad}, command.ErrFutureRevision)
	if r := must[*command.RangeResponse](t, s, get("a", "")); r.Count != 0 {
		t.Fatal("half of a refused txn was applied")
	}
	must[*command.TxnResponse](t, s, &command.TxnRequest{Failure: bad})
}

func TestComparesOfAbsentKeysAndRanges(t *testing.T) {
	s := New()
	must[*command.PutResponse](t, s, put("a", "1"))
	must[*command.PutResponse](t, s, put("b", "2"))
	for name, c := range map[string]struct {
		compare command.Compare
		want    bool
	}{
		"absent key has version 0": {command.Compare{Key: []byte("x"), Target: command.CompareVersion}, true},
		"absent key has no value": {command.Compare{Key: []byte("x"), Target: command.CompareValue,
			Result: command.NotEqual, Value: []byte("y")}, false},
		"every key of the range": {command.Compare{Key: []byte("a"), End: []byte("z"), Target: command.CompareMod,
			Result: command.Greater, Number: 1}, true},
		"not every key of the range": {command.Compare{Key: []byte("a"), End: []byte("z"), Target: command.CompareMod,
			Result: command.Less, Number: 3}, false},
		"unknown target is equal":     {command.Compare{Key: []byte("a"), Target: 9}, true},
		"unknown result is true":      {command.Compare{Key: []byte("a"), Result: 9}, true},
		"unknown result, absent key":  {command.Compare{Key: []byte("x"), Target: command.CompareValue, Result: 9}, false},
		"reversed range has no key":   {command.Compare{Key: []byte("z"), End: []byte("a"), Target: command.CompareVersion}, true},
		"value of the wrong operand":  {command.Compare{Key: []byte("a"), Target: command.CompareValue, Number: 1}, false},
		"lease of a key without one":  {command.Compare{Key: []byte("a"), Target: command.CompareLease}, true},
		"create revision, other kind": {command.Compare{Key: []byte("a"), Target: command.CompareCreate, Value: []byte("2")}, false},
	} {
		r := must[*command.TxnResponse](t, s, &command.TxnRequest{Compares: []command.Compare{c.compare}})
		if r.Succeeded != c.want {
			t.Errorf("%s: %v, want %v", name, r.Succeeded, c.want)
		}
	}
}

func TestPutsThatIgnoreAndPutsWithLeases(t *testing.T) {
	s := New()
	s.Grant(7)
	refused(t, s, &command.PutRequest{Key: []byte("a"), IgnoreValue: true}, command.ErrKeyNotFound)
	refused(t, s, &command.PutRequest{Key: []byte("a"), Lease: 8, IgnoreValue: true}, command.ErrLeaseNotFound)
	refused(t, s, &command.PutRequest{Key: []byte("a"), Value: []byte("x"), IgnoreValue: true}, command.ErrValueProvided)
	refused(t, s, &command.PutRequest{Key: []byte("a"), Lease: 7, IgnoreLease: true}, command.ErrLeaseProvided)
	must[*command.PutResponse](t, s, &command.PutRequest{Key: []byte("a"), Value: []byte("1"), Lease: 7})
	r := must[*command.PutResponse](t, s, &command.PutRequest{Key: []byte("a"), IgnoreValue: true, IgnoreLease: true, PrevKV: true})
	if r.Prev == nil || r.Prev.Version != 1 {
		t.Fatalf("%+v", r)
	}
	kv := must[*command.RangeResponse](t, s, get("a", "")).KVs[0]
	if string(kv.Value) != "1" || kv.Lease != 7 || kv.Version != 2 {
		t.Fatalf("%+v", kv)
	}
}

func TestOverlapsInsideATxn(t *testing.T) {
	nested := func(success, failure []command.Op) command.Op {
		return command.Op{Txn: &command.TxnRequest{Success: success, Failure: failure}}
	}
	a, deleteA := command.Op{Put: put("a", "1")}, command.Op{Delete: remove("a", "b")}
	for name, c := range map[string]struct {
		ops  []command.Op
		want error
	}{
		"two puts":                           {[]command.Op{a, a}, command.ErrDuplicateKey},
		"put and delete":                     {[]command.Op{a, deleteA}, command.ErrDuplicateKey},
		"two deletes":                        {[]command.Op{deleteA, deleteA}, nil},
		"then and else exclude each other":   {[]command.Op{nested([]command.Op{a}, []command.Op{a})}, nil},
		"put and nested put":                 {[]command.Op{nested([]command.Op{a}, nil), a}, command.ErrDuplicateKey},
		"nested delete, later nested put":    {[]command.Op{nested([]command.Op{deleteA}, nil), nested(nil, []command.Op{a})}, command.ErrDuplicateKey},
		"nested put, later nested delete":    {[]command.Op{nested([]command.Op{a}, nil), nested(nil, []command.Op{deleteA})}, nil},
		"put and delete of all keys from it": {[]command.Op{a, {Delete: remove("a", "\x00")}}, nil},
		"nothing set":                        {[]command.Op{{}}, command.ErrKeyNotFound},
	} {
		if err := Validate(&command.TxnRequest{Success: c.ops}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	many := make([]command.Op, 100)
	for i := range many {
		many[i] = command.Op{Range: get("a", "")}
	}
	if err := Validate(&command.TxnRequest{Success: many, Failure: []command.Op{nested(many[:28], nil)}}); err != nil {
		t.Errorf("28 of a budget of 28: %v", err)
	}
	if err := Validate(&command.TxnRequest{Success: many, Failure: []command.Op{nested(many[:29], nil)}}); !errors.Is(err, command.ErrTooManyOps) {
		t.Errorf("29 of a budget of 28: %v", err)
	}
}

// A store cut back to a revision answers as the store did at that revision.
func TestThePastIsTheStoreAsItWas(t *testing.T) {
	g := &Generator{Rand: rand.New(rand.NewPCG(1, 1))}
	s, all := New(), get("\x00", "\x00")
	var pages []*command.RangeResponse
	for range 500 {
		request := g.Request(s.Revision())
		before := s.Revision()
		s.Do(request)
		if s.Revision() > before {
			page, _ := s.Range(all)
			pages = append(pages, page)
		}
	}
	for _, page := range pages {
		got, _ := s.At(page.Revision).Range(all)
		if !reflect.DeepEqual(got, page) {
			t.Fatalf("at %d: %+v, was %+v", page.Revision, got, page)
		}
	}
}

// The generator reaches every kind of answer and refusal, and two of one seed
// agree.
func TestGeneratorReachesEverything(t *testing.T) {
	run := func() (map[string]int, *Store) {
		seen, s := map[string]int{}, New()
		s.Grant(1)
		g := &Generator{Rand: rand.New(rand.NewPCG(7, 7)), Leases: []id.Lease{1}}
		for range 5000 {
			response, err := s.Do(g.Request(s.Revision()))
			if err != nil {
				seen[err.Error()]++
				continue
			}
			seen[reflect.TypeOf(response).String()]++
		}
		return seen, s
	}
	seen, s := run()
	for _, err := range []error{
		command.ErrEmptyKey, command.ErrKeyNotFound, command.ErrLeaseNotFound, command.ErrValueProvided,
		command.ErrDuplicateKey, command.ErrBadSort, command.ErrCompacted, command.ErrFutureRevision,
	} {
		if seen[err.Error()] == 0 {
			t.Errorf("never refused with %q", err)
		}
	}
	for _, response := range []string{"Put", "Range", "DeleteRange", "Txn", "Compact"} {
		if seen["*command."+response+"Response"] < 20 {
			t.Errorf("hardly any %s succeeded", response)
		}
	}
	again, other := run()
	if !reflect.DeepEqual(seen, again) || !reflect.DeepEqual(s, other) {
		t.Error("two runs of one seed differ")
	}
}
