package mvcc

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// reads is where keys are read from: a View, or the Store within a batch.
type reads interface {
	// scan starts a walk over a range at a revision. The caller closes it.
	scan(key, end []byte, rev id.Revision) (*scan, error)
	// newest is the newest version of a key but for its value, if there is one that
	// is not a tombstone.
	newest(key []byte) (tip, bool, error)
}

// rangeAt answers a range whose revision has been judged: rev is what to read
// at, header the revision that the answer shows.
func rangeAt(from reads, r *command.RangeRequest, rev, header id.Revision) (*command.RangeResponse, error) {
	s, err := from.scan(r.Key, r.End, rev)
	if err != nil {
		return nil, err
	}
	defer s.close()
	c := newCollector(r)
	for !c.full() {
		key, v, err := s.next()
		if err != nil {
			return nil, err
		}
		if v == nil {
			break
		}
		c.add(key, v)
	}
	if c.full() {
		n, err := s.rest()
		if err != nil {
			return nil, err
		}
		c.count += n
		c.more = n > 0 && !r.CountOnly
	}
	kvs, more := c.finish()
	return &command.RangeResponse{Revision: header, KVs: kvs, More: more, Count: c.count}, nil
}

// collector gathers the answer of a range from the versions that a scan yields.
type collector struct {
	r     *command.RangeRequest
	order command.SortOrder
	// sort says that rows are put in another order than the scan's.
	sort bool
	// values says that values are copied; keep is how many rows at most, 0: all.
	values bool
	keep   int64
	kvs    []command.KeyValue
	more   bool
	count  int64
	arena  arena
}

func newCollector(r *command.RangeRequest) *collector {
	c := &collector{r: r, order: r.Order, values: !r.KeysOnly || r.Target == command.SortByValue, keep: max(r.Limit, 0)}
	switch {
	case r.Order == command.SortNone && r.Target == command.SortByKey,
		r.Order == command.SortAscend && r.Target == command.SortByKey:
	case r.Order == command.SortNone:
		// The reference sorts by the target after it has cut in key order, one
		// row behind the limit; not if a filter is set (spec 2.1).
		c.order, c.sort = command.SortAscend, true
		if r.Filtered() {
			c.keep = 0
		} else if c.keep > 0 && c.keep+1 > 0 {
			c.keep++
		}
	default:
		c.sort, c.keep = true, 0
	}
	return c
}

// full says that what follows is only counted.
func (c *collector) full() bool {
	return c.r.CountOnly || c.keep > 0 && int64(len(c.kvs)) >= c.keep && !c.r.Filtered()
}

func (c *collector) add(key []byte, v *version) {
	c.count++
	if c.r.CountOnly || !passes(c.r, v) {
		return
	}
	if c.keep > 0 && int64(len(c.kvs)) >= c.keep {
		c.more = true
		return
	}
	kv := command.KeyValue{Key: c.arena.copy(key), CreateRevision: v.create, ModRevision: v.mod, Version: v.number, Lease: v.lease}
	if c.values {
		kv.Value = c.arena.copy(v.value)
	}
	c.kvs = append(c.kvs, kv)
}

func passes(r *command.RangeRequest, v *version) bool {
	return (r.MinModRevision == 0 || v.mod >= r.MinModRevision) &&
		(r.MaxModRevision == 0 || v.mod <= r.MaxModRevision) &&
		(r.MinCreateRevision == 0 || v.create >= r.MinCreateRevision) &&
		(r.MaxCreateRevision == 0 || v.create <= r.MaxCreateRevision)
}

func (c *collector) finish() (kvs []command.KeyValue, more bool) {
	if c.sort {
		sortBy(c.kvs, c.order, c.r.Target)
	}
	if c.r.Limit > 0 && int64(len(c.kvs)) > c.r.Limit {
		c.kvs, c.more = c.kvs[:c.r.Limit:c.r.Limit], true
	}
	if c.r.KeysOnly && c.values {
		for i := range c.kvs {
			c.kvs[i].Value = nil
		}
	}
	return c.kvs, c.more
}

// sortBy sorts rows that are in key order; ties stay in it, in both directions.
func sortBy(kvs []command.KeyValue, order command.SortOrder, target command.SortTarget) {
	compare := func(a, b *command.KeyValue) int {
		switch target {
		case command.SortByVersion:
			return cmp.Compare(a.Version, b.Version)
		case command.SortByCreate:
			return cmp.Compare(a.CreateRevision, b.CreateRevision)
		case command.SortByMod:
			return cmp.Compare(a.ModRevision, b.ModRevision)
		case command.SortByValue:
			return bytes.Compare(a.Value, b.Value)
		}
		return bytes.Compare(a.Key, b.Key)
	}
	slices.SortStableFunc(kvs, func(a, b command.KeyValue) int {
		if order == command.SortDescend {
			return compare(&b, &a)
		}
		return compare(&a, &b)
	})
}

// arena copies many small byte slices into few large ones, which live as long as
// the answer that they are part of.
type arena struct{ free []byte }

const (
	firstArena = 256
	lastArena  = 64 << 10
)

func (a *arena) copy(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if len(b) > cap(a.free)-len(a.free) {
		size := min(max(2*cap(a.free), firstArena), lastArena)
		if len(b) >= size/2 {
			return bytes.Clone(b)
		}
		a.free = make([]byte, 0, size)
	}
	start := len(a.free)
	a.free = append(a.free, b...)
	return a.free[start:len(a.free):len(a.free)]
}
