package embed

import (
	"context"
	"time"

	"github.com/kvorum/kvorum/internal/state/command"
)

// endDowngrades looks every --downgrade-check-time whether a downgrade is over, until ctx
// ends.
func (s *Server) endDowngrades(ctx context.Context) {
	if s.cfg.DowngradeCheckTime <= 0 {
		return
	}
	s.duties.Go(func() {
		look := time.NewTicker(s.cfg.DowngradeCheckTime)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				s.member.EndDowngrade()
			case <-ctx.Done():
				return
			}
		}
	})
}

// agreed is what the members have agreed on about versions.
type agreed struct{ version, target command.Version }

func (s *Server) agreed() agreed {
	return agreed{s.member.ClusterVersion(), s.member.Downgrade()}
}

// tellAgreed writes into the log what is not as it was told last.
func (s *Server) tellAgreed(told agreed) agreed {
	now := s.agreed()
	switch none := (command.Version{}); {
	case now.target == told.target:
	case now.target != none:
		s.log.Info("downgrade enabled", "target-version", now.target.String(), "cluster-version", now.version.String())
	default:
		s.log.Info("downgrade ended", "target-version", told.target.String(), "cluster-version", now.version.String())
	}
	if now.version != told.version && told.version != (command.Version{}) {
		s.log.Info("cluster version changed", "from", told.version.String(), "to", now.version.String(), "server-version", s.version)
	}
	return now
}
