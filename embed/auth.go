package embed

import (
	"fmt"
	"os"
	"time"

	"github.com/kvorum/kvorum/internal/credential"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/server"
)

// passwordKeyBytes is the size of the key under which passwords are known.
const passwordKeyBytes = 32

// authOptions reads what the flags say about passwords and tokens, and the keys that
// they name.
func (s *Server) authOptions() (server.AuthOptions, error) {
	cost := int(s.cfg.BcryptCost)
	if cost < credential.LeastCost || cost > credential.MostCost {
		s.log.Warn("use default bcrypt cost instead of the invalid given cost",
			"min-cost", credential.LeastCost, "max-cost", credential.MostCost, "default-cost", credential.DefaultCost, "given-cost", cost)
	}
	o := server.AuthOptions{
		Passwords:    credential.NewPasswords(cost, osenv.Secret(passwordKeyBytes)),
		TokenTTL:     time.Duration(s.cfg.AuthTokenTTL) * time.Second,
		Certificates: s.cfg.ClientTLS.ClientCertAuth,
	}
	if o.TokenTTL <= 0 {
		o.TokenTTL = defaultTokenTTL
	}
	tokens, err := credential.ParseTokenOptions(s.cfg.AuthToken)
	if err != nil {
		return o, fmt.Errorf("--auth-token: %w", err)
	}
	if tokens.JWT {
		signed, err := credential.NewJWT(tokens, os.ReadFile, s.world.Clock)
		if err != nil {
			return o, fmt.Errorf("--auth-token: %w", err)
		}
		o.Signed = signed
	}
	return o, nil
}

// defaultTokenTTL stands for a time to live of 0.
const defaultTokenTTL = 300 * time.Second
