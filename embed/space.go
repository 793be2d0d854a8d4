package embed

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/kvorum/kvorum/internal/config"
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

const (
	// reclaimLook is how often a member whose disk is low looks whether there is something
	// to give back.
	reclaimLook = 10 * time.Second
	// reclaimLeast is how much there must be.
	reclaimLeast = 16 << 20
)

// reclaim has giveBack look, and waits for it. Errors: the context's, the store's.
func (s *Server) reclaim(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case s.reclaims <- answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveBack gives back the disk space of what was removed, when it is told to and while
// the disk is low: there new rows, which would bring that about, are refused.
func (s *Server) giveBack(ctx context.Context) {
	look := time.NewTicker(reclaimLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if s.member.DiskLow() {
				s.giveBackNow(ctx)
			}
		case answer := <-s.reclaims:
			answer <- s.giveBackNow(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// reclaimer is a store that gives disk space back by rewriting itself.
type reclaimer interface {
	Reclaim(ctx context.Context) error
}

// rewrite has the store give disk space back, and counts it.
func (s *Server) rewrite(ctx context.Context, store reclaimer) error {
	s.tallies.rewriting.Add(1)
	defer s.tallies.rewriting.Add(-1)
	begun := time.Now()
	err := store.Reclaim(ctx)
	s.tallies.rewrites.Took(time.Since(begun))
	return err
}

// giveBackNow rewrites the store if at least half of it is of no use, and there is room
// for the other half beside it. The count of what is stored is more than it takes on
// disk, where it is compressed.
func (s *Server) giveBackNow(ctx context.Context) error {
	store, ok := s.db.(reclaimer)
	holds, needs := s.db.Metrics().DiskBytes, s.member.Status().Bytes
	disk, err := s.disk()
	if !ok || err != nil || holds < 2*needs+reclaimLeast || disk.Free < needs+reclaimLeast {
		return err
	}
	begun := time.Now()
	err = s.rewrite(ctx, store)
	attrs := []any{"before-bytes", holds, "after-bytes", s.db.Metrics().DiskBytes, "took", time.Since(begun).String()}
	if err != nil {
		s.log.Warn("disk space could not be given back", append(attrs, slog.String("error", err.Error()))...)
		return err
	}
	s.log.Info("gave disk space back", attrs...)
	return nil
}

// removalRest is the pause between two steps of a compaction, if the flag says one: at
// least 1 ms, 0 for the state's own.
func (s *Server) removalRest() time.Duration {
	if s.cfg.CompactionSleepInterval == config.DefaultCompactionSleep {
		return 0
	}
	return max(s.cfg.CompactionSleepInterval, time.Millisecond)
}

// defragmentFirst rewrites the store before anybody is served, if at least as much of it
// is of no use as --bootstrap-defrag-threshold-megabytes says, and there is room for the
// rest beside it. Damage that it meets is the store's to tell (Server.storeDamaged), and
// no reason to stay down.
func (s *Server) defragmentFirst() {
	threshold := int64(min(s.cfg.BootstrapDefragMegabytes, math.MaxInt64>>20)) << 20
	store, ok := s.db.(reclaimer)
	if threshold == 0 || !ok {
		return
	}
	holds, needs := s.db.Metrics().DiskBytes, s.state.View().State().Bytes()
	attrs := []any{"bootstrap-defrag-threshold-megabytes", s.cfg.BootstrapDefragMegabytes, "before-bytes", holds, "in-use-bytes", needs}
	disk, err := s.disk()
	if err == nil && (holds-needs < threshold || disk.Free < needs+reclaimLeast) {
		s.log.Info("skipped the defragmentation of a start", append(attrs, "free-bytes", disk.Free)...)
		return
	}
	begun := time.Now()
	if err == nil {
		err = s.rewrite(context.Background(), store)
	}
	if err != nil {
		s.log.Warn("the defragmentation of a start has failed", append(attrs, slog.String("error", err.Error()))...)
		return
	}
	s.log.Info("defragmented the store before serving", append(attrs, "after-bytes", s.db.Metrics().DiskBytes, "took", time.Since(begun).String())...)
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

// tellHistory writes to the log that watches far behind are slower from now on.
func (s *Server) tellHistory(err error) {
	s.log.Warn("history could not be put in order on the disk: watches that are far behind catch up more slowly until the next start",
		slog.String("error", err.Error()))
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
