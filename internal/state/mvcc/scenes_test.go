package mvcc_test

import (
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// scene is a story: requests and what is answered to each, as model.Text writes
// it. Every scene is played by the store, once with a batch for each command and
// once with one batch for all writes between reads, and by the oracle.
type scene struct {
	name  string
	lines []line
}

type line struct {
	request any
	want    string
}

const (
	asc  = command.SortAscend
	desc = command.SortDescend
	none = command.SortNone
)

func play(t *testing.T, scenes []scene) {
	for _, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) {
			single, joined, oracle := newStore(t), newStore(t), model.New()
			for i, l := range sc.lines {
				if _, read := l.request.(*command.RangeRequest); read && joined.held {
					joined.commit()
				} else if !read && !joined.held {
					joined.begin()
				}
				for who, do := range map[string]func(any) (any, error){"store": single.do, "batched": joined.do, "oracle": oracle.Apply} {
					got, err := do(l.request)
					text := model.Text(got)
					if err != nil {
						text = err.Error()
					}
					if text != l.want {
						t.Errorf("%s, line %d: %s\ngot  %s\nwant %s", who, i, model.Text(l.request), text, l.want)
					}
				}
			}
			if joined.held {
				joined.commit()
			}
		})
	}
}

const (
	compacted = "etcdserver: mvcc: required revision has been compacted"
	future    = "etcdserver: mvcc: required revision is a future revision"
	noKey     = "etcdserver: key not found"
	noLease   = "etcdserver: requested lease not found"
)

func TestPuts(t *testing.T) {
	play(t, []scene{
		{"a put makes revision 2 of a new store", []line{
			{get("a", ""), `range@1 count=0 more=false []`},
			{put("a", "1"), `put@2`},
			{get("a", ""), `range@2 count=1 more=false ["a"="1"(c2 m2 v1)]`},
		}},
		{"the same value again is a new version", []line{
			{put("a", "1"), `put@2`},
			{put("a", "1"), `put@3`},
			{get("a", ""), `range@3 count=1 more=false ["a"="1"(c2 m3 v2)]`},
		}},
		{"a previous pair comes back if asked for and there", []line{
			{put("a", "1", prev), `put@2`},
			{put("a", "2", prev), `put@3 prev "a"="1"(c2 m2 v1)`},
			{put("a", "3"), `put@4`},
			{del("a", ""), `deleted@5 1 []`},
			{put("a", "4", prev), `put@6`},
		}},
		{"a re-created key begins anew", []line{
			{put("a", "1"), `put@2`},
			{put("a", "2"), `put@3`},
			{del("a", ""), `deleted@4 1 []`},
			{put("a", "3"), `put@5`},
			{get("a", ""), `range@5 count=1 more=false ["a"="3"(c5 m5 v1)]`},
		}},
		{"ignoring the value keeps it and makes a version", []line{
			{put("a", "1"), `put@2`},
			{put("a", "", ignoreValue), `put@3`},
			{put("a", "", ignoreValue, ignoreLease, prev), `put@4 prev "a"="1"(c2 m3 v2)`},
			{put("a", "2", ignoreLease), `put@5`},
			{get("a", ""), `range@5 count=1 more=false ["a"="2"(c2 m5 v4)]`},
		}},
		{"a refused put changes nothing", []line{
			{put("a", "", ignoreValue), noKey},
			{put("a", "", ignoreLease), noKey},
			{put("a", "1", lease(7)), noLease},
			{put("a", "", lease(-7), ignoreValue), noLease},
			{put("a", "1"), `put@2`},
			{del("a", ""), `deleted@3 1 []`},
			{put("a", "", ignoreValue), noKey},
			{get("a", ""), `range@3 count=0 more=false []`},
		}},
		{"keys and values are any bytes", []line{
			{put("a\x00", "1"), `put@2`},
			{put("a", ""), `put@3`},
			{put("a\x00\x00", "3"), `put@4`},
			{put("\xff\xff", "4"), `put@5`},
			{put("\x00", "5"), `put@6`},
			{get("a", "a\x00"), `range@6 count=1 more=false ["a"=""(c3 m3 v1)]`},
			{get("a", ""), `range@6 count=1 more=false ["a"=""(c3 m3 v1)]`},
			{get("\x00", "\x00"), `range@6 count=5 more=false ["\x00"="5"(c6 m6 v1) "a"=""(c3 m3 v1) "a\x00"="1"(c2 m2 v1) "a\x00\x00"="3"(c4 m4 v1) "\xff\xff"="4"(c5 m5 v1)]`},
		}},
	})
}

// four puts a, b, c and d at 2, 3, 4 and 5, then b again at 6.
func four(more ...line) []line {
	return append([]line{
		{put("a", "4"), `put@2`}, {put("b", "3"), `put@3`}, {put("c", "2"), `put@4`}, {put("d", "1"), `put@5`}, {put("b", "9"), `put@6`},
	}, more...)
}

const (
	rowA = `"a"="4"(c2 m2 v1)`
	rowB = `"b"="9"(c3 m6 v2)`
	rowC = `"c"="2"(c4 m4 v1)`
	rowD = `"d"="1"(c5 m5 v1)`
)

func TestRanges(t *testing.T) {
	filter := func(minMod, maxMod, minCreate, maxCreate id.Revision) func(*command.RangeRequest) {
		return func(r *command.RangeRequest) {
			r.MinModRevision, r.MaxModRevision = minMod, maxMod
			r.MinCreateRevision, r.MaxCreateRevision = minCreate, maxCreate
		}
	}
	play(t, []scene{
		{"bounds", four(
			line{get("b", "d"), `range@6 count=2 more=false [` + rowB + ` ` + rowC + `]`},
			line{get("b", "\x00"), `range@6 count=3 more=false [` + rowB + ` ` + rowC + ` ` + rowD + `]`},
			line{get("bb", "\x00"), `range@6 count=2 more=false [` + rowC + ` ` + rowD + `]`},
			line{get("c", "b"), `range@6 count=0 more=false []`},
			line{get("c", "c"), `range@6 count=0 more=false []`},
			line{get("bb", ""), `range@6 count=0 more=false []`},
		)},
		{"revisions", four(
			line{get("a", "\x00", at(3)), `range@6 count=2 more=false [` + rowA + ` "b"="3"(c3 m3 v1)]`},
			line{get("b", "", at(5)), `range@6 count=1 more=false ["b"="3"(c3 m3 v1)]`},
			line{get("b", "", at(2)), `range@6 count=0 more=false []`},
			line{get("b", "", at(1)), `range@6 count=0 more=false []`},
			line{get("b", "", at(6)), `range@6 count=1 more=false [` + rowB + `]`},
			line{get("b", "", at(-3)), `range@6 count=1 more=false [` + rowB + `]`},
			line{get("b", "", at(7)), future},
		)},
		{"limit, count and more", four(
			line{get("a", "\x00", limit(2)), `range@6 count=4 more=true [` + rowA + ` ` + rowB + `]`},
			line{get("a", "\x00", limit(4)), `range@6 count=4 more=false [` + rowA + ` ` + rowB + ` ` + rowC + ` ` + rowD + `]`},
			line{get("a", "\x00", limit(-1)), `range@6 count=4 more=false [` + rowA + ` ` + rowB + ` ` + rowC + ` ` + rowD + `]`},
			line{get("a", "\x00", limit(1), countOnly), `range@6 count=4 more=false []`},
			line{get("a", "\x00", keysOnly, countOnly), `range@6 count=4 more=false []`},
			line{get("a", "c", keysOnly), `range@6 count=2 more=false ["a"=""(c2 m2 v1) "b"=""(c3 m6 v2)]`},
		)},
		{"filters come before the limit and do not count", four(
			line{get("a", "\x00", filter(4, 5, 0, 0)), `range@6 count=4 more=false [` + rowC + ` ` + rowD + `]`},
			line{get("a", "\x00", filter(4, 0, 0, 0), limit(2)), `range@6 count=4 more=true [` + rowB + ` ` + rowC + `]`},
			line{get("a", "\x00", filter(5, 0, 0, 0), limit(2)), `range@6 count=4 more=false [` + rowB + ` ` + rowD + `]`},
			line{get("a", "\x00", filter(0, 0, 3, 4)), `range@6 count=4 more=false [` + rowB + ` ` + rowC + `]`},
			line{get("a", "\x00", filter(0, 5, 3, 0)), `range@6 count=4 more=false [` + rowC + ` ` + rowD + `]`},
			line{get("a", "\x00", filter(9, 0, 0, 0), countOnly), `range@6 count=4 more=false []`},
		)},
		{"orders", four(
			line{get("a", "\x00", sorted(desc, command.SortByKey), limit(2)), `range@6 count=4 more=true [` + rowD + ` ` + rowC + `]`},
			line{get("a", "\x00", sorted(asc, command.SortByKey), limit(2)), `range@6 count=4 more=true [` + rowA + ` ` + rowB + `]`},
			line{get("a", "\x00", sorted(asc, command.SortByValue)), `range@6 count=4 more=false [` + rowD + ` ` + rowC + ` ` + rowA + ` ` + rowB + `]`},
			line{get("a", "\x00", sorted(desc, command.SortByMod), limit(1)), `range@6 count=4 more=true [` + rowB + `]`},
			line{get("a", "\x00", sorted(desc, command.SortByCreate), limit(3)), `range@6 count=4 more=true [` + rowD + ` ` + rowC + ` ` + rowB + `]`},
			line{get("a", "\x00", sorted(desc, command.SortByVersion), limit(2)), `range@6 count=4 more=true [` + rowB + ` ` + rowA + `]`},
			line{get("a", "\x00", sorted(asc, command.SortByValue), keysOnly, limit(1)), `range@6 count=4 more=true ["d"=""(c5 m5 v1)]`},
			line{get("a", "\x00", sorted(asc, command.SortByMod), filter(0, 5, 0, 0), limit(3)), `range@6 count=4 more=false [` + rowA + ` ` + rowC + ` ` + rowD + `]`},
		)},
		{"quirk: a target without an order is cut first", four(
			line{get("a", "\x00", sorted(none, command.SortByValue), limit(1)), `range@6 count=4 more=true [` + rowA + `]`},
			line{get("a", "\x00", sorted(none, command.SortByValue), limit(2)), `range@6 count=4 more=true [` + rowC + ` ` + rowA + `]`},
			line{get("a", "\x00", sorted(none, command.SortByValue)), `range@6 count=4 more=false [` + rowD + ` ` + rowC + ` ` + rowA + ` ` + rowB + `]`},
			line{get("a", "\x00", sorted(none, command.SortByValue), filter(1, 0, 0, 0), limit(1)), `range@6 count=4 more=true [` + rowD + `]`},
		)},
		{"deleted keys are seen before their deletion only", four(
			line{del("b", "d"), `deleted@7 2 []`},
			line{get("a", "\x00"), `range@7 count=2 more=false [` + rowA + ` ` + rowD + `]`},
			line{get("a", "\x00", at(6), limit(2)), `range@7 count=4 more=true [` + rowA + ` ` + rowB + `]`},
		)},
	})
}

func TestDeletions(t *testing.T) {
	play(t, []scene{
		{"of nothing is no change", four(
			line{del("x", ""), `deleted@6 0 []`},
			line{del("e", "\x00"), `deleted@6 0 []`},
			line{del("c", "a"), `deleted@6 0 []`},
		)},
		{"of a range is one revision", four(
			line{delPrev("b", "d"), `deleted@7 2 [` + rowB + ` ` + rowC + `]`},
			line{delPrev("b", "d"), `deleted@7 0 []`},
			line{delPrev("a", "\x00"), `deleted@8 2 [` + rowA + ` ` + rowD + `]`},
			line{get("a", "\x00"), `range@8 count=0 more=false []`},
		)},
		{"of one key", four(
			line{delPrev("b", ""), `deleted@7 1 [` + rowB + `]`},
			line{delPrev("b", ""), `deleted@7 0 []`},
		)},
		{"amid writes of the same batch", []line{
			{put("a", "1"), `put@2`},
			{put("c", "1"), `put@3`},
			{del("a", ""), `deleted@4 1 []`},
			{put("b", "1"), `put@5`},
			{put("a", "2"), `put@6`},
			{del("a", "c"), `deleted@7 2 []`},
			{put("a", "3", prev), `put@8`},
			{get("a", "\x00"), `range@8 count=2 more=false ["a"="3"(c8 m8 v1) "c"="1"(c3 m3 v1)]`},
		}},
	})
}

func TestCompactions(t *testing.T) {
	play(t, []scene{
		{"at 0 once", []line{
			{compact(0), `compacted@1`},
			{compact(0), compacted},
			{compact(-1), compacted},
			{compact(2), future},
			{compact(1), `compacted@1`},
		}},
		{"of a new store at -1", []line{{compact(-1), compacted}, {compact(-2), compacted}}},
		{"keeps the compact revision readable", four(
			line{compact(4), `compacted@6`},
			line{get("b", "", at(3)), compacted},
			line{get("b", "", at(4)), `range@6 count=1 more=false ["b"="3"(c3 m3 v1)]`},
			line{get("b", "", at(-1)), `range@6 count=1 more=false [` + rowB + `]`},
			line{compact(4), compacted},
			line{compact(7), future},
			line{compact(6), `compacted@6`},
			line{get("b", ""), `range@6 count=1 more=false [` + rowB + `]`},
			line{put("b", "10", prev), `put@7 prev ` + rowB},
		)},
	})
}

func TestTxns(t *testing.T) {
	play(t, []scene{
		{"all changes share a revision and reads see them", []line{
			{put("z", "0"), `put@2`},
			{txn(get("a", ""), put("a", "1"), get("a", ""), put("b", "2", prev), del("z", ""), delPrev("y", ""), get("a", "\x00")),
				`txn@3 true {range@2 count=0 more=false []; put@3; range@3 count=1 more=false ["a"="1"(c3 m3 v1)]; put@3; deleted@3 1 []; deleted@3 0 []; range@3 count=2 more=false ["a"="1"(c3 m3 v1) "b"="2"(c3 m3 v1)]}`},
			{get("a", "\x00"), `range@3 count=2 more=false ["a"="1"(c3 m3 v1) "b"="2"(c3 m3 v1)]`},
		}},
		{"without a change the revision stays", []line{
			{put("a", "1"), `put@2`},
			{txn(), `txn@2 true {}`},
			{txn(del("b", ""), get("a", "", countOnly)), `txn@2 true {deleted@2 0 []; range@2 count=1 more=false []}`},
			{&command.TxnRequest{}, `txn@2 true {}`},
			{put("a", "2"), `put@3`},
		}},
		{"revisions inside", []line{
			{put("a", "1"), `put@2`},
			{put("a", "2"), `put@3`},
			{txn(put("a", "3"), get("a", "", at(3)), get("a", "", at(2)), get("a", "")),
				`txn@4 true {put@4; range@4 count=1 more=false ["a"="2"(c2 m3 v2)]; range@4 count=1 more=false ["a"="1"(c2 m2 v1)]; range@4 count=1 more=false ["a"="3"(c2 m4 v3)]}`},
			{txn(put("a", "4"), get("a", "", at(5))), future},
			{txn(put("a", "4"), get("a", "", at(9))), future},
			{txn(get("a", "", at(-1))), `txn@4 true {range@4 count=1 more=false ["a"="3"(c2 m4 v3)]}`},
			{txn(get("a", "", at(-2))), compacted},
			{compact(3), `compacted@4`},
			{txn(put("a", "5"), get("a", "", at(2))), compacted},
			{txn(put("a", "5"), get("a", "", at(-1))), compacted},
			{txn(get("a", "", at(3))), `txn@4 true {range@4 count=1 more=false ["a"="2"(c2 m3 v2)]}`},
		}},
		{"fails as a whole", []line{
			{put("a", "1"), `put@2`},
			{txn(put("b", "1"), put("c", "", ignoreValue)), noKey},
			{txn(put("b", "1"), put("c", "", ignoreLease)), noKey},
			{txn(put("b", "1"), put("a", "1", lease(5))), noLease},
			{txn(put("b", "1"), txn(put("c", "", ignoreValue))), noKey},
			{&command.TxnRequest{Failure: list(put("c", "", ignoreValue), get("a", "", at(99)))}, `txn@2 true {}`},
			{get("a", "\x00"), `range@2 count=1 more=false ["a"="1"(c2 m2 v1)]`},
		}},
		{"checks its operations in order, and of a put the key before the lease", []line{
			{put("a", "1"), `put@2`},
			{txn(put("b", "", lease(7), ignoreValue)), noKey},
			{put("b", "", lease(7), ignoreValue), noLease}, // the other way round
			{txn(put("a", "", lease(7), ignoreValue)), noLease},
			{txn(get("a", "", at(3)), put("b", "", ignoreValue)), future},
			{txn(put("b", "", ignoreValue), get("a", "", at(3))), noKey},
			{txn(txn(get("a", "", at(3))), put("b", "", ignoreValue)), future},
		}},
		{"nested", []line{
			{put("a", "1"), `put@2`},
			{&command.TxnRequest{
				Compares: []command.Compare{cmpValue("a", "", command.Equal, "1")},
				Success: list(put("a", "2"), &command.TxnRequest{
					Compares: []command.Compare{cmpValue("a", "", command.Equal, "1")}, // the state before the txn
					Success:  list(get("a", ""), txn(put("c", "3"), txn())),
					Failure:  list(get("no", "")),
				}, get("c", "")),
			}, `txn@3 true {put@3; txn@0 true {range@3 count=1 more=false ["a"="2"(c2 m3 v2)]; txn@0 true {put@3; txn@0 true {}}}; range@3 count=1 more=false ["c"="3"(c3 m3 v1)]}`},
			{txn(&command.TxnRequest{
				Compares: []command.Compare{cmpNumber(command.CompareVersion, "x", "", command.Greater, 0)},
				Success:  list(put("no", "", ignoreValue)),
				Failure:  list(get("a", "")),
			}), `txn@3 true {txn@0 false {range@3 count=1 more=false ["a"="2"(c2 m3 v2)]}}`},
		}},
		{"quirk: put, then delete from a key on", []line{
			{put("a", "1"), `put@2`},
			{txn(put("b", "1"), del("a", "\x00"), get("a", "\x00")), `txn@3 true {put@3; deleted@3 2 []; range@3 count=0 more=false []}`},
			{get("a", "\x00"), `range@3 count=0 more=false []`},
		}},
		{"quirk: delete from a key on, then put", []line{
			{put("a", "1"), `put@2`},
			{put("a", "2"), `put@3`},
			{txn(del("a", "\x00"), put("a", "3", prev)), `txn@4 true {deleted@4 1 []; put@4}`},
			{get("a", ""), `range@4 count=1 more=false ["a"="3"(c4 m4 v1)]`},
			{txn(del("a", "\x00"), put("a", "", ignoreValue)), `txn@5 true {deleted@5 1 []; put@5}`},
			{get("a", ""), `range@5 count=1 more=false ["a"=""(c5 m5 v1)]`},
		}},
	})
}

func TestCompares(t *testing.T) {
	const (
		version, create, mod = command.CompareVersion, command.CompareCreate, command.CompareMod
		leased               = command.CompareLease
		eq, gt, lt, ne       = command.Equal, command.Greater, command.Less, command.NotEqual
	)
	const yes, no = `txn@6 true {range@6 count=0 more=false []}`, `txn@6 false {range@6 count=0 more=false []; range@6 count=0 more=false []}`
	var lines []line
	add := func(want string, c ...command.Compare) { lines = append(lines, line{when(c...), want}) }
	add(yes, cmpNumber(version, "b", "", eq, 2))
	add(no, cmpNumber(version, "b", "", eq, 1))
	add(yes, cmpNumber(version, "b", "", gt, 1))
	add(no, cmpNumber(version, "b", "", lt, 2))
	add(yes, cmpNumber(version, "b", "", ne, 1))
	add(yes, cmpNumber(create, "b", "", eq, 3))
	add(yes, cmpNumber(mod, "b", "", eq, 6))
	add(yes, cmpNumber(leased, "b", "", eq, 0))
	add(yes, cmpNumber(leased, "b", "", lt, 1))
	add(yes, cmpValue("b", "", eq, "9"))
	add(yes, cmpValue("b", "", gt, "89"))
	add(no, cmpValue("b", "", ne, "9"))
	// An absent key: zero, but no value at all.
	add(yes, cmpNumber(version, "x", "", eq, 0))
	add(yes, cmpNumber(mod, "x", "", lt, 1))
	add(no, cmpNumber(create, "x", "", gt, 0))
	for _, result := range []command.CompareResult{eq, gt, lt, ne, 77} {
		add(no, cmpValue("x", "", result, ""))
	}
	// Every key of a range must hold; an empty range is like an absent key.
	add(yes, cmpNumber(mod, "a", "d", gt, 1))
	add(no, cmpNumber(mod, "a", "d", gt, 2))
	add(no, cmpNumber(version, "a", "\x00", eq, 1))
	add(yes, cmpNumber(version, "c", "\x00", eq, 1))
	add(yes, cmpNumber(version, "x", "z", eq, 0))
	add(yes, cmpNumber(version, "d", "a", eq, 0))
	add(no, cmpValue("x", "z", ne, "1"))
	// Unknown numbers.
	add(yes, cmpNumber(99, "b", "", eq, 12345))
	add(no, cmpNumber(99, "b", "", gt, 0))
	add(yes, cmpNumber(99, "x", "", eq, 1))
	add(yes, cmpNumber(version, "b", "", 88, 0))
	add(yes, cmpNumber(version, "x", "", 88, 5))
	// All of them must hold.
	add(yes, cmpNumber(version, "b", "", eq, 2), cmpValue("a", "", eq, "4"))
	add(no, cmpNumber(version, "b", "", eq, 2), cmpValue("a", "", eq, "5"))
	play(t, []scene{{"compares", four(lines...)}})
}
