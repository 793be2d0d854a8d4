//go:build defects

package raftlog_test

import (
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
)

// caught is what a planted defect ends a history with.
type caught struct{ why string }

type catcher struct{}

func (catcher) Helper()                      {}
func (catcher) Fatalf(f string, args ...any) { panic(caught{fmt.Sprintf(f, args...)}) }

// TestEveryDefectIsFound plants each mistake that the log can carry and expects
// the histories to find it.
func TestEveryDefectIsFound(t *testing.T) {
	defer defect.Plant(defect.None)
	for _, c := range []struct {
		defect.Defect
		seeds uint64
	}{
		{defect.RecoverWithoutSync, 200},
		{defect.NoDirectorySync, 40},
		{defect.TornTakenForCorrupt, 20},
	} {
		defect.Plant(c.Defect)
		found := ""
		seed := uint64(0)
		for seed = 1; seed <= c.seeds && found == ""; seed++ {
			found = play(seed)
		}
		if found == "" {
			t.Errorf("%v: not found in %d seeds", c.Defect, c.seeds)
			continue
		}
		t.Logf("%v: found by seed %d: %s", c.Defect, seed-1, found)
	}
}

func play(seed uint64) (found string) {
	defer func() {
		if p := recover(); p != nil {
			found = fmt.Sprint(p)
		}
	}()
	manyLives(catcher{}, seed)
	return ""
}

// TestTheDefectCorruptTakenForTornLosesEntriesInSilence is what the tests of
// damage would find.
func TestTheDefectCorruptTakenForTornLosesEntriesInSilence(t *testing.T) {
	m, _ := damaged(t)
	defect.Plant(defect.CorruptTakenForTorn)
	defer defect.Plant(defect.None)
	if s := m.mustOpen(t); s.Damage() != nil || s.Groups()[0].Start.Last >= 60 {
		t.Errorf("nothing is lost: %v", s.Damage())
	}
}
