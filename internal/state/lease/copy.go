package lease

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// List reads all leases from a store that does not change, such as a checkpoint, in
// the order of their rows. Errors: ErrDamaged, *engine.CorruptionError,
// engine.ErrIterators.
func List(group id.Group, from engine.Reader) (list []Facts, err error) {
	it, err := from.Iter(keys.AppendLeases(nil, group), keys.AppendLeasesEnd(nil, group))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.Next(); ok; ok = it.Next() {
		row, err := it.Value()
		if err != nil {
			return nil, err
		}
		_, lease, named := keys.DecodeLease(it.Key())
		f, err := decodeFacts(row)
		if err != nil || !named {
			return nil, fmt.Errorf("%s: %w", keys.Text(it.Key()), ErrDamaged)
		}
		list = append(list, f.of(lease).Facts)
	}
	return list, it.Err()
}

// ErrInvalid is wrapped by the error of a lease that no command could have granted.
var ErrInvalid = errors.New("invalid lease")

// Rows makes the rows of leases that come from elsewhere, in the order of keys: they
// are born in that order, whatever their birth says. The row that counts them is shown
// to meta, if there are any. Errors: ErrInvalid, what row and meta return.
func Rows(group id.Group, list []Facts, row, meta func(key, row []byte) error) error {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Facts) int { return cmp.Compare(uint64(a.ID), uint64(b.ID)) })
	for i, f := range list {
		if f.ID == 0 || f.TTL < 1 || f.TTL > command.MaxLeaseTTL || f.Remaining < 0 || i > 0 && list[i-1].ID == f.ID {
			return fmt.Errorf("%w %016x with a time to live of %d s, %d remaining", ErrInvalid, uint64(f.ID), f.TTL, f.Remaining)
		}
		is := facts{birth: command.LeaseBirth(i + 1), ttl: f.TTL, remaining: min(f.Remaining, f.TTL)}
		if err := row(keys.AppendLease(nil, group, f.ID), appendFacts(nil, is)); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	return meta(keys.AppendMeta(nil, group, rowBirths), appendBirths(nil, command.LeaseBirth(len(list))))
}
