//go:build defects

package state_test

import (
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Each story ends well without its mistake and badly with it.
func TestSpaceDefectsAreFound(t *testing.T) {
	full := func(t *testing.T, body command.Body) error {
		r := newReplica(t, 1)
		r.put("a", "1")
		r.alarms(&command.AlarmReport{Alarm: noSpace(1)})
		_, err := r.do(body)
		return err
	}
	stories := map[defect.Defect]func(t *testing.T) bool{
		defect.FullRefusesAll: func(t *testing.T) bool {
			return full(t, &command.DeleteRangeRequest{Key: key("a")}) == nil && full(t, &command.CompactRequest{Revision: 2}) == nil
		},
		defect.NestedPutFree: func(t *testing.T) bool {
			return full(t, nested(command.Op{Put: &command.PutRequest{Key: key("a")}})) != nil
		},
		defect.AlarmsOutliveLoad: func(t *testing.T) bool {
			r, other := newReplica(t, 1), newReplica(t, 2)
			r.alarms(&command.AlarmReport{Alarm: noSpace(1)})
			r.copyTo(other)
			return len(other.m.View().Alarms()) == 1
		},
		defect.AlarmsForgotten: func(t *testing.T) bool {
			r := newReplica(t, 1)
			r.alarms(&command.AlarmReport{Alarm: noSpace(1)})
			if err := r.m.StartFlush(); err != nil {
				t.Fatal(err)
			}
			r.settle()
			r.crash(simenv.PowerCrash)
			return len(r.m.View().Alarms()) == 1
		},
		defect.DisarmEndsOthers: func(t *testing.T) bool {
			r := newReplica(t, 1)
			r.alarms(&command.AlarmReport{Alarm: noSpace(1)})
			r.alarms(&command.AlarmReport{Alarm: noSpace(2)})
			r.alarms(&command.AlarmDisarm{Alarm: noSpace(1)})
			return len(r.m.View().Alarms()) == 1
		},
		defect.CorruptTakenForFull: func(t *testing.T) bool {
			r := newReplica(t, 1)
			r.alarms(&command.AlarmReport{Alarm: corrupt(1)})
			_, err := r.do(&command.DeleteRangeRequest{Key: key("a")})
			return err != nil
		},
	}
	defer defect.Plant(defect.None)
	for _, d := range defect.Space() {
		well, told := stories[d]
		if !told {
			t.Errorf("%v: no story", d)
			continue
		}
		defect.Plant(defect.None)
		if !well(t) {
			t.Errorf("%v: found where it is not", d)
		}
		defect.Plant(d)
		if well(t) {
			t.Errorf("%v: not found", d)
		}
	}
}
