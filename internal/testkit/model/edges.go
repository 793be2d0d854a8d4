package model

import (
	"bytes"
	"fmt"
	"math"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Edge draws a request of a kind that Request meets seldom or never: what the
// specification calls a quirk, bounds and one more, numbers far outside, txns of
// one shape. They are draws of their own, so that Request's stay what they are
// and the seeded worlds keep their courses.
func (g *Generator) Edge(now, compacted id.Revision) any {
	if g.once(7) {
		return g.rim(compacted)
	}
	kinds := []func(id.Revision) any{
		g.sorted, g.sorted, g.sorted, g.extreme, g.extreme, g.look, g.look, g.look,
		g.unseen, g.unseen, g.unseen, g.judged, g.judged, g.judged, g.keep, g.keep,
		g.fill, g.odd, g.odd, g.keyless, g.compaction, g.compaction, g.wide, g.budget, g.deep, g.bare,
	}
	return kinds[g.Rand.Int64N(int64(len(kinds)))](now)
}

// rim draws a range of the oldest revisions that can be read, or cannot any more.
func (g *Generator) rim(compacted id.Revision) any {
	r := &command.RangeRequest{Key: []byte{0}, End: []byte{0}, Revision: compacted}
	if !g.once(3) {
		r.Revision += id.Revision(g.Rand.Int64N(4)) - 1
	}
	if g.once(3) {
		r.Key, r.End = g.key(), nil
	}
	if g.once(3) {
		return &command.TxnRequest{Success: []command.Op{{Put: g.Put()}, {Range: r}}}
	}
	return r
}

// sorted draws a range of many keys with an order, a target and mostly a limit.
func (g *Generator) sorted(now id.Revision) any {
	r := &command.RangeRequest{
		Key: []byte{0}, End: []byte{0},
		Order: command.SortOrder(g.Rand.Int64N(3)), Target: command.SortTarget(g.Rand.Int64N(5)),
		Limit: g.Rand.Int64N(8), KeysOnly: g.once(5), Serializable: g.once(3),
	}
	if g.once(3) {
		r.MinModRevision = g.revision(now)
	}
	if g.once(4) {
		r.MaxCreateRevision = g.revision(now)
	}
	if g.once(4) {
		r.Revision = g.revision(now)
	}
	return r
}

// extreme draws a range with numbers at the ends of what a number can be.
func (g *Generator) extreme(now id.Revision) any {
	r := g.Range(now)
	far := []int64{math.MaxInt64, math.MinInt64, -1, math.MaxInt64 - 1, math.MaxInt32 + 1}
	draw := func() int64 { return far[g.Rand.Int64N(int64(len(far)))] }
	switch g.Rand.Int64N(4) {
	case 0:
		r.Limit = draw()
	case 1:
		r.Revision = id.Revision(draw())
	case 2:
		r.MinModRevision, r.MaxCreateRevision = id.Revision(draw()), id.Revision(draw())
	default:
		r.MaxModRevision, r.MinCreateRevision = id.Revision(draw()), id.Revision(draw())
	}
	if g.once(3) {
		return &command.TxnRequest{Success: []command.Op{{Range: r}}}
	}
	return r
}

// look draws a txn that only reads, some of them serializable in every range.
func (g *Generator) look(now id.Revision) any {
	t, serializable := &command.TxnRequest{}, g.once(2)
	for range g.Rand.Int64N(3) {
		t.Compares = append(t.Compares, g.compare(now))
	}
	for _, ops := range []*[]command.Op{&t.Success, &t.Failure} {
		for range g.Rand.Int64N(4) {
			r := g.Range(now)
			r.Serializable = serializable || r.Serializable
			if !g.once(4) {
				r.Revision = 0
			}
			*ops = append(*ops, command.Op{Range: r})
		}
	}
	return t
}

// unseen draws a txn whose puts and deletions of a key overlap in a way that
// validation does not see (spec 2.5), or one that it does see; ranges between
// them show each step.
func (g *Generator) unseen(id.Revision) any {
	key := g.key()
	if g.once(2) {
		key = []byte("k99") // behind all others: the rest is not deleted with it
	}
	put, from := command.Op{Put: g.Put()}, command.Op{Delete: &command.DeleteRangeRequest{Key: key, End: []byte{0}, PrevKV: true}}
	put.Put.Key, put.Put.Lease = key, 0
	one := command.Op{Delete: &command.DeleteRangeRequest{Key: key, PrevKV: g.once(2)}}
	seen := command.Op{Range: &command.RangeRequest{Key: []byte("k"), End: []byte("l")}}
	nest := func(ops ...command.Op) command.Op {
		t := &command.TxnRequest{Success: ops}
		if g.once(3) {
			t.Failure = []command.Op{{Put: &command.PutRequest{Key: key, Value: []byte("other branch")}}}
		}
		return command.Op{Txn: t}
	}
	var ops []command.Op
	switch g.Rand.Int64N(7) {
	case 0:
		ops = []command.Op{nest(put, seen), seen, nest(one, seen)}
	case 1:
		ops = []command.Op{put, seen, from}
	case 2:
		ops = []command.Op{from, seen, put}
	case 3:
		ops = []command.Op{nest(put), seen, from, seen, nest(from)}
	case 4:
		ops = []command.Op{one, nest(put)} // seen, and refused
	case 5:
		ops = []command.Op{nest(one), nest(put)} // as well
	default:
		ops = []command.Op{from, one, nest(from, seen), {Delete: &command.DeleteRangeRequest{Key: []byte("z"), End: []byte("a")}}, put}
	}
	return &command.TxnRequest{Success: append(ops, seen), Compares: g.some(2)}
}

// some draws compares, mostly ones that hold.
func (g *Generator) some(most int64) []command.Compare {
	var list []command.Compare
	for range g.Rand.Int64N(most + 1) {
		list = append(list, command.Compare{Key: g.key(), Target: command.CompareVersion, Result: command.Greater, Number: -1})
	}
	return list
}

// judged draws a txn of compares of ranges, with operands around what is there,
// and little else.
func (g *Generator) judged(now id.Revision) any {
	t := &command.TxnRequest{Success: g.ops(now, 0)}
	for range 1 + g.Rand.Int64N(3) {
		c := g.compare(now)
		if c.Key, c.End = g.span(1); g.once(4) {
			c.Number, c.Value = 0, nil
		}
		if g.once(12) {
			c.Number = []int64{math.MaxInt64, math.MinInt64, -1}[g.Rand.Int64N(3)]
		}
		t.Compares = append(t.Compares, c)
	}
	if g.once(3) {
		t.Failure = []command.Op{{Txn: &command.TxnRequest{Compares: t.Compares[:1], Failure: g.ops(now, 0)}}}
	}
	return t
}

// keep draws a put that keeps the value, the lease or both of what is there; now
// and then as two operations of a txn, where only what was there before counts.
func (g *Generator) keep(id.Revision) any {
	r := &command.PutRequest{Key: g.key(), PrevKV: g.once(2), IgnoreValue: g.once(2)}
	r.IgnoreLease = !r.IgnoreValue || g.once(2)
	if !r.IgnoreValue {
		r.Value = []byte("kept lease")
	}
	if g.once(3) {
		new := &command.PutRequest{Key: g.key(), Value: []byte("new")}
		return &command.TxnRequest{Success: []command.Op{{Put: new}, {Put: r}, {Range: &command.RangeRequest{Key: r.Key}}}}
	}
	return r
}

// fill draws a txn that writes many keys, so that ranges have pages and streams
// have pieces.
func (g *Generator) fill(id.Revision) any {
	g.made++
	t := &command.TxnRequest{}
	for i, n := g.Rand.Int64N(20), 10+g.Rand.Int64N(90); n > 0; i, n = i+1, n-1 {
		key, value := fmt.Appendf(nil, "k%03d", i), fmt.Appendf(nil, "v%d", g.made)
		t.Success = append(t.Success, command.Op{Put: &command.PutRequest{Key: key, Value: value}})
	}
	return t
}

// odd draws a request about keys and values of bytes that are no text.
func (g *Generator) odd(now id.Revision) any {
	keys := [][]byte{{0}, {0, 0}, {0, 1}, {0xff}, {0xff, 0xff}, {0xff, 0}, {0x0d}, {0x80, 0x0d}, bytes.Repeat([]byte("long"), 300), []byte("k00\x00")}
	pick := func() []byte { return keys[g.Rand.Int64N(int64(len(keys)))] }
	switch g.Rand.Int64N(6) {
	case 0:
		return &command.DeleteRangeRequest{Key: pick(), PrevKV: true}
	case 1:
		return &command.RangeRequest{Key: pick(), End: pick(), Limit: g.Rand.Int64N(3)}
	case 2:
		return &command.TxnRequest{
			Compares: []command.Compare{{Key: pick(), End: pick(), Target: command.CompareValue, Result: command.NotEqual, Value: pick()}},
			Success:  []command.Op{{Put: &command.PutRequest{Key: pick(), PrevKV: true}}},
			Failure:  []command.Op{{Delete: &command.DeleteRangeRequest{Key: pick(), End: pick(), PrevKV: true}}},
		}
	default:
		r := &command.PutRequest{Key: pick(), PrevKV: g.once(2)}
		if !g.once(3) {
			r.Value = pick()
		}
		return r
	}
}

// keyless draws a request without a key, at any place where one can be; it may
// be wrong in a second way too, for the order of the checks.
func (g *Generator) keyless(now id.Revision) any {
	var end []byte
	if g.once(2) {
		end = []byte{0}
	}
	ops := []command.Op{
		{Range: &command.RangeRequest{End: end, Order: command.SortOrder(3 * g.Rand.Int64N(2))}},
		{Put: &command.PutRequest{Value: []byte("v"), IgnoreValue: g.once(2), IgnoreLease: g.once(2), Lease: 5}},
		{Delete: &command.DeleteRangeRequest{End: end}},
		{}, {Put: &command.PutRequest{Key: g.key(), Value: []byte("v"), IgnoreValue: g.once(2), IgnoreLease: true, Lease: 5}},
		{Range: &command.RangeRequest{Key: g.key(), Target: 5}},
	}
	at := g.Rand.Int64N(int64(len(ops)))
	op := ops[at]
	switch g.Rand.Int64N(4) {
	case 0:
		switch {
		case op.Range != nil:
			return op.Range
		case op.Put != nil:
			return op.Put
		case op.Delete != nil:
			return op.Delete
		}
	case 1:
		compares := append(g.some(2), command.Compare{End: end})
		return &command.TxnRequest{Compares: compares, Failure: []command.Op{op}}
	case 2:
		return &command.TxnRequest{Success: []command.Op{{Txn: &command.TxnRequest{Failure: []command.Op{op}}}}}
	}
	twice := command.Op{Put: &command.PutRequest{Key: []byte("twice")}}
	return &command.TxnRequest{Success: []command.Op{twice, twice}, Failure: []command.Op{op}}
}

// compaction draws one that physically removes, or one at an odd place.
func (g *Generator) compaction(now id.Revision) any {
	r := g.Compact(now)
	if r.Physical = g.once(3); g.once(4) {
		r.Revision = []id.Revision{0, -1, now, now + 1, math.MaxInt64, math.MinInt64}[g.Rand.Int64N(6)]
	}
	return r
}

// wide draws a txn around the bound on its lists.
func (g *Generator) wide(id.Revision) any {
	n := MaxTxnOps - 1 + g.Rand.Int64N(3)
	t := &command.TxnRequest{}
	if g.once(3) {
		for range n {
			t.Compares = append(t.Compares, command.Compare{Key: g.key(), Target: command.CompareVersion, Result: command.Greater, Number: -1})
		}
		t.Success = []command.Op{{Put: g.Put()}}
		return t
	}
	ops := &t.Success
	if g.once(3) {
		ops = &t.Failure
	}
	for i := range n {
		*ops = append(*ops, command.Op{Put: &command.PutRequest{Key: fmt.Appendf(nil, "k%03d", i)}})
	}
	return t
}

// budget draws a txn with nested ones around what its lists leave them.
func (g *Generator) budget(id.Revision) any {
	outer := 1 + g.Rand.Int64N(MaxTxnOps-1)
	inner := MaxTxnOps - outer + g.Rand.Int64N(2)
	read := command.Op{Range: &command.RangeRequest{Key: g.key(), CountOnly: true}}
	nested := &command.TxnRequest{}
	for range inner {
		nested.Failure = append(nested.Failure, read)
	}
	t := &command.TxnRequest{Success: []command.Op{{Txn: nested}, {Txn: nested}}}
	for int64(len(t.Success)) < outer {
		t.Success = append(t.Success, read)
	}
	return t
}

// deep draws a chain of nested txns around what the budget allows, or a short
// one.
func (g *Generator) deep(id.Revision) any {
	depth := 1 + g.Rand.Int64N(8)
	if g.once(2) {
		depth = MaxTxnOps - 2 + g.Rand.Int64N(4)
	}
	op := command.Op{Put: g.Put()}
	for range depth {
		t := &command.TxnRequest{Compares: g.some(1), Success: []command.Op{op}}
		if g.once(9) {
			t.Success, t.Failure = nil, t.Success
		}
		op = command.Op{Txn: t}
	}
	return op.Txn
}

// bare draws a txn with hardly anything in it.
func (g *Generator) bare(now id.Revision) any {
	t := &command.TxnRequest{}
	switch g.Rand.Int64N(4) {
	case 0:
		t.Compares = []command.Compare{g.compare(now)}
	case 1:
		t.Success = []command.Op{{Txn: &command.TxnRequest{}}}
	case 2:
		t.Compares = []command.Compare{g.compare(now)}
		t.Success = []command.Op{{Txn: &command.TxnRequest{Compares: t.Compares}}, {Range: &command.RangeRequest{Key: g.key()}}}
		t.Failure = []command.Op{{Txn: &command.TxnRequest{Failure: []command.Op{{Txn: &command.TxnRequest{}}}}}}
	}
	return t
}
