package lease

import (
	"bytes"
	"hash"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// keysAtOnce is how many keys an iterator is kept open for (rule 23).
const keysAtOnce = 1024

// ReadKeys lists up to most keys of a lease from what is committed, in byte order;
// of more than 1024 keys some may be of a later commit than others. Any goroutine
// may call it. Errors: ErrDamaged, *engine.CorruptionError, engine.ErrIterators.
func ReadKeys(group id.Group, db engine.Reader, lease id.Lease, most int) (list [][]byte, err error) {
	low, high := keys.AppendAttached(nil, group, lease, nil), keys.AppendAttachedEnd(nil, group, lease)
	for {
		n := min(most-len(list), keysAtOnce)
		got, err := readKeys(db, low, high, n)
		list = append(list, got...)
		if err != nil || len(got) < n || len(list) == most {
			return list, err
		}
		low = keys.AppendAttached(low[:0], group, lease, append(got[n-1], 0)) // nothing lies between a key and this one
	}
}

func readKeys(db engine.Reader, low, high []byte, most int) (list [][]byte, err error) {
	it, err := db.Iter(low, high)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.SeekGE(low); ok && len(list) < most; ok = it.Next() {
		_, _, user, ok := keys.DecodeAttached(it.Key())
		if !ok {
			return nil, ErrDamaged
		}
		list = append(list, bytes.Clone(user))
	}
	return list, it.Err()
}

// attached is an iterator over the keys of one lease after the other. Leases that end
// together leave as many deleted rows behind: what lies between two of them, or behind
// the last key of one, must not be walked over.
type attached struct {
	engine.Iterator
	group     id.Group
	low, high []byte
}

func openAttached(db engine.Reader, group id.Group) (*attached, error) {
	it, err := db.Iter(keys.AppendAllAttached(nil, group), keys.AppendAllAttachedEnd(nil, group))
	return &attached{Iterator: it, group: group}, err
}

// first moves to the first key of a lease. Next goes on, and is false behind the last.
func (a *attached) first(of id.Lease) bool {
	a.low, a.high = keys.AppendAttached(a.low[:0], a.group, of, nil), keys.AppendAttachedEnd(a.high[:0], a.group, of)
	a.Bound(a.low, a.high)
	return a.SeekGE(a.low)
}

// Hash feeds h with all facts, in one order. It reads every row.
func (t *Table) Hash(h hash.Hash) error {
	h.Write(appendBirths(nil, t.births))
	for _, span := range [...][2][]byte{
		{keys.AppendLeases(nil, t.group), keys.AppendLeasesEnd(nil, t.group)},
		{keys.AppendAllAttached(nil, t.group), keys.AppendAllAttachedEnd(nil, t.group)},
	} {
		err := t.walk(span[0], span[1], func(key, row []byte) error {
			h.Write(key)
			h.Write([]byte{byte(len(row))})
			h.Write(row)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
