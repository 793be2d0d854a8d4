package server

import (
	"slices"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/member"
)

// Publish tells the cluster this member's name, URLs and version, once, when they are
// not what the state already has. published is true when nothing needed to be said;
// otherwise the result goes to call.To.
func (m *Member) Publish(call host.Call, facts command.MemberPublish) (published bool) {
	facts.Member = m.opts.Member
	known, ok := m.opts.State.View().Member(facts.Member)
	if ok && known.Name == facts.Name && slices.Equal(known.ClientURLs, facts.ClientURLs) && known.Version == facts.Version {
		return true
	}
	m.proposeOwn(call, &facts)
	return false
}

// Found names the first members of the cluster, unless somebody has done so:
// founded is true then; otherwise the result goes to call.To.
func (m *Member) Found(call host.Call, first *command.MemberGenesis) (founded bool) {
	if len(m.Members()) > 0 {
		return true
	}
	m.proposeOwn(call, first)
	return false
}

// Members lists the members by id, as this member has applied them.
func (m *Member) Members() []member.Facts { return m.opts.State.View().Members() }

// Capable says whether all members know what came with a version: the cluster has
// agreed on that one or a later one.
func (m *Member) Capable(needs command.Version) bool {
	has := m.ClusterVersion()
	return has != (command.Version{}) && !has.Before(needs)
}

// ClusterVersion is the version that the members have agreed on; zero until then.
func (m *Member) ClusterVersion() command.Version { return m.opts.State.View().ClusterVersion() }

// StorageVersion is the version of what is stored: that of the cluster, as far as it
// says so (from 3.6 on); zero until then.
func (m *Member) StorageVersion() command.Version {
	has := m.ClusterVersion()
	if has.Before(command.Version{Major: 3, Minor: 6}) {
		return command.Version{}
	}
	return has
}

// IsLearner says whether this member follows the log without a vote in it.
func (m *Member) IsLearner() bool { return !m.opts.Group.Votes() }
