package model

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Generator draws random requests over a small key space, so that they meet:
// every option, every quirk, a few requests that are refused. The same draws
// give the same requests. (*rand.Rand of math/rand/v2 is an env.Rand.)
type Generator struct {
	Rand env.Rand
	// Keys is the number of keys; 8 unless set.
	Keys int64
	// Leases are those that puts may name; a put now and then names a lease that
	// is none of them.
	Leases []id.Lease

	made int64
}

// Request draws a request for a store at a revision: mostly writes and ranges,
// one compaction in fifty.
func (g *Generator) Request(now id.Revision) any {
	switch n := g.Rand.Int64N(50); {
	case n < 15:
		return g.Put()
	case n < 20:
		return g.DeleteRange()
	case n < 33:
		return g.Range(now)
	case n < 49:
		return g.Txn(now)
	default:
		return g.Compact(now)
	}
}

// Put draws a put; its value is unlike that of every other put unless options
// say otherwise.
func (g *Generator) Put() *command.PutRequest {
	g.made++
	r := &command.PutRequest{Key: g.key(), Value: fmt.Appendf(nil, "v%d", g.made), PrevKV: g.once(3)}
	if g.once(10) {
		r.Value = []byte("same")
	}
	if g.once(8) {
		r.IgnoreValue, r.Value = true, nil
	}
	if g.once(8) {
		r.IgnoreLease = true
	} else if len(g.Leases) > 0 && g.once(6) || g.once(60) {
		r.Lease = g.lease()
	}
	if g.once(100) {
		r.IgnoreValue, r.Value = true, []byte("refused")
	}
	if g.once(100) {
		r.Key = nil
	}
	return r
}

// DeleteRange draws a deletion, mostly of one key.
func (g *Generator) DeleteRange() *command.DeleteRangeRequest {
	key, end := g.span(3)
	return &command.DeleteRangeRequest{Key: key, End: end, PrevKV: g.once(2)}
}

// Range draws a range with any options, at a revision around now.
func (g *Generator) Range(now id.Revision) *command.RangeRequest {
	key, end := g.span(1)
	r := &command.RangeRequest{Key: key, End: end, Serializable: g.once(4)}
	if g.once(3) {
		r.Revision = g.revision(now)
	}
	if g.once(3) {
		r.Limit = g.Rand.Int64N(6) - 1
	}
	if g.once(3) {
		r.Order = command.SortOrder(g.Rand.Int64N(3))
		r.Target = command.SortTarget(g.Rand.Int64N(5))
	}
	r.KeysOnly, r.CountOnly = g.once(6), g.once(10)
	for _, filter := range []*id.Revision{
		&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision,
	} {
		if g.once(10) {
			*filter = g.revision(now)
		}
	}
	if g.once(100) {
		r.Order = 3
	}
	if g.once(100) {
		r.Target = 9
	}
	return r
}

// Compact draws a compaction, mostly one that is legal.
func (g *Generator) Compact(now id.Revision) *command.CompactRequest {
	return &command.CompactRequest{Revision: g.revision(now)}
}

// Txn draws a txn, with nested ones now and then.
func (g *Generator) Txn(now id.Revision) *command.TxnRequest { return g.txn(now, 2) }

func (g *Generator) txn(now id.Revision, depth int) *command.TxnRequest {
	r := &command.TxnRequest{}
	for range g.Rand.Int64N(3) {
		r.Compares = append(r.Compares, g.compare(now))
	}
	r.Success = g.ops(now, depth)
	r.Failure = g.ops(now, depth)
	return r
}

func (g *Generator) ops(now id.Revision, depth int) []command.Op {
	var ops []command.Op
	for range g.Rand.Int64N(4) {
		switch n := g.Rand.Int64N(20); {
		case n < 9:
			ops = append(ops, command.Op{Put: g.Put()})
		case n < 12:
			ops = append(ops, command.Op{Delete: g.DeleteRange()})
		case n < 17 || depth == 0:
			r := g.Range(now)
			if !g.once(3) {
				r.Revision = 0 // else most txns would fail
			}
			ops = append(ops, command.Op{Range: r})
		default:
			ops = append(ops, command.Op{Txn: g.txn(now, depth-1)})
		}
	}
	if g.once(200) {
		ops = append(ops, command.Op{})
	}
	return ops
}

func (g *Generator) compare(now id.Revision) command.Compare {
	c := command.Compare{
		Target: command.CompareTarget(g.Rand.Int64N(5)),
		Result: command.CompareResult(g.Rand.Int64N(4)),
	}
	c.Key, c.End = g.span(4)
	switch c.Target {
	case command.CompareValue:
		c.Value = fmt.Appendf(nil, "v%d", g.Rand.Int64N(g.made+1))
	case command.CompareVersion:
		c.Number = g.Rand.Int64N(4)
	case command.CompareLease:
		c.Number = int64(g.lease())
	default:
		c.Number = int64(g.revision(now))
	}
	if g.once(50) {
		c.Target = 7
	}
	if g.once(50) {
		c.Result = 7
	}
	return c
}

// key draws one of the keys, the low ones more often.
func (g *Generator) key() []byte {
	keys := g.Keys
	if keys == 0 {
		keys = 8
	}
	return fmt.Appendf(nil, "k%02d", g.Rand.Int64N(g.Rand.Int64N(keys)+1))
}

// span draws a range: one key in singles of singles+1 times, else any of the
// forms of spec 1.6, reversed ones included.
func (g *Generator) span(singles int64) (key, end []byte) {
	if !g.once(singles + 1) {
		return g.key(), nil
	}
	switch g.Rand.Int64N(5) {
	case 0:
		return []byte{0}, []byte{0}
	case 1:
		return g.key(), []byte{0}
	case 2:
		return []byte("k"), []byte("l")
	default:
		return g.key(), g.key()
	}
}

// revision draws a revision: mostly a recent one, now and then one that is too
// old, in the future, or negative.
func (g *Generator) revision(now id.Revision) id.Revision {
	switch g.Rand.Int64N(8) {
	case 0:
		return now + id.Revision(g.Rand.Int64N(3))
	case 1:
		return id.Revision(g.Rand.Int64N(int64(now)+1)) - 1
	default:
		return max(now-id.Revision(g.Rand.Int64N(12)), 0)
	}
}

func (g *Generator) lease() id.Lease {
	if len(g.Leases) == 0 || g.once(20) {
		return 404
	}
	return g.Leases[g.Rand.Int64N(int64(len(g.Leases)))]
}

// once is true one time in n.
func (g *Generator) once(n int64) bool { return g.Rand.Int64N(n) == 0 }
