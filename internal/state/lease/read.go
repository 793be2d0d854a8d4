package lease

import (
	"bytes"
	"hash"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
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

// nearRows is how many rows a forward iterator steps over before it seeks: about what
// a seek costs.
const nearRows = 8

// forward is an iterator that is asked for one lease after the other. Leases that end
// together are asked for in the order of their IDs, so most of them lie a few rows on
// from the one before.
type forward struct {
	engine.Iterator
	low []byte // what was sought last
}

// seek moves to the first row at or after low.
func (f *forward) seek(low []byte) bool {
	rises := f.Valid() && keys.Compare(f.low, low) < 0
	f.low = append(f.low[:0], low...)
	for range nearRows {
		if !rises {
			break
		}
		// All rows between what was sought before and this one were stepped over.
		if keys.Compare(f.Key(), low) >= 0 {
			return true
		}
		rises = f.Next()
	}
	return f.SeekGE(low)
}

// Weigh counts the keys of leases and their bytes, up to most keys of each, with one
// look at what is committed, until enough says so. Any goroutine may call it. Errors:
// ErrDamaged, *engine.CorruptionError, engine.ErrIterators.
func Weigh(group id.Group, db engine.Reader, list []command.LeaseName, most int, enough func(count, bytes int) bool) error {
	all, err := db.Iter(keys.AppendAllAttached(nil, group), keys.AppendAllAttachedEnd(nil, group))
	if err != nil {
		return err
	}
	it := forward{Iterator: all}
	defer it.Close()
	var low []byte
	for _, name := range list {
		count, bytes := 0, 0
		low = keys.AppendAttached(low[:0], group, name.ID, nil)
		for ok := it.seek(low); ok && count < most; ok = it.Next() {
			_, of, user, whole := keys.DecodeAttached(it.Key())
			if !whole {
				return ErrDamaged
			}
			if of != name.ID {
				break
			}
			count++
			bytes += len(user)
		}
		if err := it.Err(); err != nil || enough(count, bytes) {
			return err
		}
	}
	return nil
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
