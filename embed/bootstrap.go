package embed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/join"
	"github.com/kvorum/kvorum/internal/join/static"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// founding is how a fresh member comes to its cluster.
type founding struct {
	who join.Identity
	// voters are the first configuration; a member that joins has none, and waits
	// for a leader to tell it.
	voters []id.Member
	// members are those that --initial-cluster names, with their ids.
	members []command.GenesisMember
	// again says that the log has the first configuration already.
	again bool
}

// found derives who a fresh member is: from --initial-cluster and its token if it
// forms a cluster with the others, from a running member if it joins one.
func (s *Server) found() (*founding, error) {
	if s.cfg.AdvertiseHost(hostAddress) {
		s.log.Info("advertises the address of this machine to peers", "urls", s.cfg.AdvertisePeerURLs.String())
	}
	if err := s.discover(); err != nil {
		return nil, err
	}
	members, err := s.cfg.InitialMembers()
	if err != nil {
		return nil, err
	}
	own, err := s.cfg.CheckInitialCluster(s.resolve)
	if err != nil {
		return nil, err
	}
	s.cfg.AdvertisePeerURLs = own // another spelling would be another member
	if s.cfg.InitialClusterState == config.ClusterExisting {
		return s.joinRunning(members)
	}
	f := s.derive(members, own)
	return f, s.refuseBootstrapped(members, f.who)
}

// derive makes ids of what --initial-cluster says.
func (s *Server) derive(members []config.InitialMember, own config.URLs) *founding {
	f := &founding{}
	for _, m := range members {
		urls := m.PeerURLs.Strings()
		f.members = append(f.members, command.GenesisMember{Member: static.MemberID(urls, s.cfg.InitialClusterToken), PeerURLs: urls})
	}
	slices.SortFunc(f.members, func(a, b command.GenesisMember) int { return cmp.Compare(a.Member, b.Member) })
	for _, m := range f.members {
		f.voters = append(f.voters, m.Member)
	}
	f.who = join.Identity{
		Member:  static.MemberID(own.Strings(), s.cfg.InitialClusterToken),
		Cluster: static.ClusterID(f.voters),
	}
	return f
}

// foundAgain is for a member that was here before and has nothing in its store: its
// first start may have ended before the members met, and then nobody but its flags
// knows where the others are. Flags that would make another member are ignored.
func (s *Server) foundAgain() *founding {
	if err := s.discover(); err != nil {
		s.log.Warn("the members of the cluster cannot be found again", "error", err.Error())
		return nil
	}
	members, err := s.cfg.InitialMembers()
	i := slices.IndexFunc(members, func(m config.InitialMember) bool { return m.Name == s.cfg.Name })
	if err != nil || i < 0 || s.cfg.ForceNewCluster {
		return nil
	}
	f := s.derive(members, members[i].PeerURLs)
	if f.who != s.home.Identity {
		return nil
	}
	f.again = true
	return f
}

// askPeers bounds the questions that a fresh member has before it starts.
const askPeers = 5 * time.Second

// others lists the peer URLs of all members but this one.
func (s *Server) others(members []config.InitialMember) (urls []string) {
	for _, m := range members {
		if m.Name != s.cfg.Name {
			urls = append(urls, m.PeerURLs.Strings()...)
		}
	}
	return urls
}

// joinRunning asks a running cluster who this member is in it.
func (s *Server) joinRunning(members []config.InitialMember) (*founding, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askPeers)
	defer cancel()
	remote, err := join.Fetch(ctx, s.web(), s.others(members))
	if err != nil {
		return nil, fmt.Errorf("cannot fetch cluster info from peer urls: %w", err)
	}
	var listed [][]string
	f := &founding{}
	for _, m := range members {
		listed = append(listed, m.PeerURLs.Strings())
	}
	if f.who, err = remote.Match(listed, s.cfg.AdvertisePeerURLs.Strings()); err != nil {
		return nil, err
	}
	if err := join.CheckVersion(ctx, s.web(), s.others(members), s.speaks()); err != nil {
		return nil, err
	}
	for _, m := range remote.Members {
		f.members = append(f.members, command.GenesisMember{Member: id.Member(m.ID), PeerURLs: m.PeerURLs})
	}
	return f, nil
}

// refuseBootstrapped refuses to form a cluster anew in which this member, as the
// others know, has been before: its data is lost, and with it its vote.
func (s *Server) refuseBootstrapped(members []config.InitialMember, who join.Identity) error {
	urls := s.others(members)
	if len(urls) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	remote, err := join.Fetch(ctx, s.web(), urls)
	if err != nil {
		return nil // nobody is there yet
	}
	for _, m := range remote.Members {
		if id.Member(m.ID) == who.Member && m.Name != "" {
			return fmt.Errorf("member %s has already been bootstrapped", who.Member)
		}
	}
	return nil
}

// openGroup brings the group to life. A member that has been here before finds its
// configuration in the log.
func (s *Server) openGroup(log *raftlog.Store) (err error) {
	switch {
	case s.founding != nil && !s.founding.again:
		if s.cfg.ForceNewCluster {
			s.log.Warn("--force-new-cluster has no effect: the data directory is empty", "data-dir", s.cfg.DataDir)
		}
		s.group, err = s.host.Open(id.DefaultGroup, s.state, raft.Conf{Voters: s.founding.voters})
	case s.cfg.ForceNewCluster:
		err = s.openAlone()
	default:
		s.group, err = s.host.Open(id.DefaultGroup, s.state, s.lostConf(log))
	}
	return err
}

// openAlone makes this member the only one of its cluster (--force-new-cluster).
func (s *Server) openAlone() error {
	var dropped []id.Member
	var err error
	s.group, dropped, err = s.host.OpenAlone(id.DefaultGroup, s.state, func() (known []id.Member) {
		for _, m := range s.state.View().Members() {
			known = append(known, m.ID)
		}
		return known
	})
	if err != nil {
		return fmt.Errorf("cannot force a new cluster with the data of %s: %w", s.cfg.DataDir, err)
	}
	if len(dropped) == 0 {
		s.log.Info("--force-new-cluster has no effect: there is no other member", "cluster-id", s.home.Cluster.String())
		return nil
	}
	names := make([]string, len(dropped))
	for i, m := range dropped {
		names[i] = m.String()
	}
	s.log.Warn("forcing a new cluster: this member goes on alone with its data, the others are removed and must begin anew",
		"local-member-id", s.home.Member.String(), "cluster-id", s.home.Cluster.String(), "removed", strings.Join(names, ","))
	return nil
}

// publish names the first members, tells this member's name and URLs, and waits
// until both are in the state: from then on the member is known to be able to
// write. A cluster whose members are not there yet is waited for.
func (s *Server) publish() error {
	steps := []func(host.Call) (done bool){
		// What was acknowledged before this start is there after a first read.
		func(call host.Call) bool { s.member.Barrier(call); return false },
	}
	if f := s.founding; f != nil && len(f.voters) > 0 {
		steps = append(steps, func(call host.Call) bool {
			return s.member.Found(call, &command.MemberGenesis{Members: f.members})
		})
	}
	facts := command.MemberPublish{
		Name: s.cfg.Name, PeerURLs: s.cfg.AdvertisePeerURLs.Strings(), ClientURLs: s.cfg.AdvertiseClientURLs.Strings(),
		Version: s.speaks(),
	}
	steps = append(steps, func(call host.Call) bool { return s.member.Publish(call, facts) })
	for _, step := range steps {
		if err := s.insist(step); err != nil {
			return err
		}
	}
	s.log.Info("published local member to cluster through raft", "local-member-id", s.home.Member.String(),
		"name", facts.Name, "client-urls", strings.Join(facts.ClientURLs, ","))
	return s.awaitVersion()
}

// insist makes a call until it succeeds: a cluster without a leader will have one.
func (s *Server) insist(step func(host.Call) (done bool)) error {
	for {
		result := make(waiter, 1)
		if step(host.Call{To: result, Deadline: s.member.Deadline()}) {
			return nil
		}
		err := s.wait(result)
		if err == nil {
			return nil
		}
		again := false
		for _, passing := range []error{host.ErrTimeout, host.ErrTimeoutLeader, host.ErrNoLeader, host.ErrLeaderChanged} {
			again = again || errors.Is(err, passing)
		}
		if !again {
			return err
		}
		s.log.Warn("still waiting for the cluster", "reason", err.Error())
	}
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

// farewell is how long a member that was removed still answers: who removed it may
// have asked it to.
const farewell = time.Second

// removed ends a member that the others have removed.
func (s *Server) removed() {
	time.AfterFunc(farewell, func() { s.fail(errRemoved) })
}

// tell writes what happens in a group to the log.
func (s *Server) tell(group id.Group, e raft.Event) {
	attrs := []any{"group", uint32(group), "term", uint64(e.Term)}
	switch e.Kind {
	case raft.Removed:
		s.removed()
	case raft.BecameLeader:
		s.log.Info("became leader", attrs...)
	case raft.BecameFollower:
		s.log.Info("became follower", append(attrs, "leader", e.Member.String())...)
	case raft.LeaderKnown:
		s.tallies.leaderKnown(e.Member)
		s.log.Info("raft.node: leader known", append(attrs, "leader", e.Member.String())...)
	case raft.LostQuorum:
		s.log.Warn("stepped down: no quorum was heard", attrs...)
	case raft.Healed:
		go s.repaired(e)
	case raft.Truncated:
		s.log.Warn("log entries were replaced", append(attrs, "index", uint64(e.Index))...)
	case raft.ConfChanged:
		s.log.Info("configuration took effect", append(attrs, "index", uint64(e.Index))...)
	default:
		s.log.Debug("raft", append(attrs, "event", int(e.Kind))...)
	}
}
