package embed

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/rpc"
)

const (
	// slowKept lines wait to be written; slowPerSecond are written at most: when a disk
	// stalls every request is slow, and the log is not to be the next thing that is.
	slowKept      = 64
	slowPerSecond = 20
)

// slowness has what was slow told by a goroutine of its own: those who notice must
// not wait.
type slowness struct {
	lines  chan slowLine
	unsaid atomic.Uint64
}

type slowLine struct {
	msg   string
	attrs []slog.Attr
}

func (s *slowness) tell(msg string, attrs ...slog.Attr) {
	select {
	case s.lines <- slowLine{msg, attrs}:
	default:
		s.unsaid.Add(1)
	}
}

// write writes the lines until ctx ends.
func (s *slowness) write(ctx context.Context, log *slog.Logger) {
	second, written := time.Now(), 0
	for {
		select {
		case line := <-s.lines:
			if now := time.Now(); now.Sub(second) >= time.Second {
				second, written = now, 0
			}
			if written++; written > slowPerSecond {
				s.unsaid.Add(1)
				continue
			}
			if n := s.unsaid.Swap(0); n > 0 {
				line.attrs = append(line.attrs, slog.Uint64("similar-lines-left-out", n))
			}
			log.LogAttrs(ctx, slog.LevelWarn, line.msg, line.attrs...)
		case <-ctx.Done():
			return
		}
	}
}

// slowApply tells of a turn of the applier.
func (s *Server) slowApply(group id.Group, a host.SlowApply) {
	s.slow.tell("apply request took too long",
		slog.Uint64("group", uint64(group)), slog.Duration("took", a.Took), slog.Duration("expected-duration", s.cfg.WarningApplyDuration),
		slog.Uint64("first-index", uint64(a.First)), slog.Uint64("last-index", uint64(a.Last)), slog.Int("commands", a.Commands), slog.Int("bytes", a.Bytes))
}

// slowestLately are the slowest sync of the log, and turn of applying, of the last second
// or two.
func (s *Server) slowestLately() (sync, apply time.Duration) {
	return time.Duration(s.raftLog.Measured().SlowestSync.Lately()), time.Duration(s.host.Measured().SlowestApply.Lately())
}

// slowCall tells of a unary call, and of what it most likely waited for.
func (s *Server) slowCall(c rpc.SlowCall) {
	sync, apply := s.slowestLately()
	attrs := []slog.Attr{
		slog.Time("start time", time.Now().Add(-c.Took)), slog.Duration("time spent", c.Took), slog.String("remote", c.Peer),
		slog.String("response type", c.Method), slog.String("code", c.Code.String()),
		slog.String("cause", s.cause(c.Took, sync, apply)), slog.Duration("slowest-sync", sync), slog.Duration("slowest-apply", apply),
		slog.Duration("expected-duration", s.cfg.WarningUnaryRequestDuration),
	}
	if c.RequestBytes >= 0 {
		attrs = append(attrs, slog.Int("request size", c.RequestBytes))
	}
	s.slow.tell("request stats", attrs...)
}

// cause names what took at least half of the time that a call took; what happened
// a second or two before is taken for it, too.
func (s *Server) cause(took, sync, apply time.Duration) string {
	var causes []string
	if 2*sync >= took {
		causes = append(causes, "the disk was slow to sync the log")
	}
	if 2*apply >= took {
		causes = append(causes, "applying was slow")
	}
	switch leader := s.group.Leader(); {
	case leader == 0:
		causes = append(causes, "there is no leader")
	case len(causes) > 0:
	case leader != s.home.Member:
		causes = append(causes, "the leader was slow to answer")
	case len(s.peers.Peers()) > 0:
		causes = append(causes, "the other members were slow to answer, or there was much to do")
	default:
		causes = append(causes, "there was much to do")
	}
	return strings.Join(causes, "; ")
}
