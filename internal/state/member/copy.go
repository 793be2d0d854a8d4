package member

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Rows makes the rows of the members of a cluster that begins with a state from
// elsewhere: row is shown each. Errors: what row returns.
func Rows(group id.Group, list []Facts, row func(key, row []byte) error) error {
	for _, f := range list {
		if err := row(keys.AppendMeta(nil, group, rowName(f.ID)), encode(nil, f)); err != nil {
			return err
		}
	}
	return nil
}

// AllRemoved lists the members that were removed, by ID. The slice is shared and
// read-only.
func (t Table) AllRemoved() []id.Member { return t.removed }
