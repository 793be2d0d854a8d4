package server

import (
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Downgrades (docs/decisions/0037): Upgrade brings the version of the cluster down.

// ChangeDowngrade begins a downgrade or ends one, by a *command.DowngradeEnable or
// *command.DowngradeCancel. Results: *command.DowngradeResponse. Errors: those of the
// judgement, which asks for the role root; of an Enable those of JudgeDowngrade; the host's.
func (s Session) ChangeDowngrade(call host.Call, change command.Body) {
	s.propose(call, nil, 0, change)
}

// JudgeDowngrade says whether the cluster may be brought down to a version, by what this
// member has applied. Errors: command.ErrNoClusterVersion, ErrDowngradeTarget,
// ErrDowngrading.
func (m *Member) JudgeDowngrade(target command.Version) error {
	return m.opts.State.View().JudgeDowngrade(target)
}

// Downgrade is the version that the cluster is being brought down to, as far as this
// member has applied; zero if it is not.
func (m *Member) Downgrade() command.Version { return m.opts.State.View().Downgrade() }

// EndDowngrade ends a downgrade that is over if this member leads: a duty (rule 14). It
// returns at once, and is to be called again and again.
func (m *Member) EndDowngrade() {
	if m.opts.State.View().Downgraded() {
		m.versionDuty(&command.DowngradeEnd{})
	}
}
