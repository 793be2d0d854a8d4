package embed

import (
	"context"
	"strconv"

	"github.com/kvorum/kvorum/internal/api/ops"
	"github.com/kvorum/kvorum/internal/host"
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

// Read reads one key, behind a barrier unless serializable.
func (o operator) Read(ctx context.Context, serializable bool) error {
	if !serializable {
		result := make(waiter, 1)
		o.s.member.Barrier(host.Call{To: result, Deadline: o.s.member.Deadline()})
		select {
		case r := <-result:
			if r.Err != nil {
				return r.Err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err := o.s.member.Range(&command.RangeRequest{Key: []byte("health"), Limit: 1, KeysOnly: true, Serializable: serializable})
	return err
}
