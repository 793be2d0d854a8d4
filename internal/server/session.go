package server

import (
	"cmp"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Session is a member's services for one caller: every request is judged by what he
// may do, before it is proposed and again where it is applied. The methods of the
// Member itself are those for nobody, who has no rights once permissions are checked.
type Session struct {
	m   *Member
	who auth.Caller
}

// As gives the services to a caller (Identify).
func (m *Member) As(who auth.Caller) Session { return Session{m, who} }

// propose encodes a command that passed its checks and hands it to the group. What
// the caller may not do by what this member knows, or what there is no room for, is asked
// again once it has caught up: only then is it certain. Where there is no room that is
// said before anything that is wrong with the request (spec 2.2).
func (s Session) propose(call host.Call, invalid error, size int, body command.Body) {
	m := s.m
	if invalid == nil && size > m.opts.MaxRequestBytes {
		invalid = host.ErrTooLarge
	}
	view, cost := m.opts.State.View(), body.Cost()
	full := m.full(view, cost)
	if invalid != nil {
		s.refuse(call, invalid, cost, full)
		return
	}
	header := s.judgedBy(view, command.Header{Wall: m.opts.Clock.Wall().UnixNano()})
	var refused error
	if !defect.On(defect.AlarmUnasked) {
		refused = view.Stopped(body)
	}
	refused = cmp.Or(refused, view.Permit(s.who, body))
	cmd := command.Encode(make([]byte, 0, headerBytes+len(header.User)+size), header, body)
	switch {
	case len(cmd) > m.opts.MaxRequestBytes:
		m.end(call, host.ErrTooLarge)
	case full || refused != nil:
		s.proposeLater(call, cmd)
	case m.slow(s, call, cmd, cost):
	default:
		m.opts.Group.Propose(call, cmd)
	}
}

// judgedBy writes into a header whom a view has judged, and by which auth revision.
// While permissions are not checked that is nobody: a revision of that time would make
// good again what is void once they are.
func (s Session) judgedBy(view *state.View, h command.Header) command.Header {
	h.User, h.AuthRevision = "", 0
	if table := view.Auth(); table.Enabled() {
		h.User, h.AuthRevision = s.who.User, table.Revision()
	}
	return h
}

// refuse ends a call that is not valid. Where there is no room for it either, he is told
// that, with the alarm.
func (s Session) refuse(call host.Call, invalid error, cost int64, full bool) {
	if !full {
		s.m.end(call, invalid)
		return
	}
	s.certainly(call, func(view *state.View) error {
		if s.m.full(view, cost) {
			return nil
		}
		return invalid
	}, func(*state.View) { s.m.reportFull(call) })
}

// proposeLater judges an encoded command again, after all changes that were acknowledged
// before now: of permissions, of alarms, of what there is room for. Nothing that is
// refused gets into the log.
func (s Session) proposeLater(call host.Call, cmd []byte) {
	again, err := command.Decode(cmd)
	if err != nil {
		s.m.end(call, err)
		return
	}
	s.certainly(call, func(view *state.View) error {
		return cmp.Or(view.Stopped(again.Body), view.Permit(s.who, again.Body))
	}, func(view *state.View) {
		if s.m.full(view, again.Body.Cost()) {
			if defect.On(defect.RefusedYetProposed) {
				s.m.opts.Group.Propose(host.Call{To: unheard}, cmd)
			}
			s.m.reportFull(call)
			return
		}
		cmd := command.Encode(make([]byte, 0, len(cmd)+len(s.who.User)), s.judgedBy(view, again.Header), again.Body)
		s.m.opts.Group.Propose(call, cmd)
	})
}

// permitted goes on with do at once if the caller may, else once that is certain; a
// refusal ends the call.
func (s Session) permitted(call host.Call, judge func(*state.View) error, do func()) {
	if judge(s.m.opts.State.View()) == nil {
		do()
		return
	}
	s.certainly(call, judge, func(*state.View) { do() })
}

// certainly judges by the state of now or later, and goes on with do or ends the call.
func (s Session) certainly(call host.Call, judge func(*state.View) error, do func(*state.View)) {
	if defect.On(defect.RefusedAtOnce) {
		s.m.end(call, judge(s.m.opts.State.View()))
		return
	}
	s.m.Barrier(host.Call{Deadline: call.Deadline, To: completion(func(r host.Result) {
		if r.Err != nil {
			s.m.end(call, r.Err)
			return
		}
		view := s.m.opts.State.View()
		if err := judge(view); err != nil {
			s.m.end(call, err)
			return
		}
		do(view)
	})})
}

// admin asks for the role root.
func (s Session) admin(view *state.View) error {
	check := view.Check(s.who)
	return check.Admin()
}

// read reads with permission: judge and get are of the same users and roles, whatever
// changes meanwhile.
func (s Session) read(judge func(*auth.Check) error, get func(*state.View) error) error {
	for {
		view := s.m.opts.State.View()
		if view.Auth().Enabled() {
			check := view.Check(s.who)
			if err := judge(&check); err != nil {
				return err
			}
		}
		err := get(view)
		if s.m.opts.State.View().Auth() == view.Auth() {
			return err
		}
	}
}
