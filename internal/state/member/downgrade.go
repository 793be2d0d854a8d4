package member

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Downgrade is the version that the cluster is being brought down to; zero if it is not.
func (t Table) Downgrade() command.Version { return t.target }

// JudgeDowngrade says whether the cluster may be brought down to a version: the one
// before its own, unless that is under way. Errors: command.ErrNoClusterVersion,
// ErrDowngradeTarget, ErrDowngrading, in this order, which is etcd's.
func (t Table) JudgeDowngrade(target command.Version) error {
	switch {
	case t.version == (command.Version{}):
		return command.ErrNoClusterVersion
	case t.version.Minor == 0 || target != command.Version{Major: t.version.Major, Minor: t.version.Minor - 1}:
		return command.ErrDowngradeTarget
	case t.target != (command.Version{}):
		return command.ErrDowngrading
	}
	return nil
}

// EnableDowngrade begins to bring the cluster down: SetVersion is due. Errors: as of
// JudgeDowngrade.
func (t Table) EnableDowngrade(group id.Group, batch engine.Batch, target command.Version) (Table, error) {
	if err := t.JudgeDowngrade(target); err != nil {
		return t, err
	}
	t.target = target
	batch.Set(keys.AppendMeta(nil, group, targetFirst), encodeVersion(nil, target))
	return t, nil
}

// CancelDowngrade lets the version of the cluster rise again, if it is being brought down.
func (t Table) CancelDowngrade(group id.Group, batch engine.Batch) Table {
	if t.target != (command.Version{}) {
		t.target = command.Version{}
		batch.Delete(keys.AppendMeta(nil, group, targetFirst))
	}
	return t
}

// Downgraded says whether a downgrade is over: the cluster has the version, and no
// member can be part of one that has more.
func (t Table) Downgraded() bool {
	if t.target == (command.Version{}) || t.target != t.version {
		return false
	}
	for i := range t.facts {
		if t.facts[i].Version != t.target {
			return false
		}
	}
	return true
}

// EndDowngrade is what becomes of a downgrade that is over. Errors:
// command.ErrDowngradeNotOver.
func (t Table) EndDowngrade(group id.Group, batch engine.Batch) (Table, error) {
	if !t.Downgraded() {
		return t, command.ErrDowngradeNotOver
	}
	return t.CancelDowngrade(group, batch), nil
}
