//go:build !defects

package sim

import (
	"errors"

	"github.com/kvorum/kvorum/internal/defect"
)

// plant refuses: this binary carries no defects.
func plant(string) (defect.Defect, error) {
	return defect.None, errors.New("defects are only in a binary built with -tags defects")
}
