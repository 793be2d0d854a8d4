package grpcproxy

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// link is a Watch stream to the cluster. When it breaks it is opened again, at whatever
// member answers, and every watch on it goes on from where it was: its feed gets each
// event once, in order.
type link struct {
	up     pb.WatchClient
	ctx    context.Context // with what the caller shows
	stop   context.CancelFunc
	leader bool // the caller wants to know when there is no leader
	to     receiver

	mu    sync.Mutex
	feeds map[int64]*feed
	last  int64
	// queue waits to be sent; awaited are the creations among what was put into it,
	// in the order in which they are answered.
	queue   []*pb.WatchRequest
	awaited []*feed
	// asked and answered count progress since the stream was opened last.
	asked, answers int
	wake           chan struct{}
}

// receiver is whom a link tells, on a goroutine of the link's own and never with its
// lock held.
type receiver interface {
	// take is told what came for a watch. What makes up for a break does not come.
	take(*feed, *pb.WatchResponse)
	// progress is told of watches that have all events up to the header's revision.
	progress(*pb.ResponseHeader, []*feed)
	// fail is told why nothing will come any more.
	fail(error)
}

// feed is one watch of a link.
type feed struct {
	owner any
	// loose: it may be told again of the last revision that it was told of.
	loose bool
	// Guarded by link.mu.
	id      int64
	create  *pb.WatchCreateRequest
	next    int64 // no event before it is to come; 0: those after the creation
	created bool
	// What is so since the stream was opened last: the watch stands there, from a
	// revision of the member's on, and that many requests for progress went before.
	stands bool
	since  int64
	before int
}

const (
	// brief and long are the pauses between two attempts to open a link.
	brief, long = 50 * time.Millisecond, time.Second
	// leaderless is how long a caller that wants a leader is left without the cluster.
	leaderless = 5 * time.Second
)

// newLink makes one for a caller; from is what it shows.
func newLink(ctx context.Context, up pb.WatchClient, by caller, from metadata.MD, to receiver) *link {
	l := &link{up: up, leader: by.leader, to: to, feeds: map[int64]*feed{}, wake: make(chan struct{}, 1)}
	l.ctx, l.stop = context.WithCancel(by.context(ctx, from))
	go l.run()
	return l
}

// add begins a watch from a revision on; 0 is from now on.
func (l *link) add(f *feed) *feed {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	f.id = l.last
	l.feeds[f.id] = f
	l.ask(f)
	return f
}

// ask has a creation sent. l.mu is held.
func (l *link) ask(f *feed) {
	r := proto.Clone(f.create).(*pb.WatchCreateRequest)
	r.WatchId, r.StartRevision, r.Fragment = f.id, f.next, false
	if f.loose && f.created {
		// A watch that begins with the revision to come keeps the cluster from telling
		// progress until there is that revision.
		r.StartRevision--
	}
	l.awaited = append(l.awaited, f)
	l.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (l *link) send(r *pb.WatchRequest) {
	l.queue = append(l.queue, r)
	signal(l.wake)
}

// drop ends a watch; what has come of it already may still be told. It returns how many
// are left.
func (l *link) drop(f *feed) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.feeds[f.id] == f {
		delete(l.feeds, f.id)
		l.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: f.id}}})
	}
	return len(l.feeds)
}

// wantProgress asks for a word on how far all watches are. There may be none: the
// cluster says nothing while one of them is behind.
func (l *link) wantProgress() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	l.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// run opens the stream again and again.
func (l *link) run() {
	pause, since := brief, time.Now()
	for {
		begun := time.Now()
		err := l.session(func() { since = time.Time{} })
		if l.ctx.Err() != nil {
			return
		}
		if since.IsZero() { // it was open
			pause, since = brief, time.Now()
		}
		if reason := l.hopeless(err, time.Since(since)); reason != nil {
			l.stop()
			l.to.fail(reason)
			return
		}
		select {
		case <-time.After(max(0, pause-time.Since(begun))):
		case <-l.ctx.Done():
			return
		}
		pause = min(2*pause, long)
	}
}

// hopeless returns the error that callers are told, if it makes no sense to go on.
func (l *link) hopeless(err error, away time.Duration) error {
	s := status.Convert(err)
	switch {
	case l.leader && strings.Contains(s.Message(), rpctypes.ErrNoLeader.Error()):
		return err
	case l.leader && away > leaderless:
		return rpctypes.ErrGRPCNoLeader
	}
	switch s.Code() {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented, codes.InvalidArgument:
		return err
	}
	return nil
}

// session is the life of one stream.
func (l *link) session(open func()) error {
	ctx, cancel := context.WithCancel(l.ctx)
	stream, err := l.up.Watch(ctx)
	if err != nil {
		cancel()
		return err
	}
	l.mu.Lock()
	l.queue, l.awaited, l.asked, l.answers = nil, nil, 0, 0
	for _, id := range l.order() {
		l.feeds[id].stands = false
		l.ask(l.feeds[id])
	}
	l.mu.Unlock()
	written := make(chan struct{})
	go func() {
		l.write(ctx, stream)
		close(written)
	}()
	defer func() {
		cancel()
		<-written
	}()
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		open()
		l.take(r)
	}
}

// order lists the watches in the order of their creation. l.mu is held.
func (l *link) order() []int64 {
	ids := make([]int64, 0, len(l.feeds))
	for id := range l.feeds {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// write sends what waits until the stream is over, which its reader will find out.
func (l *link) write(ctx context.Context, stream pb.Watch_WatchClient) {
	for {
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, r := range queue {
			if stream.Send(r) != nil {
				return
			}
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
	}
}

// take finds out whose a response is, and what it says about the way behind.
func (l *link) take(r *pb.WatchResponse) {
	if r.WatchId == -1 && !r.Created && !r.Canceled && len(r.Events) == 0 {
		l.mu.Lock()
		all := l.caughtUp(r.GetHeader().GetRevision())
		l.mu.Unlock()
		l.to.progress(r.Header, all)
		return
	}
	l.mu.Lock()
	f, news := l.place(r)
	l.mu.Unlock()
	if news {
		l.to.take(f, r)
	}
}

// caughtUp is what an answer to a request for progress covers: the watches that stood
// when it was made. A watch did if the cluster has gone on since it stands, or if the
// request came after it: there is one answer to each request, or none. (The answer may
// overtake, or be overtaken by, word of a new watch.) It is good to be told, and nothing
// is built on it: before 3.4.25 and 3.5.8 etcd gave it for watches that were still owed
// the past. l.mu is held.
func (l *link) caughtUp(revision int64) (all []*feed) {
	l.answers++
	for _, id := range l.order() {
		if f := l.feeds[id]; f.stands && (revision > f.since || l.answers > f.before) {
			all = append(all, f)
		}
	}
	return all
}

// place moves the feed of a response on; news says that its owner is to be told.
func (l *link) place(r *pb.WatchResponse) (f *feed, news bool) {
	if r.Created {
		f = l.answered(r.WatchId)
		if f == nil || l.feeds[f.id] != f {
			return nil, false
		}
		again := f.created
		f.created = true
		if r.Canceled {
			delete(l.feeds, f.id)
			return f, true
		}
		f.stands, f.since, f.before = true, r.GetHeader().GetRevision(), l.asked
		if f.next == 0 {
			f.next = f.since + 1
		}
		return f, !again
	}
	if f = l.feeds[r.WatchId]; f == nil {
		return nil, false
	}
	switch n := len(r.Events); {
	case r.Canceled:
		delete(l.feeds, f.id)
	case n > 0:
		f.next = max(f.next, r.Events[n-1].GetKv().GetModRevision()+1)
	default:
		f.next = max(f.next, r.GetHeader().GetRevision()+1)
	}
	return f, true
}

// answered is the creation that a response answers: a refusal has no number, but comes
// in its turn.
func (l *link) answered(id int64) *feed {
	i := slices.IndexFunc(l.awaited, func(f *feed) bool { return f.id == id })
	if i < 0 {
		i = 0
	}
	if len(l.awaited) == 0 {
		return nil
	}
	f := l.awaited[i]
	l.awaited = slices.Delete(l.awaited, i, i+1)
	return f
}

// signal fills a channel of one place.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
