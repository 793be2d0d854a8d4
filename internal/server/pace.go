package server

import (
	"slices"
	"sync"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Back-pressure in stages (Options.BackPressure), instead of full speed up to the quota
// and a stop there:
//
//	up to 90 %     nothing
//	up to 100 %    growth is slowed: what is left would last for five minutes more
//	100 %          refused, with the alarm
//	below 85 %     the alarm ends by itself
//
// Slow is less than what is left, so the closer the slower; who grows more slowly than
// that notices nothing. Only what costs space waits.
const (
	slowShare     = 90
	withdrawShare = 85
	slowStretch   = 5 * time.Minute
	// slowLeast is the slowest pace, in bytes per second; slowLook the time between two
	// looks at those that wait.
	slowLeast = 4096
	slowLook  = 10 * time.Millisecond
	// mostPaced and mostPacedBytes bound those that wait.
	mostPaced      = 5000
	mostPacedBytes = 16 << 20
)

// paced is a command that waits for its turn to grow the store.
type paced struct {
	s    Session
	call host.Call
	cmd  []byte
	cost int64
}

// pacer lets growth through in the order of its coming, at a pace.
type pacer struct {
	mu      sync.Mutex
	now     env.Instant
	budget  int64 // bytes; below 0 it is to be earned first
	waiting []paced
	bytes   int64
}

// pace is how many bytes per second may be added while so many are left.
func pace(left int64) int64 { return max(left/int64(slowStretch/time.Second), slowLeast) }

// earn adds what the time since the last look gives, a second's worth at most.
func (p *pacer) earn(now env.Instant, left int64) {
	rate := pace(left)
	passed := min(now.Sub(p.now), time.Second)
	p.now = now
	p.budget = min(p.budget+rate*int64(passed/time.Microsecond)/1e6, rate)
}

// pass says whether a command may go on at once; otherwise it waits, or is one too many.
func (p *pacer) pass(now env.Instant, left int64, c paced) (goes bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.earn(now, left)
	switch {
	case len(p.waiting) == 0 && p.budget > 0:
		p.budget -= c.cost
		return true, nil
	case len(p.waiting) >= mostPaced || p.bytes+c.cost > mostPacedBytes:
		return false, host.ErrTooManyRequests
	}
	p.waiting = append(p.waiting, c)
	p.bytes += c.cost
	return false, nil
}

// turn takes those that may go on by now; all of them if there is room again. more says
// that others wait.
func (p *pacer) turn(now env.Instant, left int64, room bool) (list []paced, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		return nil, false
	}
	p.earn(now, left)
	n := 0
	for n < len(p.waiting) && (room || p.budget > 0) {
		p.budget -= p.waiting[n].cost
		p.bytes -= p.waiting[n].cost
		n++
	}
	list, p.waiting = p.waiting[:n:n], p.waiting[n:]
	if len(p.waiting) == 0 {
		p.waiting = nil
	}
	return list, len(p.waiting) > 0
}

// late takes those out of the row whose time is over: at the slowest pace a long row lasts
// for an hour.
func (p *pacer) late(now env.Instant) (list []paced) {
	p.mu.Lock()
	defer p.mu.Unlock()
	over := func(c paced) bool { return c.call.Deadline != 0 && c.call.Deadline <= now }
	if !slices.ContainsFunc(p.waiting, over) {
		return nil
	}
	rest := make([]paced, 0, len(p.waiting))
	for _, c := range p.waiting {
		if over(c) {
			list = append(list, c)
			p.bytes -= c.cost
		} else {
			rest = append(rest, c)
		}
	}
	p.waiting = rest
	return list
}

// slow holds a command back if growth is slowed and it is not its turn. Those that wait
// are judged again when it is.
func (m *Member) slow(s Session, call host.Call, cmd []byte, cost int64) (held bool) {
	if !m.opts.BackPressure || cost == 0 {
		return false
	}
	left, scarce := m.left()
	if !scarce {
		return false
	}
	goes, err := m.pacer.pass(m.opts.Clock.Now(), left, paced{s, call, cmd, cost})
	if err != nil {
		m.end(call, err)
		return true
	}
	return !goes
}

// left is how much may be added until the quota is reached, and whether that is so
// little that growth is slowed.
func (m *Member) left() (bytes int64, scarce bool) {
	quota := m.opts.Quota
	if quota <= 0 {
		return 0, false
	}
	has := m.opts.State.View().State().Bytes()
	return max(quota-has, 0), has >= quota/100*slowShare
}

// letGrow lets those go on whose turn it is, and ends this member's alarm once it is not
// needed any more.
func (m *Member) letGrow(now env.Instant) (more bool) {
	for _, c := range m.pacer.late(now) {
		m.end(c.call, host.ErrTimeout)
	}
	left, scarce := m.left()
	list, more := m.pacer.turn(now, left, !scarce)
	for _, c := range list {
		c.s.proposeLater(c.call, c.cmd)
	}
	mine := command.Alarm{Member: m.opts.Member, Type: command.AlarmNoSpace}
	quota, view := m.opts.Quota, m.opts.State.View()
	if view.HasAlarm(mine) && !defect.On(defect.AlarmKept) && !m.space.low.Load() && (quota <= 0 || view.State().Bytes() < quota/100*withdrawShare) && m.withdraw.begin() {
		m.proposeOwn(host.Call{To: &m.withdraw, Deadline: m.Deadline()}, &command.AlarmWithdraw{Alarm: mine})
	}
	return more
}
