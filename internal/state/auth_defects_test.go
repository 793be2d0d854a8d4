//go:build defects

package state_test

import (
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Each story ends well without its mistake and badly with it.
func TestPermissionDefectsAreFound(t *testing.T) {
	stories := []struct {
		defect defect.Defect
		well   func(t *testing.T) bool
	}{
		{defect.ApplyUnchecked, func(t *testing.T) bool {
			r := newReplica(t, 1)
			r.people()
			return r.as("ann", r.m.View().Auth().Revision(), &command.PutRequest{Key: key("c")}) != nil
		}},
		{defect.OldRevisionObeyed, func(t *testing.T) bool {
			r := newReplica(t, 1)
			r.people()
			now := r.m.View().Auth().Revision()
			if err := r.as("root", now, &command.RoleAdd{Name: "other"}); err != nil {
				t.Fatal(err)
			}
			return r.as("ann", now, &command.PutRequest{Key: key("a")}) != nil
		}},
	}
	defer defect.Plant(defect.None)
	for _, s := range stories {
		defect.Plant(defect.None)
		if !s.well(t) {
			t.Errorf("%v: found where it is not", s.defect)
		}
		defect.Plant(s.defect)
		if s.well(t) {
			t.Errorf("%v: not found", s.defect)
		}
	}
}
