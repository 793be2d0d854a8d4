package rpc

import (
	"sync"
	"time"
)

// pool answers hot calls that need more than memory: a few goroutines, and of the
// connections that wait each gets its turn, one call at a time; of a long answer one
// slice (rule 32). A goroutine that has nothing to do stays a while, with the stack that
// it has grown: a long answer comes back after each slice.
type pool struct {
	mu      sync.Mutex
	most    int // goroutines
	workers int
	idle    int           // workers that nobody has woken
	ready   []*conn       // with a call that waits and none being answered
	wake    chan struct{} // has room for all workers; sent to under mu
}

// poolLinger is how long a goroutine of the pool stays without work.
const poolLinger = 100 * time.Millisecond

func (p *pool) init(most int) { p.most, p.wake = most, make(chan struct{}, most) }

// poolShare is a connection's part of the pool, guarded by pool.mu.
type poolShare struct {
	calls []*Call
	busy  bool // in ready, or being served
}

// add hands a call over. It never waits.
func (p *pool) add(c *conn, call *Call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.pool.calls = append(c.pool.calls, call)
	if c.pool.busy {
		return
	}
	c.pool.busy = true
	p.ready = append(p.ready, c)
	switch {
	case p.idle > 0:
		p.idle--
		p.wake <- struct{}{}
	case p.workers < p.most:
		p.workers++
		go p.work()
	}
}

// work answers calls until none has come for a while.
func (p *pool) work() {
	p.mu.Lock()
	defer p.mu.Unlock()
	bored := time.NewTimer(poolLinger)
	defer bored.Stop()
	for {
		for len(p.ready) == 0 {
			if !p.idles(bored) {
				p.workers--
				return
			}
		}
		c := p.ready[0]
		p.ready = p.ready[1:]
		call := c.pool.calls[0]
		c.pool.calls = c.pool.calls[1:]
		p.mu.Unlock()
		again := false
		if long := call.stream.method.long; long != nil {
			again = c.work(call, long)
		} else {
			c.reply(call)
		}
		p.mu.Lock()
		if again {
			c.pool.calls = append(c.pool.calls, call)
		}
		if c.pool.busy = len(c.pool.calls) > 0; c.pool.busy {
			p.ready = append(p.ready, c)
		} else {
			c.pool.calls = nil
		}
	}
}

// idles waits for work, and says whether there may be some. p.mu is held, but not while
// it waits.
func (p *pool) idles(bored *time.Timer) bool {
	p.idle++
	bored.Reset(poolLinger)
	p.mu.Unlock()
	woken := false
	select {
	case <-p.wake:
		woken = true
	case <-bored.C:
	}
	p.mu.Lock()
	switch {
	case woken: // who woke it has counted it as busy
		return true
	case p.idle == 0: // all who idle were woken meanwhile, and so was this one
		<-p.wake
		return true
	}
	p.idle--
	return false
}

// reply has a call answered that is not one of a LongHot.
func (c *conn) reply(call *Call) {
	call.replied = true
	reply, err := call.stream.method.hot.Answer(call.reply[:0], call, call.result)
	if err != nil {
		call.err, call.replied = err, false
	} else {
		call.reply = reply
	}
	c.ended(call)
}
