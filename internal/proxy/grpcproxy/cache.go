package grpcproxy

import (
	"bytes"
	"container/list"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Bounds of what is remembered. What others write, past this proxy, or what a lease that
// ends deletes, is not heard of here: so an answer is given again for keptFor at most.
const (
	keptFor      = time.Second
	mostAnswers  = 2048
	mostBytes    = 32 << 20
	largestReply = 1 << 20
)

// cache remembers answers to reads that need not be linearizable. A write that passes
// forgets what it may have changed: the answers that are there, and those on their way,
// which may have been made before it.
//
// Invariant: an answer is remembered only if no write to its range has passed between
// its question and its arrival.
type cache struct {
	mu      sync.Mutex
	answers map[string]*read
	age     list.List // of *read that are answered, the newest in front
	reading map[*read]bool
	bytes   int
	now     func() time.Time

	hits, misses uint64
}

// read is one question and, once there is one, its answer.
type read struct {
	question string
	key, end []byte
	revision int64
	overrun  bool // by a write
	answer   *pb.RangeResponse
	bytes    int
	asked    time.Time
	place    *list.Element
}

func newCache() *cache {
	return &cache{answers: map[string]*read{}, reading: map[*read]bool{}, now: time.Now}
}

// begin returns the answer that is remembered, or nil, and what the one that comes
// otherwise is to be given to end with.
func (c *cache) begin(question string, r *pb.RangeRequest) (*pb.RangeResponse, *read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if known := c.answers[question]; known != nil {
		if now.Sub(known.asked) < keptFor {
			c.hits++
			return known.answer, nil
		}
		c.drop(known)
	}
	c.misses++
	asked := &read{question: question, key: r.Key, end: r.RangeEnd, revision: r.Revision, asked: now}
	c.reading[asked] = true
	return nil, asked
}

// end remembers an answer if it is worth it. It is shared from now on: nobody may
// change it.
func (c *cache) end(asked *read, answer *pb.RangeResponse, err error) {
	if asked == nil {
		return
	}
	size := 0
	if err == nil {
		size = proto.Size(answer)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reading, asked)
	if err != nil || asked.overrun || size > largestReply {
		return
	}
	if known := c.answers[asked.question]; known != nil {
		c.drop(known)
	}
	asked.answer, asked.bytes = answer, size+len(asked.question)
	asked.place = c.age.PushFront(asked)
	c.answers[asked.question] = asked
	for c.bytes += asked.bytes; c.age.Len() > mostAnswers || c.bytes > mostBytes; {
		c.drop(c.age.Back().Value.(*read))
	}
}

// drop forgets an answer. c.mu is held.
func (c *cache) drop(r *read) {
	c.age.Remove(r.place)
	delete(c.answers, r.question)
	c.bytes -= r.bytes
}

// forget forgets what was read of a range that was written.
func (c *cache) forget(key, end []byte) {
	c.where(func(r *read) bool { return overlap(key, end, r.key, r.end) })
}

// compacted forgets what was read at revisions below one.
func (c *cache) compacted(revision int64) {
	c.where(func(r *read) bool { return r.revision > 0 && r.revision < revision })
}

// clear forgets everything.
func (c *cache) clear() { c.where(func(*read) bool { return true }) }

func (c *cache) where(untrue func(*read) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.reading {
		r.overrun = r.overrun || untrue(r)
	}
	// What is too old to be given again goes with it: a write looks at what was read
	// within a second, not at all that ever was.
	now := c.now()
	for e := c.age.Back(); e != nil; {
		r, before := e.Value.(*read), e.Prev()
		if now.Sub(r.asked) >= keptFor || untrue(r) {
			c.drop(r)
		}
		e = before
	}
}

// overlap says whether two ranges have a key in common. A range without end is one key.
func overlap(aKey, aEnd, bKey, bEnd []byte) bool {
	return below(aKey, bKey, bEnd) && below(bKey, aKey, aEnd)
}

// below says whether a key lies below the end of a range.
func below(first, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Compare(first, key) <= 0
	case string(end) == all:
		return true
	}
	return bytes.Compare(first, end) < 0
}

// counts are for the metrics.
func (c *cache) counts() (keys int, hits, misses uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.age.Len(), c.hits, c.misses
}
