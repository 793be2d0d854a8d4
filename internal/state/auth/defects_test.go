//go:build defects

package auth

import (
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
)

// The oracle finds every mistake that was ever made in the judging of a request.
func TestTheOracleFindsDefects(t *testing.T) {
	defer defect.Plant(defect.None)
	for _, d := range []defect.Defect{
		defect.NestedTxnUnchecked, defect.NestedPrevUnchecked, defect.NestedLeaseUnchecked, defect.OpenEndForgotten,
		defect.MaintenanceForNobody, defect.FailureBranchUnchecked, defect.ComparesUnchecked, defect.DeletePrevUnchecked,
		defect.LeaseKeysUnchecked, defect.GapCovered,
	} {
		defect.Plant(d)
		if what, _ := disagreement(t, 10_000); what == "" {
			t.Errorf("%v: not found", d)
		}
	}
}
