//go:build defects

package state_test

import (
	"errors"
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Each story ends well without its defect and badly with it.
var stories = []struct {
	defect defect.Defect
	well   func(t *testing.T) bool
}{
	{defect.MarkOutsideBatch, func(t *testing.T) bool {
		r := newReplica(t, 1)
		r.put("a", "1")
		if err := r.m.StartFlush(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			r.turn()
		}
		r.crash(simenv.PowerCrash)
		r.apply() // what the log has after the mark
		return r.m.View().State().Revision == 2
	}},
	{defect.CompactLate, func(t *testing.T) bool {
		r := newReplica(t, 1)
		r.put("a", "1")
		r.put("a", "2")
		v := r.m.View()
		r.compact(3)
		for range 4 {
			resp, err := v.Range(&command.RangeRequest{Key: []byte("a"), Revision: 2})
			if err == nil && len(resp.KVs) == 0 {
				return false // neither the truth nor a refusal
			}
			r.turn()
		}
		return r.get("a", 2) == command.ErrCompacted.Error()
	}},
	{defect.DutyOutlivesTerm, func(t *testing.T) bool {
		r := newReplica(t, 1)
		r.entry(2, encode(command.Header{Class: command.Duty, Term: 1}, &command.CompactRequest{Revision: 1}))
		return errors.Is(r.apply()[0].Err, state.ErrTermOver)
	}},
}

func TestDefectsAreFound(t *testing.T) {
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
