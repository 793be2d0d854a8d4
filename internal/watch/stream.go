package watch

import (
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
)

// Refusals of a watch, besides command.ErrCompacted for a negative start and what
// the permission says.
var (
	ErrEmptyRange  = errors.New("watch: range is empty")
	ErrDuplicateID = errors.New("watch: the stream has a watch of this ID")
)

// ErrClosed ends the streams of a hub that is closed.
var ErrClosed = errors.New("watch: the member stops")

// ErrBusy says that the state cannot be read at the moment: a snapshot is being
// installed, or too much is being read. It passes by itself, and is not announced.
var ErrBusy = errors.New("watch: the state cannot be read just now")

// Request asks for a watch (spec 3.1).
type Request struct {
	ID int64
	// Key and End are as on the wire; an empty key is "\x00".
	Key, End []byte
	Start    id.Revision
	// Progress asks for a bookmark at every Tick without an event before it.
	Progress, PrevKV, Fragment, NoPuts, NoDeletes bool
	// Permit judges the range, now and whenever rights have changed; nil permits.
	Permit func(key, end []byte) error
}

// Response is one message to the client (pb.WatchResponse).
type Response struct {
	ID int64
	// Revision is the header's; 0 for a watch that compaction has ended.
	Revision id.Revision
	// Created is the answer to a Request; with Refused it is also the end. Canceled with
	// Refused alone is the end of a watch that is not permitted any more.
	Created, Canceled bool
	Refused           error
	// Compacted is set when compaction has ended the watch.
	Compacted id.Revision
	// Events are the fields "events" of the message as they are on the wire. They are
	// shared and never change.
	Events []byte
	// Fragment says that the rest of the same response follows.
	Fragment bool
}

// newest as a bound is none.
const newest id.Revision = math.MaxInt64

// NoID is the ID of responses that are about no watch.
const NoID = -1

// Stream is the subscriptions of one client's stream, and what is to be sent on it.
// Next belongs to its sender; the other methods may be called from any goroutine.
type Stream struct {
	hub *Hub
	// wake tells the sender that Next has something; it must not wait. It may be
	// called with locks held and must not call back.
	wake func()

	place int // in Hub.streams, under Hub.mu

	mu     sync.Mutex
	closed bool
	subs   map[int64]*Subscription
	order  []*Subscription // of subs, by creation
	lastID int64           // the next one to try for a watch without an ID
	// replies are answers to requests, and bookmarks; they go before events.
	replies []Response
	// ready are the subscriptions that are owed events, first come first served.
	ready []*Subscription
	// rest is what remains of a response that is sent in pieces.
	rest Response
	// asked is the revision that a progress request waits for, 0 for none, and again
	// that of the latest one since; looked counts the responses since it was last
	// looked after.
	asked, again id.Revision
	looked       int
}

// Subscription is one watch: a cursor. Everything is under Stream.mu but joined and
// place, which are under Hub.mu; stream, interest and group never change.
type Subscription struct {
	interest
	stream *Stream
	group  *group
	joined bool
	place  int // in group.subs

	id    int64
	start id.Revision // as it was asked for
	// next is the cursor: the next revision that the client is owed. While nothing
	// is owed it is at least hub.done + 1, whatever next says.
	next id.Revision
	// due is the last revision that is known to have events; nothing is owed if it is
	// before next.
	due id.Revision
	// queued: it is in ready, or in the sender's hands.
	queued bool
	// behind: it was created in the past, or has read from disk, and has not reached
	// hi since.
	behind bool
	// told is the last header of a response while it was behind.
	told id.Revision
	// quiet: it had no event since the last Tick.
	quiet bool
	// permit judges the watch, as it did under rights.
	permit func() error
	rights any

	progress, fragment bool

	// ended: it gets no events any more; stuck: but keeps its ID, since compaction
	// and not its client has ended it (a quirk of spec 3.1).
	ended, stuck bool
}

// Open begins a stream.
func (h *Hub) Open(wake func()) *Stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Stream{hub: h, wake: wake, subs: make(map[int64]*Subscription), place: len(h.streams)}
	h.streams = append(h.streams, s)
	return s
}

// Close ends all subscriptions of the stream. Next has nothing afterwards.
func (s *Stream) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	last := len(s.hub.streams) - 1
	s.hub.streams[s.place] = s.hub.streams[last]
	s.hub.streams[s.place].place = s.place
	s.hub.streams[last] = nil
	s.hub.streams = s.hub.streams[:last]
	for _, sub := range s.order {
		sub.ended = true
		s.hub.leave(sub)
	}
	s.subs, s.order, s.replies, s.ready, s.rest, s.asked = nil, nil, nil, nil, Response{}, 0
}

// Create begins a watch; its answer comes from Next, before any of its events.
func (s *Stream) Create(r *Request) {
	h := s.hub
	rights := h.rights() // before they are asked for
	permitted := permit(r)
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	sub, err := (*Subscription)(nil), permitted
	if err == nil {
		sub, err = s.admit(r)
	}
	if err != nil {
		s.reply(Response{ID: NoID, Revision: h.opts.View().Revision, Created: true, Canceled: true, Refused: err})
		return
	}
	if r.Permit != nil {
		key, end, ask := slices.Clone(r.Key), slices.Clone(r.End), r.Permit
		sub.permit, sub.rights = func() error { return ask(key, end) }, rights
	}
	view := h.join(sub)
	if sub.permit != nil && h.rights() != rights {
		h.RightsChanged() // it may have come too late for the judgement of all
	}
	s.subs[sub.id] = sub
	s.order = append(s.order, sub)
	s.reply(Response{ID: sub.id, Revision: view.Revision, Created: true})
	switch {
	case r.Start == 0:
		sub.next = view.Revision + 1
	case r.Start < view.Compacted:
		// Even if the ring still had it.
		h.leave(sub)
		s.reply(s.overtaken(sub, view))
	case r.Start <= view.Revision:
		sub.fallBehind()
		sub.told = view.Revision
		sub.next = r.Start
		if defect.On(defect.ResumeRepeats) && r.Start > view.Compacted {
			sub.next--
		}
		sub.owe(sub.next, view.Revision)
	default:
		sub.next = r.Start
		if defect.On(defect.FutureWatchAtOnce) {
			sub.next = view.Revision + 1
		}
	}
}

// firstKey stands for an empty one.
var firstKey = []byte{0}

// permit is the checks that need no lock. The order of all is that of spec 3.1.
func permit(r *Request) error {
	if len(r.Key) == 0 {
		r.Key = firstKey
	}
	if r.Start < 0 {
		return command.ErrCompacted
	}
	if r.Permit != nil {
		return r.Permit(r.Key, r.End)
	}
	return nil
}

// admit checks the rest of a request and chooses the ID.
func (s *Stream) admit(r *Request) (*Subscription, error) {
	end := r.End
	want := interest{key: string(r.Key), prev: r.PrevKV, noPuts: r.NoPuts, noDeletes: r.NoDeletes}
	switch {
	case len(end) == 0:
	case len(end) == 1 && end[0] == 0:
		want.open = true
	default:
		if want.end = string(end); want.end <= want.key {
			return nil, ErrEmptyRange
		}
	}
	chosen := r.ID
	if chosen == 0 {
		for ; s.subs[s.lastID] != nil; s.lastID++ {
		}
		chosen = s.lastID
		s.lastID++
	} else if s.subs[chosen] != nil {
		return nil, ErrDuplicateID
	}
	return &Subscription{
		interest: want, stream: s, id: chosen, start: r.Start, progress: r.Progress, fragment: r.Fragment,
	}, nil
}

// reply queues an answer.
func (s *Stream) reply(r Response) {
	s.replies = append(s.replies, r)
	s.wake()
}

// Cancel ends a watch. An ID that is not there is ignored.
func (s *Stream) Cancel(watch int64) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subs[watch]
	if sub == nil {
		return
	}
	s.end(sub, nil)
}

// end ends a watch and tells the client. Both locks are held.
func (s *Stream) end(sub *Subscription, refused error) {
	sub.ended = true
	s.hub.leave(sub)
	delete(s.subs, sub.id)
	at := slices.Index(s.order, sub)
	s.order = slices.Delete(s.order, at, at+1)
	s.reply(Response{ID: sub.id, Revision: s.hub.opts.View().Revision, Canceled: true, Refused: refused})
}

// Progress asks for one bookmark of the whole stream (spec 3.5). It is given once all
// of the watches have been shown everything up to now; it is not given at all if
// there is none, if one of them is behind, waits for a revision of the future, or was
// ended by compaction.
func (s *Stream) Progress() {
	hi := s.hub.opts.View().Revision
	if s.noteAsked(hi) {
		s.hub.ask(s, hi)
	}
}

func (s *Stream) noteAsked(hi id.Revision) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) == 0 {
		return false
	}
	for _, sub := range s.order {
		if sub.stuck || sub.behind || sub.start > hi {
			return false
		}
	}
	if s.asked != 0 {
		s.again = hi
	} else {
		s.asked, s.looked = hi, 0
	}
	return true
}

// Tick gives a bookmark to every watch that has asked for them and had no event
// since the tick before.
func (s *Stream) Tick() {
	hi := s.hub.opts.View().Revision
	done := id.Revision(s.hub.done.Load()) // before what is owed is looked at
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.order {
		if !sub.progress || sub.stuck || defect.On(defect.FilterStopsBookmarks) && (sub.noPuts || sub.noDeletes) {
			continue
		}
		at, idle := sub.cursor(done)-1, sub.quiet && !sub.queued
		if defect.On(defect.BookmarkOfTheView) {
			at, idle = hi, sub.quiet
		}
		if idle && sub.start <= at && at <= hi {
			s.reply(Response{ID: sub.id, Revision: at})
		}
		sub.quiet = true
	}
}

// cursor is the next revision that the client is owed; done must have been read
// before Stream.mu was taken.
func (s *Subscription) cursor(done id.Revision) id.Revision {
	if s.queued {
		return s.next
	}
	return max(s.next, done+1)
}

// owe notes that there are events of revisions first to last.
func (s *Subscription) owe(first, last id.Revision) {
	if last < s.next || s.ended {
		return
	}
	s.due = max(s.due, last)
	if s.queued {
		return
	}
	s.next = max(s.next, first) // up to there it has been shown everything
	s.queue()
	if len(s.stream.ready) == 1 {
		s.stream.wake()
	}
}

// fallBehind and keepUp note that it is behind, or is not any more.
func (s *Subscription) fallBehind() {
	if !s.behind {
		s.behind = true
		s.group.late.Add(1)
	}
}

func (s *Subscription) keepUp() {
	if s.behind {
		s.behind = false
		s.stream.hub.caughtUp(s.group)
	}
}

// queue puts it behind the others that are owed events.
func (s *Subscription) queue() {
	s.queued = true
	s.stream.ready = append(s.stream.ready, s)
}

// Waiting is how many answers wait to be sent.
func (s *Stream) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.replies)
}

// Next returns what is to be sent next; ok is false if there is nothing until wake is
// called. Errors: ErrClosed; ErrBusy, after which it is to be called again in a moment;
// *mvcc.DamageError.
func (s *Stream) Next() (r Response, ok bool, err error) {
	for {
		if s.hub.closed.Load() {
			return Response{}, false, ErrClosed
		}
		done := id.Revision(s.hub.done.Load()) // before what is owed is looked at
		s.mu.Lock()
		if r, ok := s.answer(done); ok || len(s.ready) == 0 {
			s.mu.Unlock()
			return r, ok, nil
		}
		sub := s.ready[0]
		s.ready = pop(s.ready)
		next, due, ended := sub.next, sub.due, sub.ended
		if !ended && next < s.hub.opts.View().Oldest() {
			sub.fallBehind()
		}
		if sub.behind {
			due = newest
		}
		s.mu.Unlock()
		if ended {
			continue
		}
		got, err := s.hub.read(sub.group, next, due)
		if r, ok, err := s.take(sub, got, err); ok || err != nil {
			return r, ok, err
		}
	}
}

// pop drops the first of a queue whose memory is used again once it is empty.
func pop[T any](queue []T) []T {
	var none T
	queue[0] = none
	if len(queue) == 1 {
		return queue[:0]
	}
	return queue[1:]
}

// answer returns what goes before events: the rest of a response begun, answers to
// requests, a bookmark that is due. The caller holds mu.
func (s *Stream) answer(done id.Revision) (r Response, ok bool) {
	if s.rest.Events != nil {
		return s.piece(), true
	}
	if len(s.replies) > 0 {
		r = s.replies[0]
		s.replies = pop(s.replies)
		return r, true
	}
	if s.asked == 0 {
		return Response{}, false
	}
	// With many watches under load this is not looked after for each response.
	if s.looked++; s.looked < len(s.order) && len(s.ready) > 0 {
		return Response{}, false
	}
	s.looked = 0
	least := newest
	for _, sub := range s.order {
		if sub.stuck {
			least = newest
			break
		}
		least = min(least, sub.cursor(done))
	}
	if least-1 < s.asked {
		return Response{}, false
	}
	s.asked, s.again = s.again, 0
	if s.asked < least {
		s.asked = 0
	}
	// newest: all have gone, or it may not be given any more.
	return Response{ID: NoID, Revision: least - 1}, least != newest
}

// take moves the cursor of a subscription over what was read for it, and makes a
// response of it if there is anything in it.
func (s *Stream) take(sub *Subscription, got *run, failed error) (r Response, ok bool, err error) {
	if errors.Is(failed, command.ErrCompacted) {
		return s.lose(sub)
	}
	// After the read: what it has seen was published with rights no newer than these.
	if s.hub.refuse(s, sub) {
		return Response{}, false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case sub.ended:
		return Response{}, false, nil
	case errors.Is(failed, mvcc.ErrReplaced), errors.Is(failed, engine.ErrIterators):
		sub.queue()
		return Response{}, false, ErrBusy
	case failed != nil:
		return Response{}, false, failed
	}
	events, count, last := got.since(sub.next)
	if got.past {
		sub.fallBehind()
	}
	if len(events) > 0 {
		// One that is behind is told how far the store is, and stays behind until it
		// has come there: what it is told never goes back.
		r = Response{ID: sub.id, Revision: last, Events: events}
		if sub.behind {
			sub.told = max(sub.told, got.hi)
			r.Revision = sub.told
		}
		sub.quiet = false
		s.hub.sent.Add(count)
		if sub.fragment && len(events) >= s.hub.opts.FragmentBytes {
			s.rest = r
			r = s.piece()
		}
	}
	sub.next = got.upto + 1
	if defect.On(defect.HistoryOverlapsRing) && got.past && last == got.upto {
		sub.next = got.upto
	}
	if sub.due >= sub.next || sub.behind && got.upto < max(sub.told, got.hi) {
		sub.queue()
	} else {
		sub.queued = false
		sub.keepUp()
	}
	return r, len(events) > 0, nil
}

// lose ends a subscription whose cursor compaction has passed.
func (s *Stream) lose(sub *Subscription) (r Response, ok bool, err error) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.ended || defect.On(defect.CompactedWatchHangs) {
		return Response{}, false, nil
	}
	s.hub.leave(sub)
	return s.overtaken(sub, s.hub.opts.View()), true, nil
}

// overtaken ends a subscription that keeps its ID.
func (s *Stream) overtaken(sub *Subscription, view *mvcc.View) Response {
	sub.ended, sub.stuck, sub.queued = true, true, false
	return Response{ID: sub.id, Canceled: true, Compacted: view.Compacted}
}
