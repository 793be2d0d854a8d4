package server

import (
	"sync"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// The alarms (spec 6.4): what clients ask for, and what this member says of itself.

// ChangeAlarm raises an alarm or ends one, by a *command.AlarmRaise or
// *command.AlarmDisarm. Results: *command.AlarmResponse. Errors: those of the judgement,
// which asks for the role root; the host's.
func (s Session) ChangeAlarm(call host.Call, change command.Body) { s.propose(call, nil, 0, change) }

// Alarms lists the alarms in force as this member has applied them, by member and
// type. The slice is shared and read-only. It costs one load.
func (m *Member) Alarms() []command.Alarm { return m.opts.State.View().Alarms() }

// ReportCorrupt raises the alarm CORRUPT: a member holds other data than the others; 0
// is nobody knows which. Errors: command.ErrMemberNotFound, the host's.
func (m *Member) ReportCorrupt(call host.Call, who id.Member) {
	m.proposeOwn(call, &command.AlarmReport{Alarm: command.Alarm{Member: who, Type: command.AlarmCorrupt}})
}

// reports are the calls that end once this member's alarm is known to all, or cannot be.
type reports struct {
	mu      sync.Mutex
	busy    bool
	waiting []host.Call
}

// reportFull raises this member's alarm, unless it is raised, and then ends the call
// with command.ErrNoSpace: who is refused finds the alarm that refused him. One report is
// under way at a time, however many are refused.
func (m *Member) reportFull(call host.Call) {
	a := command.Alarm{Member: m.opts.Member, Type: command.AlarmNoSpace}
	if m.opts.State.View().HasAlarm(a) || defect.On(defect.FullUntold) {
		m.end(call, command.ErrNoSpace)
		return
	}
	r := &m.reports
	r.mu.Lock()
	r.waiting = append(r.waiting, call)
	begin := !r.busy
	r.busy = true
	r.mu.Unlock()
	if begin {
		m.proposeOwn(host.Call{To: completion(m.reported), Deadline: m.Deadline()}, &command.AlarmReport{Alarm: a})
	}
}

// reported ends those that waited for a report, whatever came of it: there is no space.
func (m *Member) reported(host.Result) {
	r := &m.reports
	r.mu.Lock()
	over := r.waiting
	r.waiting, r.busy = nil, false
	r.mu.Unlock()
	for _, call := range over {
		m.end(call, command.ErrNoSpace)
	}
}
