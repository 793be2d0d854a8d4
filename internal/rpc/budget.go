package rpc

import (
	"sync"
	"sync/atomic"
)

// budget counts the bytes of answers that were made and not sent yet, on all
// connections together, so that many large answers, or readers that do not read,
// cannot fill the memory (rule 35). Nobody waits for it who can do without: long
// answers are made in smaller pieces when it is spent (long.go). Only an answer that
// has to be in memory as a whole queues for its part.
type budget struct {
	size    int64
	left    atomic.Int64 // below zero when more was needed than there was
	waiting atomic.Int32 // length of queue
	mu      sync.Mutex
	queue   []want
}

// want is a call that waits for bytes.
type want struct {
	conn  *conn
	call  *Call
	bytes int64
}

const defaultBudget = 32 << 20

func (b *budget) init(size int) {
	if size <= 0 {
		size = defaultBudget
	}
	b.size = int64(size)
	b.left.Store(b.size)
}

// take takes bytes if they are there and nobody queues for them.
func (b *budget) take(bytes int) bool {
	if b.waiting.Load() > 0 {
		return false
	}
	for {
		left := b.left.Load()
		if left < int64(bytes) {
			return false
		}
		if b.left.CompareAndSwap(left, left-int64(bytes)) {
			return true
		}
	}
}

// force takes bytes whether they are there or not: a negative number gives some back.
func (b *budget) force(bytes int) {
	if b.left.Add(-int64(bytes)); bytes < 0 && b.waiting.Load() > 0 {
		b.grant()
	}
}

// give gives bytes back.
func (b *budget) give(bytes int) {
	if bytes != 0 {
		b.force(-bytes)
	}
}

// spent says that nothing is left.
func (b *budget) spent() bool { return b.left.Load() <= 0 }

// wait has a call go on in the pool once it has got its bytes, in the order of those
// who wait. Who wants most of the budget or more gets that, and so is alone.
func (b *budget) wait(c *conn, call *Call, bytes int64) {
	b.mu.Lock()
	b.queue = append(b.queue, want{c, call, min(bytes, b.size-b.size/4)})
	b.waiting.Add(1)
	b.mu.Unlock()
	b.grant()
}

// grant lets those go on whose turn it is.
func (b *budget) grant() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) > 0 && b.left.Load() >= b.queue[0].bytes {
		w := b.queue[0]
		b.queue[0] = want{}
		b.queue = b.queue[1:]
		b.waiting.Add(-1)
		b.left.Add(-w.bytes)
		w.call.long.reserved += w.bytes
		w.conn.server.pool.add(w.conn, w.call)
	}
}
