package embed

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/join"
	"github.com/kvorum/kvorum/internal/join/static"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// supported refuses what is not built yet with a clear word instead of doing
// something else.
func supported(cfg *Config) error {
	for _, urls := range []config.URLs{cfg.ListenClientURLs, cfg.ListenPeerURLs, cfg.ListenClientHTTPURLs, cfg.ListenMetricsURLs} {
		for i := range urls {
			if scheme := urls[i].Scheme; scheme != "http" {
				return fmt.Errorf("cannot listen on %s: %s is not yet supported", urls[i].String(), scheme)
			}
		}
	}
	if cfg.InitialClusterState == config.ClusterExisting {
		return errors.New("--initial-cluster-state=existing: joining a cluster is not yet supported")
	}
	return nil
}

// identity derives who a fresh member is from --initial-cluster and its token.
func identity(cfg *Config) (join.Identity, []id.Member, error) {
	members, err := cfg.InitialMembers()
	if err != nil {
		return join.Identity{}, nil, err
	}
	if err := cfg.CheckInitialCluster(); err != nil {
		return join.Identity{}, nil, err
	}
	if len(members) > 1 {
		return join.Identity{}, nil, fmt.Errorf("--initial-cluster has %d members: clusters of several members are not yet supported", len(members))
	}
	who := static.MemberID(cfg.AdvertisePeerURLs.Strings(), cfg.InitialClusterToken)
	voters := []id.Member{who}
	return join.Identity{Member: who, Cluster: static.ClusterID(voters)}, voters, nil
}

// publish tells the state this member's name and URLs and waits until it is
// there: from then on the member is known to be able to write.
func (s *Server) publish() error {
	facts := command.MemberPublish{
		Name: s.cfg.Name, PeerURLs: s.cfg.AdvertisePeerURLs.Strings(), ClientURLs: s.cfg.AdvertiseClientURLs.Strings(),
	}
	result := make(waiter, 1)
	// The first read waits for everything that was acknowledged before this start.
	s.member.Barrier(host.Call{To: result, Deadline: s.member.Deadline()})
	if err := s.wait(result); err != nil {
		return err
	}
	if s.member.Publish(host.Call{To: result, Deadline: s.member.Deadline()}, facts) {
		return nil
	}
	if err := s.wait(result); err != nil {
		return err
	}
	s.log.Info("published local member to cluster through raft", "local-member-id", s.home.Member.String(),
		"name", facts.Name, "client-urls", strings.Join(facts.ClientURLs, ","))
	return nil
}

// waiter is the Completions of a call made at start.
type waiter chan host.Result

// Push takes the one result.
func (w waiter) Push(r host.Result) { w <- r }

func (s *Server) wait(result waiter) error {
	select {
	case r := <-result:
		if r.Err != nil {
			return fmt.Errorf("the member does not come up: %w", r.Err)
		}
		return nil
	case err := <-s.failed:
		return err
	}
}

// defaultQuota is what 0 means (spec/server-ops.md 1.2).
const defaultQuota = 2 << 30

func quota(flag int64) int64 {
	switch {
	case flag == 0:
		return defaultQuota
	case flag < 0:
		return 0
	}
	return flag
}

// tell writes what happens in a group to the log.
func (s *Server) tell(group id.Group, e raft.Event) {
	attrs := []any{"group", uint32(group), "term", uint64(e.Term)}
	switch e.Kind {
	case raft.BecameLeader:
		s.log.Info("became leader", attrs...)
	case raft.BecameFollower:
		s.log.Info("became follower", append(attrs, "leader", e.Member.String())...)
	case raft.LeaderKnown:
		s.log.Info("raft.node: leader known", append(attrs, "leader", e.Member.String())...)
	case raft.LostQuorum:
		s.log.Warn("stepped down: no quorum was heard", attrs...)
	case raft.Truncated:
		s.log.Warn("log entries were replaced", append(attrs, "index", uint64(e.Index))...)
	case raft.ConfChanged:
		s.log.Info("configuration took effect", append(attrs, "index", uint64(e.Index))...)
	default:
		s.log.Debug("raft", append(attrs, "event", int(e.Kind))...)
	}
}
