package embed

import (
	"context"
	"math"
	"time"

	"github.com/kvorum/kvorum/internal/config"
)

// minLeaseTTL is the least time to live of a lease in seconds: one and a half
// election time-outs, so that a change of the leader is shorter (spec/v3-api.md 4).
func minLeaseTTL(cfg *config.Config) int64 {
	return int64(math.Ceil(1.5 * cfg.ElectionTimeout.Seconds()))
}

// leaseCheckpoint is how often long leases are checkpointed, where that is asked for.
func leaseCheckpoint(cfg *config.Config) time.Duration {
	if cfg.Gates.LeaseCheckpoint {
		return 5 * time.Minute
	}
	return 0
}

// expireLeases lets the time of leases go on until ctx ends.
func (s *Server) expireLeases(ctx context.Context) {
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			look.Reset(s.member.Expire().Sub(s.world.Clock.Now()))
		case <-ctx.Done():
			return
		}
	}
}
