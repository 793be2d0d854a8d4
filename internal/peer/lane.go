package peer

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/measure"
)

// peer is another member and our connections to it.
type peer struct {
	t     *Transport
	id    id.Member
	lanes [lanes]*lane
	ctx   context.Context
	stop  context.CancelFunc
	news  news
	// guest says that no list of members has it: it dialled us, and goes when its
	// last connection does. Guarded by t.mu.
	guest bool

	mu sync.Mutex
	// urls are from the list of members, told from its own greeting.
	urls, told []string
	// up says that the control lane is connected, since then.
	up      bool
	since   env.Instant
	url     string
	version string
	// armed says that a loss is to be told: something was connected since the last.
	armed bool
	rtt   atomic.Int64
	// rtts are all round trips, sent and received the bytes on connections that stood;
	// cuts counts the connections from the member that were lost, losses our control
	// connections to it that were.
	rtts           *measure.Histogram
	sent, received atomic.Uint64
	cuts, losses   atomic.Uint64
}

// start makes a peer and begins to dial it; t.mu is held, t is not closed.
func (t *Transport) start(who id.Member, urls, told []string) *peer {
	p := &peer{t: t, id: who, urls: slices.Clone(urls), told: told, rtts: measure.NewDurations(100*time.Microsecond, 16)}
	p.ctx, p.stop = context.WithCancel(t.ctx)
	for i := range p.lanes {
		l := &lane{t: t, p: p, number: Lane(i), limit: t.opts.Limits.queue(Lane(i)), state: trying,
			wake: make(chan struct{}, 1), kick: make(chan struct{}, 1)}
		p.lanes[i] = l
		t.wg.Go(l.run)
	}
	return p
}

// move changes where a member listens. A connection to a place that is in no list
// any more is given up.
func (p *peer) move(urls []string) {
	p.mu.Lock()
	same := slices.Equal(p.urls, urls)
	p.urls = slices.Clone(urls)
	places := p.places()
	p.mu.Unlock()
	if same {
		return
	}
	for _, l := range p.lanes {
		if c := l.current(); c != nil && !slices.Contains(places, c.url) {
			c.end(errors.New("the member has moved"))
		}
		l.knock(l.kick)
	}
}

// heard takes in what a member's own greeting says.
func (p *peer) heard(urls []string) {
	p.mu.Lock()
	p.told = slices.Clone(urls)
	p.mu.Unlock()
}

// places are all the URLs to try; p.mu is held.
func (p *peer) places() []string {
	all := slices.Clone(p.urls)
	for _, u := range p.told {
		if !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	return all
}

func (p *peer) connectedSince() (env.Instant, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since, p.up
}

// connected notes that a lane to the member stands, or that it has a control
// connection to us: url is then empty.
func (p *peer) connected(lane Lane, url, version string) {
	p.mu.Lock()
	p.armed, p.version = true, version
	news := lane == Control && url != "" && !p.up
	if lane == Control && url != "" {
		p.up, p.since, p.url = true, p.t.opts.Clock.Now(), url
	}
	p.mu.Unlock()
	if news {
		p.news.clear()
		p.t.log.Info("peer became active", "peer-id", p.id.String(), "url", url, "version", version)
	}
}

// lost notes that a connection to or from the member is lost, out whether it is
// one that we made.
func (p *peer) lost(lane Lane, out bool, why error) {
	if p.ctx.Err() != nil {
		return
	}
	if !out {
		p.cuts.Add(1)
	}
	p.mu.Lock()
	news, tell := lane == Control && out && p.up, p.armed && lane != Snapshots
	if news {
		p.up = false
	}
	if tell {
		p.armed = false
	}
	p.mu.Unlock()
	if news {
		p.losses.Add(1)
		p.t.log.Warn("peer became inactive", "peer-id", p.id.String(), "error", plain(why))
	}
	if tell && p.t.opts.Lost != nil {
		p.t.opts.Lost(p.id)
	}
}

func (p *peer) status() Status {
	p.mu.Lock()
	s := Status{
		Member: p.id, Version: p.version, RoundTrip: time.Duration(p.rtt.Load()), RoundTrips: p.rtts.Read(),
		SentBytes: p.sent.Load(), ReceivedBytes: p.received.Load(), Cuts: p.cuts.Load(), Losses: p.losses.Load(),
	}
	if p.up {
		s.URL = p.url
	}
	p.mu.Unlock()
	for i, l := range p.lanes {
		l.mu.Lock()
		s.Connected[i], s.Queued[i], s.Sent[i], s.Dropped[i] = l.state == up, l.bytes, l.sent, l.dropped
		l.mu.Unlock()
	}
	return s
}

// item is one frame to write.
type item struct {
	kind    byte
	size    int
	message Message
	// only, when set, is the one connection that it may be written to.
	only *outConn
}

// laneState says what becomes of what is sent.
type laneState uint8

const (
	// down: attempts to connect have failed; nothing is kept.
	down laneState = iota
	// trying: an attempt is under way and none has failed since the last connection;
	// a little is kept.
	trying
	up
)

// keptWhileTrying bounds what waits for a first attempt.
const keptWhileTrying = 64 << 10

// lane is the way to one member of what belongs together.
type lane struct {
	t      *Transport
	p      *peer
	number Lane
	limit  int
	wake   chan struct{} // there is something to write
	kick   chan struct{} // do not wait before the next attempt

	mu    sync.Mutex
	state laneState
	conn  *outConn
	queue []item
	spare []item
	// bytes are those of queue and of what the writer has taken and not yet written.
	bytes         int
	sent, dropped uint64
}

// send queues a frame, or drops it.
func (l *lane) send(it item) bool {
	l.mu.Lock()
	limit := 0
	switch l.state {
	case up:
		limit = l.limit
	case trying:
		limit = min(keptWhileTrying, l.limit)
	}
	fits := l.bytes+it.size <= limit || l.bytes == 0 && l.state == up
	if !fits || it.only != nil && it.only != l.conn {
		l.dropped++
		l.mu.Unlock()
		return false
	}
	l.bytes += it.size
	l.queue = append(l.queue, it)
	first := len(l.queue) == 1
	l.mu.Unlock()
	if first {
		l.knock(l.wake)
	}
	return true
}

func (l *lane) room() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != up {
		return 0
	}
	return max(l.limit-l.bytes, 0)
}

func (l *lane) current() *outConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// take gives the writer all that waits; what it took before is written.
func (l *lane) take(before []item) []item {
	clear(before)
	l.mu.Lock()
	defer l.mu.Unlock()
	items := l.queue
	if cap(before) > 0 && cap(before) <= 4096 {
		l.spare = before[:0]
	}
	l.queue, l.spare = l.spare, nil
	return items
}

// wrote says that so many messages of so many bytes are no longer held.
func (l *lane) wrote(messages uint64, bytes int) {
	l.mu.Lock()
	l.bytes -= bytes
	l.sent += messages
	l.mu.Unlock()
}

// set changes the state and, unless a connection stands now, drops what waits.
func (l *lane) set(state laneState, c *outConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.conn = state, c
	if state != up {
		l.dropped += uint64(len(l.queue))
		l.queue, l.spare, l.bytes = nil, nil, 0
	}
}

// knock wakes whoever waits on a channel; one knock is remembered.
func (l *lane) knock(on chan struct{}) {
	select {
	case on <- struct{}{}:
	default:
	}
}

// run connects again and again until the peer is stopped.
func (l *lane) run() {
	defer l.set(down, nil)
	limits := &l.t.opts.Limits
	turn, fails := 0, 0
	for l.p.ctx.Err() == nil {
		c, err := l.connect(&turn)
		if err != nil {
			l.set(down, nil)
			l.failed(err)
			fails++
		} else {
			began := time.Now()
			err := l.carry(c)
			l.set(trying, nil)
			l.p.lost(l.number, true, err)
			if time.Since(began) >= limits.MaxBackoff {
				fails = 0
			}
			if fails++; fails == 1 {
				continue // at once
			}
			l.set(down, nil)
		}
		l.pause(fails)
	}
}

// pause waits before another attempt, unless the peer has just come to us.
func (l *lane) pause(fails int) {
	limits := &l.t.opts.Limits
	wait := limits.Backoff << min(fails-1, 16)
	if wait > limits.MaxBackoff {
		wait = limits.MaxBackoff
	}
	timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.kick:
	case <-l.p.ctx.Done():
	}
}

// connect tries all the peer's URLs, beginning with the one that worked last.
func (l *lane) connect(turn *int) (c *outConn, err error) {
	l.p.mu.Lock()
	places := l.p.places()
	l.p.mu.Unlock()
	if len(places) == 0 {
		return nil, errors.New("no URL of it is known")
	}
	for i := range places {
		at := (*turn + i) % len(places)
		if c, err = l.dial(places[at]); err == nil {
			*turn = at
			return c, nil
		}
		if l.p.ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, err
}

// failed tells why no connection could be made, once for each reason, and whether
// this member was told that it is one no more.
func (l *lane) failed(err error) {
	if l.p.ctx.Err() != nil {
		return
	}
	var no *refused
	if errors.As(err, &no) && no.code == refusedRemoved && l.t.opts.Removed != nil {
		l.t.told.Do(func() { l.t.opts.Removed(l.p.id) })
	}
	if text := plain(err); l.number == Control && l.p.news.is(text) {
		l.t.log.Warn("cannot connect to peer", "peer-id", l.p.id.String(), "error", text)
	}
}
