package rpc

// activate has the writer look at a stream. c.mu is held.
func (c *conn) activate(s *stream) {
	if s.gone || s.out.listed {
		return
	}
	s.out.listed = true
	c.active.push(s)
	c.wakeWriter()
}

// grant lets the client send more on a stream: as much as a first window less what
// is waiting to be taken, and always the rest of the message that is on its way.
// c.mu is held.
func (c *conn) grant(s *stream) {
	if s.gone || s.ended || s.stop {
		return
	}
	want := max(0, firstWindow-s.queued-len(s.message.body))
	if missing := s.message.missing; missing > want && s.queued == 0 {
		if more := missing - want; s.extra < more {
			if c.extra > 0 && c.extra+more > mostExtra {
				if !s.waits {
					s.waits = true
					c.waiting = append(c.waiting, s)
				}
				return
			}
			c.extra += more - s.extra
			s.extra = more
		}
		want = missing
	}
	if more := want - s.window; more >= firstWindow/4 || more > 0 && s.message.missing > s.window {
		s.window += more
		c.control = appendWindowUpdate(c.control, s.id, more)
		c.wakeWriter()
	}
}

// giveBack ends what a stream had beyond its window; others that wait for it get
// their share. c.mu is held.
func (c *conn) giveBack(s *stream) {
	c.extra -= s.extra
	s.extra = 0
	for len(c.waiting) > 0 && c.extra <= mostExtra/2 {
		next := c.waiting[0]
		c.waiting = c.waiting[1:]
		if next.waits {
			next.waits = false
			c.grant(next)
		}
	}
}

// taken says that somebody has taken a message of that many bytes. c.mu is held.
func (c *conn) taken(s *stream, bytes int) {
	s.queued -= bytes
	c.grant(s)
}

// unpark says that parked bytes of a stream were sent or dropped; what waits for
// that goes on. c.mu is held.
func (c *conn) unpark(s *stream, bytes int) {
	bytes = min(bytes, s.out.parked)
	if bytes == 0 {
		return
	}
	s.out.parked -= bytes
	c.parked -= bytes
	c.server.budget.give(bytes)
	for c.parked < mostParked && c.patient.len() > 0 {
		c.active.push(c.patient.pop())
		c.wakeWriter()
	}
	if c.held != nil && c.parked < mostParked {
		c.lastHeld.next = c.done
		if c.done == nil {
			c.lastDone = c.lastHeld
		}
		c.done = c.held
		c.held, c.lastHeld = nil, nil
		c.wakeWriter()
	}
}

// moreWindow takes a WINDOW_UPDATE in; false says that the window became too large.
// c.mu is held.
func (c *conn) moreWindow(more uint32) bool {
	c.window += int64(more)
	if c.window > mostWindow {
		return false
	}
	for c.window > 0 && c.starved.len() > 0 {
		c.active.push(c.starved.pop())
	}
	if c.active.len() > 0 {
		c.wakeWriter()
	}
	return true
}

// moreStreamWindow is moreWindow for one stream; a change of the first window may
// also be negative.
func (c *conn) moreStreamWindow(s *stream, more int64) bool {
	s.sendWindow += more
	if s.sendWindow > mostWindow {
		return false
	}
	if s.sendWindow > 0 && s.out.needsWindow {
		s.out.needsWindow = false
		c.activate(s)
	}
	return true
}
