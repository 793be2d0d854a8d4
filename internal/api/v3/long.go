package v3

import (
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// Answers that may be long are made slice by slice, as fast as their reader takes
// them (rules 32, 33): rpc.Sources for what Range and RangeStream leave to the pool.

// errOvertaken ends an answer at the newest revision that a compaction has passed
// since. Who asks again is answered at a newer one.
var errOvertaken = status.Error(codes.Unavailable, "etcdserver: mvcc: the revision of the answer was compacted before all of it was sent")

// overtaken is toWire for a range that is being answered.
func overtaken(in *command.RangeRequest, err error) error {
	if errors.Is(err, command.ErrCompacted) && in.Revision <= 0 {
		return errOvertaken
	}
	return toWire(err)
}

// listed is a range in key order as one message.
type listed struct {
	in   command.RangeRequest
	list *server.List
	head server.Header
	// wrapped: the message is one of RangeStream, with the answer as its field 1.
	wrapped bool
	ended   bool
}

// Next is rpc.Source's.
func (s *listed) Next(dst []byte, measure bool) ([]byte, error) {
	if measure {
		return dst, overtaken(&s.in, s.list.Measure())
	}
	start := len(dst)
	if s.list.Left() != 0 {
		out, err := s.list.Append(dst, mvcc.PageLimits{})
		if err != nil {
			return out[:start], overtaken(&s.in, err)
		}
		dst = out
	}
	if s.list.Left() == 0 {
		s.ended = true
		told := s.list.Told()
		dst = appendRangeEnd(dst, told.More, told.Count)
	}
	return dst, nil
}

// Left is rpc.Source's.
func (s *listed) Left() int64 {
	left := s.list.Left()
	if left < 0 || s.ended {
		return left
	}
	return left + s.endSize()
}

func (s *listed) endSize() int64 {
	told := s.list.Told()
	return int64(sizeYes(told.More) + sizeNumber(told.Count))
}

// Head is rpc.Source's.
func (s *listed) Head(dst []byte) []byte {
	if s.wrapped {
		size := int64(sizeHeader(s.head, s.list.Now())) + s.list.Size() + s.endSize()
		dst = appendMessage(dst, 1, int(size))
	}
	return appendHeader(dst, s.head, s.list.Now())
}

// Close is rpc.Source's.
func (s *listed) Close() {}

// Source is rpc.LongHot's. The request's key and end are the message's, which stays.
func (s hotRange) Source(call *rpc.Call, result host.Result) (rpc.Source, bool, error) {
	held := call.State.(*askedRange)
	in := *held
	*held = askedRange{}
	if result.Err != nil {
		return nil, false, toWire(result.Err)
	}
	if !in.KeyOrder() {
		return s.sorted(&in), false, nil
	}
	return &listed{in: in.RangeRequest, list: in.as.List(&in.RangeRequest), head: s.member.Header()}, false, nil
}

// gathered is an answer that has to be in memory as a whole: a range in another order
// than the keys', or the ranges of a txn that only reads. It is measured first, waits
// for its part of the budget, and is then gathered and encoded a chunk at a time.
type gathered struct {
	as server.Session
	// asks are measured, branch by branch of a txn: the larger one counts.
	asks   [2][]command.RangeRequest
	branch int
	list   *server.List // of the first of asks[branch]
	needs  [2]int64
	asked  bool
	// gather reads all; it returns what comes before the parts.
	gather func() (head []byte, parts []part, err error)
	head   []byte
	parts  []part
	left   int64 // bytes of parts; negative before they are there
	close  func()
}

// part is a range of the answer, with what comes before it.
type part struct {
	front []byte
	got   *command.RangeResponse
}

func (p *part) size() int64 { return int64(len(p.front) + sizeRangeBody(p.got)) }

const (
	// gatheredPair is what a pair takes in memory besides its bytes.
	gatheredPair = 96
	// smallGathered: what is smaller is gathered without asking.
	smallGathered = 64 << 10
)

// Next is rpc.Source's.
func (s *gathered) Next(dst []byte, _ bool) ([]byte, error) {
	switch {
	case s.left >= 0:
		start := len(dst)
		dst = s.append(dst)
		s.left -= int64(len(dst) - start)
		return dst, nil
	case s.measure():
		return dst, nil
	case !s.asked:
		s.asked = true
		if need := max(s.needs[0], s.needs[1]); need > smallGathered {
			return dst, &rpc.NeedError{Bytes: need}
		}
	}
	var err error
	if s.head, s.parts, err = s.gather(); err != nil {
		return dst, toWire(err)
	}
	s.left = 0
	for i := range s.parts {
		s.left += s.parts[i].size()
	}
	return dst, nil
}

// measure does a slice of the measuring; false says that all is measured. What cannot
// be read counts nothing: gather will say why.
func (s *gathered) measure() bool {
	for len(s.asks[s.branch]) == 0 {
		if s.branch == len(s.asks)-1 {
			return false
		}
		s.branch++
	}
	asks := &s.asks[s.branch]
	if s.list == nil {
		s.list = s.as.List(&(*asks)[0])
	}
	err := s.list.Measure()
	if left := s.list.Left(); err != nil || left >= 0 {
		if err == nil {
			s.needs[s.branch] += left + gatheredPair*s.list.Pairs()
		}
		s.list, *asks = nil, (*asks)[1:]
	}
	return true
}

// measurable is a request for all that may have to be in memory for another.
func measurable(in *command.RangeRequest) command.RangeRequest {
	all := *in
	if !in.KeyOrder() {
		all.Order, all.Target, all.Limit = command.SortNone, command.SortByKey, 0
	}
	return all
}

// append appends pairs as long as there is room, one at least.
func (s *gathered) append(dst []byte) []byte {
	start := len(dst)
	for ; len(s.parts) > 0; s.parts = s.parts[1:] {
		p := &s.parts[0]
		dst = append(dst, p.front...)
		p.front = nil
		for i := range p.got.KVs {
			pair := &p.got.KVs[i]
			if len(dst) > start && len(dst)+sizeMessage(sizePair(pair)) > cap(dst) {
				p.got.KVs = p.got.KVs[i:]
				return dst
			}
			dst = appendPair(dst, 2, pair)
			*pair = command.KeyValue{}
		}
		dst = appendRangeEnd(dst, p.got.More, p.got.Count)
	}
	return dst
}

// Left is rpc.Source's.
func (s *gathered) Left() int64 { return s.left }

// Head is rpc.Source's.
func (s *gathered) Head(dst []byte) []byte { return append(dst, s.head...) }

// Close is rpc.Source's.
func (s *gathered) Close() {
	if s.close != nil {
		s.close()
	}
}

// sorted is the source of a range in another order than the keys'.
func (s *kv) sorted(in *askedRange) *gathered {
	head := s.member.Header()
	return &gathered{as: in.as, left: -1, asks: [2][]command.RangeRequest{{measurable(&in.RangeRequest)}}, gather: func() ([]byte, []part, error) {
		got, err := in.as.Range(&in.RangeRequest)
		if err != nil {
			return nil, nil, err
		}
		return appendHeader(nil, head, got.Revision), []part{{got: got}}, nil
	}}
}

// Source is rpc.LongHot's, for a txn that only reads.
func (s hotTxn) Source(call *rpc.Call, result host.Result) (rpc.Source, bool, error) {
	head := s.member.Header()
	if result.Err != nil {
		call.State = nil
		return nil, false, toWire(result.Err)
	}
	if out, wrote := result.Response.(*command.TxnResponse); wrote {
		return &gathered{head: appendTxnBody(appendHeader(nil, head, out.Revision), out)}, false, nil
	}
	in := call.State.(*heldTxn)
	call.State = nil
	src := &gathered{as: in.as, left: -1, close: in.release}
	for i, ops := range [...][]command.Op{in.Success, in.Failure} {
		for j := range ops {
			src.asks[i] = append(src.asks[i], measurable(ops[j].Range))
		}
	}
	src.gather = func() ([]byte, []part, error) {
		got, err := in.as.ReadTxn(&in.TxnRequest)
		if err != nil {
			return nil, nil, err
		}
		parts := make([]part, len(got.Responses))
		for i := range got.Responses {
			parts[i] = part{front: appendOpFront(nil, 3, &got.Responses[i]), got: got.Responses[i].Range}
		}
		return appendYes(appendHeader(nil, head, got.Revision), 2, got.Succeeded), parts, nil
	}
	return src, false, nil
}

// hotStream answers KV.RangeStream.
type hotStream struct{ *kv }

// Begin is rpc.Hot's.
func (s hotStream) Begin(call *rpc.Call, message []byte) { s.begin(call, message, false) }

func (s hotStream) begin(call *rpc.Call, message []byte, caughtUp bool) {
	in := askedOf(call)
	unread := readRange(message, &in.RangeRequest)
	err := Check(call, s.member, streamNeeds(pb.KV_RangeStream_FullMethodName), false, true)
	if err == nil {
		err = unread
	}
	if err == nil {
		err = toWire(in.ValidateStream())
	}
	if s.ask(call, in, err, caughtUp) {
		s.catchUp(call, func() { s.begin(call, message, true) })
	}
}

// Answer is rpc.Hot's.
func (s hotStream) Answer(dst []byte, _ *rpc.Call, _ host.Result) ([]byte, error) {
	return dst, rpc.ErrElsewhere
}

// Source is rpc.LongHot's. A negative limit asks for all in one message (spec 2.2).
func (s hotStream) Source(call *rpc.Call, result host.Result) (rpc.Source, bool, error) {
	held := call.State.(*askedRange)
	in := *held
	*held = askedRange{}
	in.Target, in.Order = command.SortByKey, command.SortNone
	switch {
	case result.Err != nil:
		return nil, false, toWire(result.Err)
	case in.Limit < 0:
		return &listed{in: in.RangeRequest, list: in.as.List(&in.RangeRequest), head: s.member.Header(), wrapped: true}, false, nil
	}
	return &streamed{pieces: in.as.RangePieces(&in.RangeRequest), head: s.member.Header()}, true, nil
}

// streamed is a range as the messages of RangeStream.
type streamed struct {
	pieces *server.RangePieces
	head   server.Header
	over   bool
}

// Next is rpc.Source's. Before the pairs of a message there is its length and, in the
// last one, the header: they are put there last.
func (s *streamed) Next(dst []byte, _ bool) ([]byte, error) {
	start := len(dst)
	const room = 1 + 3 // tag and length of most messages
	dst, last, err := s.pieces.Next(append(dst, make([]byte, room)...))
	if err != nil {
		return dst[:start], toWire(err)
	}
	var front []byte
	if s.over = last; last {
		told := s.pieces.Told()
		dst = appendRangeEnd(dst, told.More, told.Count)
		front = appendHeader(nil, s.head, s.pieces.Now())
	}
	body := dst[start+room:]
	front = append(appendMessage(nil, 1, len(front)+len(body)), front...)
	switch more := len(front) - room; {
	case more > 0:
		dst = append(dst, front[:more]...)
		copy(dst[start+len(front):], body)
	case more < 0:
		copy(dst[start+len(front):], body)
		dst = dst[:len(dst)+more]
	}
	copy(dst[start:], front)
	return dst, nil
}

// Left is rpc.Source's.
func (s *streamed) Left() int64 {
	if s.over {
		return 0
	}
	return -1
}

// Head is rpc.Source's.
func (s *streamed) Head(dst []byte) []byte { return dst }

// Close is rpc.Source's.
func (s *streamed) Close() {}
