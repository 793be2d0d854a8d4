package embed

import (
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
)

// stalled tells of a disk that does not get the log synced.
func (s *Server) stalled(group id.Group, stall host.Stall) {
	attrs := []any{"group", uint32(group), "lasts", stall.Lasts.String()}
	switch {
	case stall.Over:
		s.log.Info("the disk syncs the log again", attrs...)
	case stall.Heir != 0:
		s.log.Warn("the disk of this leader does not sync the log: handing leadership over", append(attrs, "to", stall.Heir.String())...)
	case stall.Leads:
		s.log.Warn("the disk of this leader does not sync the log: no other member can lead in its place", attrs...)
	default:
		s.log.Warn("the disk of this follower does not sync the log", attrs...)
	}
}
