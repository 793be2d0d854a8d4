package state

import (
	"maps"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/alarm"
	"github.com/kvorum/kvorum/internal/state/command"
)

// What alarms do (spec 6.4): without space nothing is done that may cost some
// (command.Body.Cost); without agreement nothing is done to keys and leases, which is a
// column of the table.

func (m *Machine) raise(a command.Alarm) *command.AlarmResponse {
	response := &command.AlarmResponse{Revision: m.store.State().Revision}
	m.alarms, response.Alarms = m.alarms.Raise(m.group, m.batch, a)
	return response
}

func (m *Machine) disarm(a command.Alarm) *command.AlarmResponse {
	response := &command.AlarmResponse{Revision: m.store.State().Revision}
	m.alarms, response.Alarms = m.alarms.Disarm(m.group, m.batch, a)
	if a.Type == command.AlarmNoSpace && len(response.Alarms) > 0 {
		m.excuse(a.Member)
	}
	return response
}

// mostExcused is how many members are remembered by excuse: alarms can be raised for
// any number, by hand.
const mostExcused = 1000

// excuse notes what has grown before the alarm of a member ended.
func (m *Machine) excuse(member id.Member) {
	excused := map[id.Member]id.Index{}
	if len(m.excused) < mostExcused {
		maps.Copy(excused, m.excused)
	}
	excused[member] = m.grown
	m.excused = excused
}

// report raises an alarm on a member's own word; one that was removed has none.
func (m *Machine) report(a command.Alarm) (*command.AlarmResponse, error) {
	if m.members.Removed(a.Member) {
		return nil, command.ErrMemberNotFound
	}
	return m.raise(a), nil
}

// stopped says which alarm in force stops a command: no agreement before no space.
// Errors: command.ErrCorrupt, command.ErrNoSpace.
func stopped(t alarm.Table, body command.Body) error {
	if len(t.All()) == 0 {
		return nil
	}
	keeps := table[body.Kind()].changes
	full := t.Any(command.AlarmNoSpace)
	switch {
	case keeps && t.Any(command.AlarmCorrupt) && !defect.On(defect.CorruptTakenForFull):
		return command.ErrCorrupt
	case full && defect.On(defect.FullRefusesAll) && keeps:
		return command.ErrNoSpace
	case full && body.Cost() > 0:
		return command.ErrNoSpace
	}
	return nil
}

// Alarms lists the alarms in force, by member and type. The slice is shared and
// read-only.
func (v *View) Alarms() []command.Alarm { return v.alarms.All() }

// HasAlarm says whether an alarm is in force.
func (v *View) HasAlarm(a command.Alarm) bool { return v.alarms.Has(a) }

// Grown is where the latest command stands that cost space, of those that were applied
// since the machine was opened; 0 if none was.
func (v *View) Grown() id.Index { return v.grown }

// Excused is what Grown was when a member's alarm for want of space was ended last, of
// those ends that were applied since the machine was opened: who ended it knew of that
// growth. 0 if there was none.
func (v *View) Excused(member id.Member) id.Index { return v.excused[member] }

// Stopped says which alarm stops a command, before it is proposed; where it is applied
// the alarms of that position decide. Errors: command.ErrCorrupt, command.ErrNoSpace.
func (v *View) Stopped(body command.Body) error { return stopped(v.alarms, body) }
