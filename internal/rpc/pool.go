package rpc

import "sync"

// pool answers hot calls that need more than memory: a few goroutines, and of the
// connections that wait each gets its turn, one call at a time; of a long answer one
// slice (rule 32).
type pool struct {
	mu      sync.Mutex
	most    int // goroutines
	workers int
	ready   []*conn // with a call that waits and none being answered
}

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
	if p.workers < p.most {
		p.workers++
		go p.work()
	}
}

// work answers calls until none waits.
func (p *pool) work() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.ready) > 0 {
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
	p.workers--
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
