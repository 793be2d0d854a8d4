package member

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Version is the version of the cluster; zero until it is decided.
func (t Table) Version() command.Version { return t.version }

// VersionDue is what the version of the cluster is to become now: that of its oldest
// member, or the target of a downgrade, beyond which it does not rise and to which alone
// it falls. As long as a member has not told its own it is command.FirstVersion, or
// stays what it is. It never leaves its major version.
func (t Table) VersionDue() (due command.Version, ok bool) {
	lowers := t.target != (command.Version{})
	if lowers && t.target.Before(t.version) {
		return t.target, true
	}
	for i := range t.facts {
		of := t.facts[i].Version
		if of == (command.Version{}) {
			of = command.FirstVersion
		}
		if i == 0 || of.Before(due) {
			due = of
		}
	}
	if lowers && t.target.Before(due) {
		due = t.target
	}
	decided := t.version != (command.Version{})
	return due, len(t.facts) > 0 && t.version.Before(due) && (!decided || t.version.Major == due.Major)
}

// SetVersion sets the version of the cluster. A leader proposes what is due; if a
// member or a downgrade came or went meanwhile it is not any more, and is refused. Errors:
// command.ErrVersionNotDue.
func (t Table) SetVersion(group id.Group, batch engine.Batch, c *command.ClusterVersion) (Table, error) {
	if due, ok := t.VersionDue(); !ok || due != c.Version {
		return t, command.ErrVersionNotDue
	}
	t.version = c.Version
	batch.Set(keys.AppendMeta(nil, group, versionFirst), encodeVersion(nil, t.version))
	return t, nil
}
