//go:build defects

package host

import (
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
)

// Each deliberate mistake of this package is found by the random worlds: a checker
// that has never caught anything proves nothing.
func TestPlantedDefectsAreFound(t *testing.T) {
	defer defect.Plant(defect.None)
	random := func(members int) func(testing.TB, uint64) {
		return func(t testing.TB, seed uint64) { randomWorld(t, seed, members) }
	}
	for _, d := range []struct {
		defect defect.Defect
		world  func(testing.TB, uint64)
		seeds  uint64
	}{
		{defect.AckBeforeSync, random(1), 100},
		{defect.StartWithoutTermCheck, func(t testing.TB, _ uint64) { crashBetweenStateAndLog(t) }, 1},
		{defect.ResendWithoutWindow, random(3), 100},
		{defect.DutyOutlivesTerm, random(3), 100},
		{defect.ServeReadAtOnce, random(3), 100},
	} {
		found := uint64(0)
		for seed := uint64(1); seed <= d.seeds && found == 0; seed++ {
			defect.Plant(defect.None)
			if why := story(t, seed, d.world); why != "" {
				t.Fatalf("seed %d without a defect: %s", seed, why)
			}
			defect.Plant(d.defect)
			if why := story(t, seed, d.world); why != "" {
				found = seed
				t.Logf("%v: seed %d: %s", d.defect, seed, why)
			}
		}
		if found == 0 {
			t.Errorf("%v was not found within %d seeds", d.defect, d.seeds)
		}
	}
}

// story runs a random world and says what it complained of.
func story(t *testing.T, seed uint64, world func(testing.TB, uint64)) (why string) {
	r := &recorder{TB: t}
	defer func() {
		if broken := recover(); broken != nil {
			why = fmt.Sprint(broken)
		} else if len(r.complaints) > 0 {
			why = r.complaints[0]
		}
	}()
	world(r, seed)
	return ""
}

// recorder is a test that keeps its complaints to itself.
type recorder struct {
	testing.TB
	complaints []string
}

func (r *recorder) Helper()             {}
func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Errorf(f string, a ...any) {
	r.complaints = append(r.complaints, fmt.Sprintf(f, a...))
}
func (r *recorder) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
