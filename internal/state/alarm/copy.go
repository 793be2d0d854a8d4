package alarm

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Rows makes the rows of alarms that come from elsewhere; one of the type AlarmNone is
// none. Errors: what row returns.
func Rows(group id.Group, list []command.Alarm, row func(key, row []byte) error) error {
	for _, a := range list {
		if a.Type == command.AlarmNone {
			continue
		}
		if err := row(keys.AppendMeta(nil, group, rowName(a)), encode(nil, a)); err != nil {
			return err
		}
	}
	return nil
}
