package embed

import (
	"context"
	"math"
	"time"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/env"
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

// often does what says itself when it is to be done again, until that is never or ctx
// ends.
func (s *Server) often(ctx context.Context, do func() (again env.Instant)) {
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			again := do()
			if again == env.Never {
				return
			}
			look.Reset(again.Sub(s.world.Clock.Now()))
		case <-ctx.Done():
			return
		}
	}
}
