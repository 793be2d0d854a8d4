package sim

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// What people ask for. They write keys of their own, u.., and read anybody's: those of
// the other clients keep their promises.

func (p *person) key() []byte { return fmt.Appendf(nil, "u%d", p.rand.Intn(4)) }

func (p *person) value() []byte {
	p.made++
	return fmt.Appendf(nil, "%v.%d", p, p.made)
}

// span draws a range of keys that people write.
func (p *person) span() (key, end []byte) {
	switch p.rand.Intn(4) {
	case 0:
		return []byte("u"), []byte("v")
	case 1:
		return []byte("u1"), []byte("u3")
	}
	return p.key(), nil
}

// ranges draws a range to be read.
func (p *person) ranges() *command.RangeRequest {
	r := &command.RangeRequest{Serializable: p.rand.OneIn(3), CountOnly: p.rand.OneIn(5), KeysOnly: p.rand.OneIn(6)}
	switch p.rand.Intn(8) {
	case 0:
		r.Key, r.End = []byte{0}, []byte{0}
	case 1:
		r.Key = fmt.Appendf(nil, "%s%d", oneOf(p.rand, "r", "l"), p.rand.Int64N(p.w.swarm.load.keys))
	case 2:
		r.Key, r.End = p.key(), []byte{0}
	case 3:
		r.Key, r.End = []byte("k"), []byte("s")
	default:
		r.Key, r.End = p.span()
	}
	return r
}

// question draws something that only reads.
func (p *person) question() any {
	if !p.rand.OneIn(4) {
		return p.ranges()
	}
	for {
		t := &command.TxnRequest{}
		for range p.rand.Intn(2) {
			t.Compares = append(t.Compares, p.compare())
		}
		for range 1 + p.rand.Intn(2) {
			t.Success = append(t.Success, command.Op{Range: p.ranges()})
		}
		for range p.rand.Intn(2) {
			t.Failure = append(t.Failure, command.Op{Range: p.ranges()})
		}
		if model.Validate(t) == nil && t.ReadOnly() {
			return t
		}
	}
}

func (p *person) compare() command.Compare {
	c := command.Compare{Target: command.CompareVersion, Result: oneOf(p.rand, command.Equal, command.Greater)}
	if c.Key, c.End = p.span(); p.rand.OneIn(4) {
		c.Key, c.End = []byte("r0"), nil
	}
	return c
}

// change draws something that writes.
func (p *person) change() command.Body {
	for {
		var body command.Body
		switch n := p.rand.Intn(10); {
		case n < 5:
			body = p.put()
		case n < 6:
			body = p.deletion()
		default:
			body = p.txn(2)
		}
		if t, isTxn := body.(*command.TxnRequest); model.Validate(body) == nil && (!isTxn || !t.ReadOnly()) {
			return body
		}
	}
}

func (p *person) put() *command.PutRequest {
	r := &command.PutRequest{Key: p.key(), Value: p.value(), PrevKV: p.rand.OneIn(3)}
	if p.w.swarm.leases.some() && p.rand.OneIn(6) {
		r.Lease = p.leaseID()
	}
	return r
}

func (p *person) deletion() *command.DeleteRangeRequest {
	r := &command.DeleteRangeRequest{PrevKV: p.rand.OneIn(2)}
	r.Key, r.End = p.span()
	return r
}

func (p *person) txn(depth int) *command.TxnRequest {
	t := &command.TxnRequest{}
	for range p.rand.Intn(2) {
		t.Compares = append(t.Compares, p.compare())
	}
	op := func() (op command.Op) {
		switch n := p.rand.Intn(8); {
		case n < 3:
			op.Put = p.put()
		case n < 5:
			op.Range = p.ranges()
		case n < 6 || depth == 0:
			op.Delete = p.deletion()
		default:
			op.Txn = p.txn(depth - 1)
		}
		return op
	}
	for range p.rand.Intn(3) {
		t.Success = append(t.Success, op())
	}
	for range p.rand.Intn(2) {
		t.Failure = append(t.Failure, op())
	}
	return t
}

// leaseID is one that a person or a lessee may have granted.
func (p *person) leaseID() id.Lease {
	if p.rand.OneIn(2) {
		return id.Lease(1 + p.rand.Intn(4))
	}
	return id.Lease(500 + p.rand.Intn(4))
}
