package embed

import (
	"time"

	"github.com/kvorum/kvorum/internal/state/command"
)

// speaks is the highest version of a cluster that this program can be part of.
func (s *Server) speaks() command.Version {
	v, _ := command.ParseVersion(s.version)
	return v
}

// refuseDowngrade refuses to run where the cluster has agreed on more than this
// program knows.
func (s *Server) refuseDowngrade() error {
	if s.speaks().Before(s.state.View().ClusterVersion()) {
		return command.ErrLowerVersion
	}
	return nil
}

const (
	// lookForVersion is how often a member that starts looks whether its cluster has
	// a version, versionPatience how long it waits for a higher one that is due.
	lookForVersion  = time.Millisecond
	versionPatience = 2 * time.Second
)

// awaitVersion waits until the cluster has a version, so that no client is refused
// for want of one; and if a higher one is due, a little while for that.
func (s *Server) awaitVersion() error {
	look := time.NewTicker(lookForVersion)
	defer look.Stop()
	for begun := time.Now(); ; {
		due := s.member.Upgrade()
		has := s.member.ClusterVersion()
		if has != (command.Version{}) && (!due || time.Since(begun) > versionPatience) {
			s.log.Info("cluster version", "cluster-version", has.String(), "server-version", s.version)
			return nil
		}
		select {
		case <-look.C:
		case err := <-s.failed:
			return err
		}
	}
}
