package model

import (
	"cmp"
	"maps"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Alarms (spec 6.4): a set of (member, type), and what each type refuses.

// changeAlarms raises an alarm or ends it, and tells which.
func (s *Store) changeAlarms(a command.Alarm, raise bool) *command.AlarmResponse {
	done := &command.AlarmResponse{Revision: s.revision}
	if raise && a.Type != command.AlarmNone || !raise && s.alarms[a] {
		done.Alarms = []command.Alarm{a}
		if raise {
			s.alarms[a] = true
		} else {
			delete(s.alarms, a)
		}
	}
	return done
}

// Alarms lists the alarms in force, by member and type.
func (s *Store) Alarms() []command.Alarm {
	return slices.SortedFunc(maps.Keys(s.alarms), func(a, b command.Alarm) int {
		return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(uint32(a.Type), uint32(b.Type)))
	})
}

// Stopped says which alarm refuses a request.
func (s *Store) Stopped(request any) error {
	var full, corrupt bool
	for a := range s.alarms {
		full = full || a.Type == command.AlarmNoSpace
		corrupt = corrupt || a.Type == command.AlarmCorrupt
	}
	changes, grows := false, false
	switch r := request.(type) {
	case *command.PutRequest, *command.LeaseGrant:
		changes, grows = true, true
	case *command.DeleteRangeRequest, *command.CompactRequest, *command.LeaseRevoke, *command.LeaseExpire:
		changes = true
	case *command.TxnRequest:
		changes, grows = !readOnly(r), puts(r)
	}
	switch {
	case corrupt && changes:
		return command.ErrCorrupt
	case full && grows:
		return command.ErrNoSpace
	}
	return nil
}

// readOnly says whether a txn is not replicated: it has ranges only.
func readOnly(t *command.TxnRequest) bool {
	return !slices.ContainsFunc(slices.Concat(t.Success, t.Failure), func(op command.Op) bool { return op.Range == nil })
}

// puts says whether a txn has a put anywhere.
func puts(t *command.TxnRequest) bool {
	return slices.ContainsFunc(slices.Concat(t.Success, t.Failure), func(op command.Op) bool {
		return op.Put != nil || op.Txn != nil && puts(op.Txn)
	})
}

// AlarmChange draws an alarm that is raised or, more often, one that is ended, of a few.
func (g *Generator) AlarmChange() any {
	a := command.Alarm{Member: id.Member(g.Rand.Int64N(2)), Type: command.AlarmType(g.Rand.Int64N(4))}
	switch g.Rand.Int64N(8) {
	case 0:
		return &command.AlarmRaise{Alarm: a}
	case 1:
		return &command.AlarmReport{Alarm: a}
	case 2:
		return &command.AlarmWithdraw{Alarm: a}
	}
	return &command.AlarmDisarm{Alarm: a}
}
