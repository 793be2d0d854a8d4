package lease

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Weight says about how many keys hang on a lease and how many bytes they have. It is
// told again when there are twice or half as many: of most leases it is told once.
type Weight struct{ keys, bytes uint8 }

// lightBytes is what the keys of the lightest leases have together at most.
const lightBytes = 255

// Most is how many keys there may be, at least one, and how many bytes they have at
// most. There may be half as many, and one less.
func (w Weight) Most() (keys, bytes int) {
	return 2<<w.keys - 1, (lightBytes+1)<<w.bytes - 1
}

// load is what is known in memory of the keys of one lease. What decides which keys a
// lease has is exact or says that it does not know:
//
//	count 0             none
//	sole != 0           this one
//	otherwise           the engine knows
//
// A key of a restored backup may name a lease that was not there, and hangs on nothing
// though it is detached one day from another lease of that ID. So a count may be too
// small where no key is known, and does not come down to 0 there.
type load struct {
	bytes uint64 // of all keys, about
	count uint32
	sole  soleKey
}

func (l *load) weight() Weight {
	return Weight{uint8(bits.Len32(l.count >> 1)), uint8(min(bits.Len64(l.bytes/(lightBytes+1)), 40))}
}

// gain notes that a key hangs on a lease from now on.
func (t *Table) gain(key []byte, lease id.Lease) {
	f, known := t.leases[lease]
	if !known {
		return
	}
	t.add(&f.load, key)
	t.weighed(lease, f)
}

// add counts one more key.
func (t *Table) add(l *load, key []byte) {
	t.soles.forget(l.sole)
	l.sole = 0
	if l.count == 0 {
		l.sole = t.soles.keep(key)
	}
	if l.count < math.MaxUint32 {
		l.count++
	}
	l.bytes += uint64(len(key))
}

// lose notes that a key does not hang on a lease any more, or never did.
func (t *Table) lose(key []byte, lease id.Lease) {
	f, known := t.leases[lease]
	switch {
	case !known || f.load.count == 0:
		return
	case f.load.sole == 0:
		f.load.count = max(f.load.count-1, 1)
		f.load.bytes -= min(uint64(len(key)), f.load.bytes)
	case !bytes.Equal(t.soles.append(t.row[:0], f.load.sole, int(f.load.bytes)), key):
		return
	default:
		t.soles.forget(f.load.sole)
		f.load = load{}
	}
	t.weighed(lease, f)
}

// weighed stores what has become of a lease's load, and tells it if it is another.
func (t *Table) weighed(lease id.Lease, f facts) {
	before := t.leases[lease]
	t.leases[lease] = f
	if f.load.weight() != before.load.weight() {
		t.changes = append(t.changes, f.of(lease))
	}
}

// remembered lists the keys of a lease, if they are known in memory.
func (t *Table) remembered(lease id.Lease) (list [][]byte, known bool) {
	l := t.leases[lease].load
	if l.sole != 0 {
		return [][]byte{t.soles.append(nil, l.sole, int(l.bytes))}, true
	}
	return nil, l.count == 0
}

// weigh counts the keys of a lease anew. The rows stand at or before the first of
// them, and behind the last one afterwards: their order is that of the leases' rows.
func (t *Table) weigh(lease id.Lease, rows engine.Iterator) (l load, err error) {
	for ; rows.Valid(); rows.Next() {
		_, of, user, whole := keys.DecodeAttached(rows.Key())
		switch {
		case !whole:
			return l, fmt.Errorf("%s: %w", keys.Text(rows.Key()), ErrDamaged)
		case uint64(of) > uint64(lease):
			return l, nil
		case of == lease:
			t.add(&l, user)
		}
	}
	return l, rows.Err()
}

// KeepKeys gives the memory of keys another budget in bytes, and forgets those that it
// has. It changes how fast leases end, and nothing else.
func (t *Table) KeepKeys(budget int) {
	t.soles.budget = budget
	t.soles.reset()
	for lease, f := range t.leases {
		f.load.sole = 0
		t.leases[lease] = f
	}
}
