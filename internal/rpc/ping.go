package rpc

import (
	"math"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

const (
	// mostStrikes is how many pings may come too early between two answers.
	mostStrikes = 2
	// quietPing is how far apart the pings of a client without calls are to be.
	quietPing = 2 * time.Hour
)

// pingWatch counts the pings that come earlier than the client was allowed to send
// them. Each answer of ours forgives what was before.
type pingWatch struct {
	last    time.Time
	strikes int
}

// strike takes a ping at now and says whether it is one too many. wrote says that
// headers or data were sent since the last one.
func (p *pingWatch) strike(now time.Time, wrote bool, least time.Duration) bool {
	last := p.last
	p.last = now
	if wrote {
		p.strikes = 0
		return false
	}
	if last.Add(least).After(now) {
		p.strikes++
	}
	return p.strikes > mostStrikes
}

func (r *reader) takePing(f *frame) error {
	if f.stream != 0 {
		return fault(http2.ErrCodeProtocol, "PING on a stream")
	}
	if len(f.payload) != 8 {
		return fault(http2.ErrCodeFrameSize, "PING of a wrong length")
	}
	c := r.conn
	data := [8]byte(f.payload)
	if f.has(http2.FlagPingAck) {
		if data == goAwayPing {
			c.drained()
		}
		return nil
	}
	c.mu.Lock()
	c.control = appendPing(c.control, http2.FlagPingAck, data)
	c.wakeWriter()
	calls := len(c.streams)
	c.mu.Unlock()
	least := c.server.limits.PingMinimum
	if calls == 0 {
		least = quietPing
	}
	if r.pings.strike(time.Now(), c.wrote.Swap(false), least) {
		return fault(http2.ErrCodeEnhanceYourCalm, "too_many_pings")
	}
	return nil
}

// never is later than every instant, in nanoseconds of a server's clock.
const never = math.MaxInt64

// clockGrain is the least time between two looks at deadlines.
const clockGrain = 20 * time.Millisecond

// clock wakes the server when something may be due: the deadline of a hot call, or a
// ping to a silent client. One timer serves all connections; deadlines of calls that
// ended are not taken back, the look is then for nothing.
type clock struct {
	mu    sync.Mutex
	timer *time.Timer
	at    int64
	now   func() int64
	look  func() (next int64)
	over  bool
}

func (k *clock) init(now, look func() int64) {
	k.now, k.look, k.at = now, look, never
	k.timer = time.AfterFunc(math.MaxInt64, k.fire)
}

// due has the clock look at that time at the latest, but for its grain.
func (k *clock) due(at int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if at < k.at && !k.over {
		k.at = at
		k.timer.Reset(max(clockGrain, time.Duration(at-k.now())))
	}
}

func (k *clock) fire() {
	k.mu.Lock()
	k.at = never
	k.mu.Unlock()
	if next := k.look(); next != never {
		k.due(next)
	}
}

func (k *clock) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	k.timer.Stop()
}

// keepalive pings a client that has been silent for the interval and gives it up
// when it says nothing for the time-out after that. It returns when to look again.
func (c *conn) keepalive(now int64) (next int64) {
	interval, timeout := c.server.limits.PingInterval, c.server.limits.PingTimeout
	if interval <= 0 {
		return never
	}
	last := c.lastRead.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pinged > last { // a ping is out, and nothing came since
		if give := c.pinged + timeout.Nanoseconds(); now < give {
			return give
		}
		c.cut()
		return never
	}
	if due := last + interval.Nanoseconds(); now < due {
		return due
	}
	c.pinged = now
	c.control = appendPing(c.control, 0, [8]byte{})
	c.wakeWriter()
	return now + timeout.Nanoseconds()
}
