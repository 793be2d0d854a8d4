package state

import "github.com/kvorum/kvorum/internal/state/command"

// A downgrade prepares a cluster for programs of the version before (docs/decisions/0037).
// Here it is a fact; the leader's duty does the rest (server/upgrade.go).

func (m *Machine) enableDowngrade(d *command.DowngradeEnable) (_ *command.DowngradeResponse, err error) {
	if m.members, err = m.members.EnableDowngrade(m.group, m.batch, d.Target); err != nil {
		return nil, err
	}
	return m.downgradeResponse(), nil
}

func (m *Machine) cancelDowngrade() *command.DowngradeResponse {
	m.members = m.members.CancelDowngrade(m.group, m.batch)
	return m.downgradeResponse()
}

func (m *Machine) downgradeResponse() *command.DowngradeResponse {
	return &command.DowngradeResponse{Revision: m.store.State().Revision, Version: m.members.Version()}
}

// Downgrade is the version that the cluster is being brought down to; zero if it is not.
func (v *View) Downgrade() command.Version { return v.members.Downgrade() }

// Downgraded says whether a downgrade is over (member.Table.Downgraded).
func (v *View) Downgraded() bool { return v.members.Downgraded() }

// JudgeDowngrade says whether the cluster may be brought down to a version
// (member.Table.JudgeDowngrade).
func (v *View) JudgeDowngrade(target command.Version) error { return v.members.JudgeDowngrade(target) }
