package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/linear"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// client makes one call at a time, each to a member of its choice. It implements
// host.Completions.
type client struct {
	w    *world
	rand *simenv.Rand
	// other decides what is made of a drawn request.
	other *simenv.Rand
	load  *workload
	id    int

	current *call
	// told, unless it is nil, is shown what every call ends with, nil for no answer.
	told   func(request, response any)
	tags   uint64
	wakeAt env.Instant
}

// call is one call on its way.
type call struct {
	name    string
	draft   draft
	replica *replica
	run     int
	tag     uint64
	began   int64 // its position in the history
	// mustSee is the highest revision, and compacted the highest compaction, that
	// anyone had been told of when the call began.
	mustSee, compacted id.Revision
	giveUp             env.Instant // when the world says that it will never end
	answered           bool
	result             host.Result
	// look: the read's index is confirmed, the state may be looked at.
	look bool
	// lookAt is when it is looked at next; stream and got are a range in pieces, as
	// far as it has come.
	lookAt env.Instant
	stream *server.RangeStream
	got    *command.RangeResponse
}

func newClient(w *world, n int) *client {
	rand := w.env.Rand(fmt.Sprintf("client %d", n))
	other := w.env.Rand(fmt.Sprintf("other calls of client %d", n))
	return &client{w: w, rand: rand, other: other, load: newWorkload(rand, w.swarm.load, n), id: n}
}

func (c *client) String() string { return fmt.Sprintf("client %d", c.id) }

// due is when the client can do something.
func (c *client) due() env.Instant {
	switch {
	case c.current == nil && c.w.calm:
		return env.Never
	case c.current == nil:
		return c.wakeAt
	case c.current.answered:
		return c.current.lookAt
	case c.current.replica.host == nil || c.current.replica.runs != c.current.run:
		return 0 // the connection is gone
	}
	return max(c.current.giveUp, c.current.replica.machine.BusyUntil().Add(patience))
}

// act does the next thing.
func (c *client) act() {
	switch call := c.current; {
	case call == nil:
		r := c.w.pick(c.rand)
		c.wakeAt = c.w.env.Now().Add(c.pause())
		c.begin(r, c.vary(c.load.next(c.w.history.revision)))
	case call.answered && call.look:
		c.lookAtState()
	case call.answered:
		c.end()
	case call.replica.host == nil || call.replica.runs != call.run:
		c.lost("connection lost")
	default:
		c.w.fail("%v: call %s never ended: %s", c, call.name, model.Text(call.draft.request))
	}
}

// pause draws the time between two calls: bursts without a pause, and such long
// pauses between them that the storm has about as many calls as it should.
func (c *client) pause() time.Duration {
	load := c.w.swarm.load
	if !c.rand.OneIn(load.burst) {
		return 0
	}
	return around(c.rand, c.w.swarm.storm*time.Duration(int64(load.clients)*load.burst)/time.Duration(load.calls))
}

// begin makes a call to a member, if it is up.
func (c *client) begin(r *replica, d draft) {
	if r == nil || r.host == nil || d.duty && r.group.Leader() != r.member {
		return
	}
	if d.transfer {
		r.guard(func() { _ = r.group.Transfer(0) })
		r.wake()
		return
	}
	w := c.w
	c.tags++
	timeout := w.swarm.load.timeout
	c.current = &call{
		name: fmt.Sprintf("c%d.%d", c.id, c.tags), draft: d, replica: r, run: r.runs, tag: c.tags,
		began: w.history.tick(), mustSee: w.history.revision, compacted: w.history.compacted,
		giveUp: w.env.Now().Add(timeout + patience),
	}
	w.trace.fold(eventCall, uint64(c.id), c.tags, uint64(r.member))
	w.trace.tell(w.env.Now(), "%v -> %v  %s: %s", c, r, c.current.name, d)
	question := host.Call{To: c, Tag: c.tags, Deadline: r.process.Clock.Now().Add(timeout)}
	switch {
	case isQuestion(d.request) && local(d.request):
		c.current.answered, c.current.look = true, true
		return
	case isQuestion(d.request):
		r.guard(func() { r.group.ReadIndex(question) })
	default:
		header := w.signed(r, command.Header{IdempotencyKey: c.current.name, Wall: r.process.Clock.Wall().UnixNano()})
		if d.duty {
			header.Class, header.Term = command.Duty, r.group.Term()
			w.ledger.duties[header.IdempotencyKey] = header.Term
		}
		cmd := command.Encode(nil, header, d.request.(command.Body))
		r.guard(func() { r.group.Propose(question, cmd) })
	}
	r.wake()
}

// Push implements host.Completions.
func (c *client) Push(result host.Result) {
	call := c.current
	if call == nil || call.tag != result.Tag || call.answered {
		c.w.fail("%v: a call has ended twice, or after its member did: %+v", c, result)
		return
	}
	call.answered, call.result = true, result
	compact, compacts := call.draft.request.(*command.CompactRequest)
	call.look = result.Err == nil && (isQuestion(call.draft.request) || compacts && compact.Physical)
}

// lookAtState answers a read from the member's state.
func (c *client) lookAtState() {
	call := c.current
	if call.replica.host == nil || call.replica.runs != call.run {
		c.lost("connection lost before the look")
		return
	}
	var response any
	var done bool
	var err error
	call.replica.guard(func() { response, done, err = c.ask(call) })
	if c.w.failure != nil || call.replica.host == nil {
		return
	}
	switch {
	case err != nil:
		call.result.Err = err
	case !done:
		if now := c.w.env.Now(); now > max(call.giveUp, call.replica.machine.BusyUntil()).Add(removalPatience) {
			c.w.fail("%v: call %s has more to come and never ends: %s", c, call.name, call.draft)
		}
		return
	default:
		call.result.Response = response
	}
	c.end()
}

// end judges the answer and writes the call into the history.
func (c *client) end() {
	call, w := c.current, c.w
	response, err := call.result.Response, call.result.Err
	w.trace.fold(eventReturn, uint64(c.id), call.tag, digestString(answerText(response, err)))
	w.trace.tell(w.env.Now(), "%v <- %v  %s: %s", c, call.replica, call.name, answerText(response, err))
	op := linear.Operation{
		Client: c.id, Call: call.began, Return: w.history.tick(),
		Request: call.draft.request, Response: response, Err: err,
	}
	switch {
	case isQuestion(call.draft.request):
		op.Unknown = err != nil && !isRefusal(err)
		if !op.Unknown {
			w.check(c, w.judgeQuestion(call, response, err))
		}
	default:
		op.Unknown = err != nil && !isRefusal(err)
		w.check(c, w.judgeWrite(call, &op))
	}
	switch {
	case errors.Is(err, host.ErrTooManyRequests):
		w.trace.mark(markTooMany)
	case errors.Is(err, host.ErrTimeout), errors.Is(err, host.ErrTimeoutLeader):
		w.trace.mark(markTimeout)
	case errors.Is(err, command.ErrCompacted) && call.look:
		w.trace.mark(markCompactedRead)
	}
	if err == nil {
		w.history.learn(call.draft.request, response)
		c.load.learn(call.draft.request, response)
	}
	if call.draft.searched() && !nothingDone(err) {
		w.history.add(call.name, op)
	}
	c.over(response)
}

// over forgets the call that has ended.
func (c *client) over(response any) {
	request := c.current.draft.request
	if c.current = nil; c.told != nil {
		c.told(request, response)
	}
}

// lost ends a call whose member has died.
func (c *client) lost(why string) {
	call, w := c.current, c.w
	w.trace.fold(eventReturn, uint64(c.id), call.tag, 0)
	w.trace.tell(w.env.Now(), "%v <- %v  %s: %s", c, call.replica, call.name, why)
	if call.draft.searched() {
		w.history.add(call.name, linear.Operation{
			Client: c.id, Call: call.began, Return: linear.Forever, Request: call.draft.request, Unknown: true,
		})
	}
	c.over(nil)
}

// isRefusal says whether an error is the state's answer, rather than the loss of
// one.
func isRefusal(err error) bool {
	if nothingDone(err) {
		return true
	}
	for _, refusal := range []error{
		command.ErrKeyNotFound, command.ErrLeaseNotFound, command.ErrLeaseExists, command.ErrCompacted, command.ErrFutureRevision,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// neverProposed says whether an error promises that a proposal went nowhere.
func neverProposed(err error) bool {
	return errors.Is(err, host.ErrTooManyRequests) || errors.Is(err, host.ErrTooLarge)
}

// judgeWrite holds the answer of a proposal against the ledger.
func (w *world) judgeWrite(call *call, op *linear.Operation) error {
	command, place := w.ledger.find(call.name)
	switch {
	case op.Unknown && neverProposed(op.Err) && place != 0:
		return fmt.Errorf("%s was refused with %v and is in the log at %d", call.name, op.Err, command.index)
	case op.Unknown:
		op.Return = linear.Forever
		return nil
	case place == 0:
		return fmt.Errorf("%s was acknowledged with %s and nobody has applied it", call.name, answerText(op.Response, op.Err))
	case call.result.Index != command.index:
		return fmt.Errorf("%s was acknowledged at index %d and is at %d", call.name, call.result.Index, command.index)
	}
	op.Place = place
	want, got := answerText(command.response, command.err), answerText(op.Response, op.Err)
	if want != got {
		return fmt.Errorf("%s: %s\n\tanswer    %s\n\tthe model %s", call.name, model.Text(call.draft.request), got, want)
	}
	return nil
}

// judgeRead holds what a read saw against the oracle at the revision of its
// header, and against what it had to see.
func (w *world) judgeRead(call *call, request *command.RangeRequest, response any, err error) error {
	oracle := w.ledger.oracle
	switch {
	case errors.Is(err, command.ErrCompacted):
		if request.Revision > 0 && request.Revision < oracle.Compacted() {
			return nil
		}
		return fmt.Errorf("%s: revision %d is refused as compacted, %d is", call.name, request.Revision, oracle.Compacted())
	case errors.Is(err, command.ErrFutureRevision):
		if request.Serializable || request.Revision > call.mustSee {
			return nil
		}
		return fmt.Errorf("%s: revision %d is refused as in the future, %d was known", call.name, request.Revision, call.mustSee)
	case err != nil:
		return err
	}
	got := response.(*command.RangeResponse)
	if got.Revision > oracle.Revision() {
		return fmt.Errorf("%s: read at revision %d, %d is the last", call.name, got.Revision, oracle.Revision())
	}
	if !request.Serializable && got.Revision < call.mustSee {
		return fmt.Errorf("%s: stale: read at revision %d, though %d had been acknowledged before it began", call.name, got.Revision, call.mustSee)
	}
	if !request.Serializable && request.Revision > 0 && request.Revision < call.compacted {
		return fmt.Errorf("%s: revision %d was read, though compaction to %d had been acknowledged", call.name, request.Revision, call.compacted)
	}
	want, err := oracle.At(got.Revision).Range(request)
	if a, b := model.Text(got), answerText(want, err); a != b {
		return fmt.Errorf("%s: %s\n\tread      %s\n\tthe model %s", call.name, model.Text(request), a, b)
	}
	return halves(request, got)
}
