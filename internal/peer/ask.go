package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/internal/id"
)

// What an Ask can end with, besides ctx's error and an *AnswerError.
var (
	// ErrNotConnected says that the question was not sent.
	ErrNotConnected = errors.New("peer: not connected")
	// ErrConnectionLost says that the connection was lost before an answer came.
	ErrConnectionLost = errors.New("peer: connection lost")
	// ErrRefused says that the other side does not answer, or too much already.
	ErrRefused = errors.New("peer: question refused")
	// ErrTooLarge says that the question is over 1 MB.
	ErrTooLarge = errors.New("peer: question is too large")
	// ErrTooMany says that too many questions are open.
	ErrTooMany = errors.New("peer: too many open questions")
)

// AnswerError is the error that the other side answered with.
type AnswerError struct {
	Member id.Member
	Text   string
}

// Error is the other side's text as it is.
func (e *AnswerError) Error() string { return e.Text }

const (
	maxAsk    = 1 << 20
	maxAnswer = 16 << 20
	// standardDeadline is that of a question whose context has none.
	standardDeadline = 5 * time.Second
)

// How an answer ended.
const (
	answered byte = iota
	answerFailed
	answerRefused
)

// question is the body of an ask frame: 8 bytes number, 4 bytes milliseconds to
// the deadline, 1 byte kind, the question.
type question struct {
	number uint64
	within time.Duration
	kind   uint8
	body   []byte
}

// AppendTo implements Message.
func (q *question) AppendTo(buf []byte) []byte {
	buf = binary.LittleEndian.AppendUint64(buf, q.number)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(min(max(q.within.Milliseconds(), 1), 1<<31)))
	return append(append(buf, q.kind), q.body...)
}

// Size implements Message.
func (q *question) Size() int { return 64 + len(q.body) }

func decodeQuestion(data []byte) (q question, ok bool) {
	if len(data) < 13 {
		return q, false
	}
	return question{
		number: binary.LittleEndian.Uint64(data),
		within: time.Duration(binary.LittleEndian.Uint32(data[8:])) * time.Millisecond,
		kind:   data[12], body: data[13:],
	}, true
}

// answer is the body of an answer frame: 8 bytes number, 1 byte how it ended, the
// answer or the error's text.
type answer struct {
	number uint64
	end    byte
	body   []byte
}

// AppendTo implements appender.
func (a *answer) AppendTo(buf []byte) []byte {
	buf = binary.LittleEndian.AppendUint64(buf, a.number)
	return append(append(buf, a.end), a.body...)
}

func decodeAnswer(data []byte) (a answer, ok bool) {
	if len(data) < 9 || data[8] > answerRefused {
		return a, false
	}
	return answer{binary.LittleEndian.Uint64(data), data[8], data[9:]}, true
}

// Ask puts a question to another member and waits for the answer, until ctx ends
// or for 5 s if ctx has no deadline. The answer is the caller's to keep. A question
// may be answered although Ask returns an error. Errors: those above, the
// *AnswerError of the other side, ctx's.
func (t *Transport) Ask(ctx context.Context, to id.Member, kind uint8, body []byte) ([]byte, error) {
	if len(body) > maxAsk {
		return nil, ErrTooLarge
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, standardDeadline)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := t.peer(to)
	if p == nil {
		return nil, fmt.Errorf("%w: %v is no known member", ErrNotConnected, to)
	}
	l := p.lanes[Control]
	c := l.current()
	if c == nil {
		return nil, fmt.Errorf("%w to %v", ErrNotConnected, to)
	}
	number, waiting, err := c.expect(t.opts.Limits.Asks)
	if err != nil {
		return nil, err
	}
	defer c.forget(number)
	deadline, _ := ctx.Deadline()
	q := &question{number: number, within: time.Until(deadline), kind: kind, body: body}
	if !l.send(item{kind: frameAsk, message: q, size: q.Size(), only: c}) {
		return nil, fmt.Errorf("%w to %v, or its queue is full", ErrNotConnected, to)
	}
	select {
	case a := <-waiting:
		switch a.end {
		case answered:
			return a.body, nil
		case answerFailed:
			return nil, &AnswerError{to, string(a.body)}
		}
		return nil, fmt.Errorf("%w by %v: %s", ErrRefused, to, a.body)
	case <-c.dead:
		return nil, fmt.Errorf("%w to %v", ErrConnectionLost, to)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// expect makes room for an answer.
func (c *outConn) expect(limit int) (number uint64, waiting chan answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= limit {
		return 0, nil, ErrTooMany
	}
	c.asked++
	waiting = make(chan answer, 1)
	c.waiting[c.asked] = waiting
	return c.asked, waiting, nil
}

func (c *outConn) forget(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, number)
}

// take hands an answer to whoever waits for it; nobody may.
func (c *outConn) take(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if waiting := c.waiting[a.number]; waiting != nil {
		delete(c.waiting, a.number)
		waiting <- a
	}
}

// answer answers a question of the other side, on a goroutine of its own.
func (in *incoming) answer(q question) {
	t := in.t
	if t.opts.Answer == nil || in.open.Add(1) > int64(t.opts.Limits.Asks) {
		text := "too many open questions"
		if t.opts.Answer == nil {
			text = "this member answers no questions"
		} else {
			in.open.Add(-1)
		}
		in.write(frameAnswer, &answer{q.number, answerRefused, []byte(text)})
		return
	}
	t.wg.Go(func() {
		defer in.open.Add(-1)
		ctx, cancel := context.WithTimeout(in.ctx, q.within)
		defer cancel()
		body, err := t.opts.Answer(ctx, in.from, q.kind, q.body)
		if ctx.Err() != nil {
			return // nobody waits any more
		}
		a := answer{q.number, answered, body}
		switch {
		case err != nil:
			a.end, a.body = answerFailed, []byte(err.Error())
		case len(body) > maxAnswer:
			a.end, a.body = answerFailed, []byte("the answer is too large")
		}
		in.write(frameAnswer, &a)
	})
}
