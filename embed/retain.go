package embed

import (
	"time"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
)

// The log is kept for members that were away: so much of it, but no more than this
// part of the disk (rule 8).
const (
	retainAtMost = 1 << 30
	retainShare  = 20
)

// limits are the host's own, but for what the disk decides.
func (s *Server) limits() host.Limits {
	retain := int64(retainAtMost)
	if disk, err := s.world.FS.GetDiskUsage(s.home.Log); err == nil {
		retain = min(retain, max(1, int64(disk.TotalBytes/retainShare)))
	}
	s.log.Info("keeps so much of the log for members that were away", "bytes", retain)
	return host.Limits{RetainBytes: retain, Priority: s.cfg.Gates.PriorityRequest}
}

// trouble tells of what will be tried again.
func (s *Server) trouble(group id.Group, err error) {
	s.log.Warn("a snapshot failed and will be tried again", "group", uint32(group), "error", err.Error())
}

// What the log says of the way of a whole state to another member.
const (
	sendingSnapshot   = "sending a snapshot"
	receivingSnapshot = "receiving a snapshot"
)

// tellSnapshot writes how the transfer of a state goes to the log.
func (s *Server) tellSnapshot(group id.Group, n host.SnapshotNews) {
	s.tallies.snapshots.note(&n)
	attrs := []any{"group", uint32(group), "peer-id", n.Member.String(), "index", uint64(n.At.Index), "term", uint64(n.At.Term)}
	what := receivingSnapshot
	if n.Sending {
		what = sendingSnapshot
	}
	if n.Stage == host.SnapshotBegun {
		s.log.Info(what, attrs...)
		return
	}
	attrs = append(attrs, "bytes", n.Bytes, "took", n.Took.Round(time.Millisecond).String())
	if n.Stage == host.SnapshotComplete {
		s.log.Info(what+" is complete", attrs...)
	} else {
		s.log.Warn(what+" was given up", attrs...)
	}
}
