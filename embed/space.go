package embed

import (
	"log/slog"

	"github.com/kvorum/kvorum/internal/server"
)

// disk tells how full the disks are that log and store lie on: that with the least left
// above its reserve. Errors: the file system's.
func (s *Server) disk() (least server.Disk, err error) {
	spare := func(d server.Disk) int64 { return d.Free - server.Reserve(d.Total) }
	for i, dir := range []string{s.home.Log, s.home.Store} {
		usage, err := s.world.FS.GetDiskUsage(dir)
		if err != nil {
			return server.Disk{}, err
		}
		d := server.Disk{Free: int64(usage.AvailBytes), Total: int64(usage.TotalBytes)}
		if i == 0 || spare(d) < spare(least) {
			least = d
		}
	}
	return least, nil
}

// tellSpace writes what has changed about space to the log.
func (s *Server) tellSpace(n server.SpaceNews) {
	disk := []any{"free-bytes", n.Disk.Free, "reserve-bytes", server.Reserve(n.Disk.Total)}
	switch {
	case n.Low:
		s.log.Error("the disk is almost full: what needs space is refused, and the NOSPACE alarm raised", disk...)
	case n.Over:
		s.log.Info("the disk has space again; the NOSPACE alarm stays until it is disarmed", disk...)
	case n.Near:
		s.log.Warn("the store comes near its quota: compact history, delete keys, or raise --quota-backend-bytes",
			"stored-bytes", n.Bytes, "quota-bytes", n.Quota)
	}
}

// compaction is the automatic one that the flags ask for; they are valid by now.
func (s *Server) compaction() server.Compaction {
	period, revisions, _ := s.cfg.Compaction()
	return server.Compaction{Period: period, Revisions: revisions}
}

// tellCompaction writes how an automatic compaction goes to the log, in the words that
// tools know.
func (s *Server) tellCompaction(n server.CompactionNews) {
	kind, attrs := "revision", []any{"revision", int64(n.To), "revision-compaction-retention", n.Revisions}
	if n.Period > 0 {
		kind, attrs = "periodic", []any{"revision", int64(n.To), "compact-period", n.Period.String()}
	}
	switch {
	case n.Begun:
		s.log.Info("starting auto "+kind+" compaction", attrs...)
	case n.Err != nil:
		s.log.Warn("failed auto "+kind+" compaction; will retry", append(attrs, slog.String("error", n.Err.Error()))...)
	default:
		s.log.Info("completed auto "+kind+" compaction", append(attrs, slog.String("took", n.Took.String()))...)
	}
}
