package embed

import (
	"context"
	"strconv"

	"github.com/kvorum/kvorum/internal/api/ops"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/join"
	"github.com/kvorum/kvorum/internal/state/command"
)

// operator is the member as the operators' door sees it.
type operator struct{ s *Server }

// Versions are those that tools read (rule 36).
func (o operator) Versions() ops.Versions {
	return ops.Versions{Server: o.s.version, Cluster: o.s.member.ClusterVersion().String(), Storage: o.s.member.StorageVersion().String()}
}

// Alarms are those in force as this member has applied them.
func (o operator) Alarms() (list []ops.Alarm) {
	for _, a := range o.s.member.Alarms() {
		switch a.Type {
		case command.AlarmNoSpace:
			list = append(list, ops.NoSpace)
		case command.AlarmCorrupt:
			list = append(list, ops.Corrupt)
		default:
			list = append(list, ops.Alarm(strconv.Itoa(int(a.Type))))
		}
	}
	return list
}

// HasLeader says whether a leader is known here.
func (o operator) HasLeader() bool { return o.s.member.HasLeader() }

// IsLearner says whether this member has no vote.
func (o operator) IsLearner() bool { return o.s.member.IsLearner() }

// Cluster is what the peer port tells of the cluster.
func (o operator) Cluster() join.Remote {
	remote := join.Remote{Cluster: o.s.home.Cluster, Members: []join.RemoteMember{}}
	for _, m := range o.s.member.Members() {
		remote.Members = append(remote.Members, join.RemoteMember{
			ID: uint64(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.Learner,
		})
	}
	return remote
}

// Downgrading says whether there is a downgrade, behind a barrier.
func (o operator) Downgrading(ctx context.Context) (bool, error) {
	err := o.barrier(ctx)
	return o.s.member.Downgrade() != (command.Version{}), err
}

// barrier waits until this member has applied what was agreed on before now.
func (o operator) barrier(ctx context.Context) error {
	result := make(waiter, 1)
	o.s.member.Barrier(host.Call{To: result, Deadline: o.s.member.Deadline()})
	select {
	case r := <-result:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Read reads one key, behind a barrier unless serializable.
func (o operator) Read(ctx context.Context, serializable bool) error {
	if !serializable {
		if err := o.barrier(ctx); err != nil {
			return err
		}
	}
	_, err := o.s.member.Range(&command.RangeRequest{Key: []byte("health"), Limit: 1, KeysOnly: true, Serializable: serializable})
	return err
}
