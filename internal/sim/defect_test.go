//go:build defects

package sim

import (
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
)

// Every deliberate mistake is found within the number of seeds that its profile
// states, and by nothing but the mistake: the world that finds it passes without.
// Worlds share what is planted, so one runs after the other:
//
//	go test -tags defects -run Defects -v ./internal/sim
func TestDefectsAreFound(t *testing.T) {
	for _, d := range found() {
		p, known := profileOf(d)
		if !known {
			t.Errorf("no profile for %v", d)
			continue
		}
		t.Run(d.String(), func(t *testing.T) {
			defer defect.Plant(defect.None)
			defect.Plant(d)
			o := Options{Seed: max(1, p.from), Replicas: p.replicas, Cluster: p.cluster, Profile: p.tilt}
			var first *Report
			Campaign(o, p.within-p.from, func(r Report) bool {
				if r.Failure != nil {
					first = &r
				}
				return first != nil
			})
			if first == nil {
				t.Fatalf("not found within %d seeds", p.within)
			}
			t.Logf("seed %d of %d: %.300s", first.Seed, p.within, first.Failure)
			defect.Plant(defect.None)
			o.Seed = first.Seed
			if r := Run(o); r.Failure != nil {
				t.Errorf("the world of seed %d fails without the mistake too: %v", first.Seed, r.Failure)
			}
		})
	}
}
