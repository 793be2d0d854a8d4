package v3

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/watch"
)

// watches is the Watch service. A stream has two goroutines: one takes requests,
// the handler's own pulls what the watches are owed and sends it. The client's flow
// control is the only buffer.
type watches struct {
	// Without Unimplemented the compiler asks for every method.
	pb.UnsafeWatchServer
	member *server.Member
}

const (
	// maxReplies is how many answers may wait for a client that asks and does not
	// read before nothing more is taken from it.
	maxReplies = 1000
	// busyPause is how long a sender waits that found the state unreadable.
	busyPause = 10 * time.Millisecond
	// progressJitter keeps the bookmarks of many streams apart: an interval is longer
	// by up to a tenth.
	progressJitter = 10
)

// watchStream is one stream.
type watchStream struct {
	member *server.Member
	to     pb.Watch_WatchServer
	stream *watch.Stream
	// wake: the stream has something to send. room: answers have been sent.
	wake, room chan struct{}
}

// signal fills a channel of one place.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Watch serves one stream until its client leaves or the member stops (spec 3).
func (w *watches) Watch(to pb.Watch_WatchServer) error {
	s := &watchStream{member: w.member, to: to, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	s.stream = w.member.Watch(func() { signal(s.wake) })
	defer s.stream.Close()
	failed := make(chan error, 1)
	go func() {
		if err := s.receive(); err != nil {
			failed <- err
		}
	}()
	return s.send(failed)
}

// receive takes requests until the client has no more; the watches go on then.
func (s *watchStream) receive() error {
	for {
		req, err := s.to.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch r := req.GetRequestUnion().(type) {
		case *pb.WatchRequest_CreateRequest:
			if r.CreateRequest != nil {
				in := watchFromWire(r.CreateRequest)
				in.Permit = s.permit()
				s.stream.Create(&in)
			}
		case *pb.WatchRequest_CancelRequest:
			if r.CancelRequest != nil {
				s.stream.Cancel(r.CancelRequest.GetWatchId())
			}
		case *pb.WatchRequest_ProgressRequest:
			if r.ProgressRequest != nil {
				s.stream.Progress()
			}
		}
		for s.stream.Waiting() >= maxReplies {
			select {
			case <-s.room:
			case <-s.to.Context().Done():
				return s.to.Context().Err()
			}
		}
	}
}

// permit is how a watch is judged: by who its creator is now. What his credentials are
// worth then counts on.
func (s *watchStream) permit() func(key, end []byte) error {
	as, err := session(s.to.Context(), s.member)
	if err != nil {
		return func([]byte, []byte) error { return err }
	}
	return as.MayWatch
}

// send sends whatever the stream has, and waits when it has nothing.
func (s *watchStream) send(failed <-chan error) error {
	ctx := s.to.Context()
	every := s.member.ProgressInterval()
	tick := time.NewTicker(every + rand.N(every/progressJitter))
	defer tick.Stop()
	for {
		r, ok, err := s.stream.Next()
		switch {
		case ok:
			if err := s.say(&r); err != nil {
				return watchEnd(ctx, err)
			}
			signal(s.room)
			continue
		case errors.Is(err, watch.ErrBusy):
			pause := time.AfterFunc(busyPause, func() { signal(s.wake) })
			defer pause.Stop()
		case err != nil:
			return toWire(err)
		}
		select {
		case <-s.wake:
		case <-tick.C:
			s.stream.Tick()
		case err := <-failed:
			return watchEnd(ctx, err)
		case <-ctx.Done():
			return watchEnd(ctx, ctx.Err())
		}
	}
}

// watchEnd is how a stream ends that its client has left.
func watchEnd(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return toWire(err)
}

func watchFromWire(r *pb.WatchCreateRequest) watch.Request {
	in := watch.Request{
		ID: r.GetWatchId(), Key: r.GetKey(), End: r.GetRangeEnd(), Start: id.Revision(r.GetStartRevision()),
		Progress: r.GetProgressNotify(), PrevKV: r.GetPrevKv(), Fragment: r.GetFragment(),
	}
	for _, filter := range r.GetFilters() {
		switch filter {
		case pb.WatchCreateRequest_NOPUT:
			in.NoPuts = true
		case pb.WatchCreateRequest_NODELETE:
			in.NoDeletes = true
		}
	}
	return in
}

// say sends a response.
func (s *watchStream) say(r *watch.Response) error {
	h := s.member.Header()
	if r.Created || r.Canceled {
		return s.to.Send(message(h, r))
	}
	return s.to.SendMsg(&watchNews{h, *r})
}

// watchNews is the message of events, or of a bookmark. Our own server takes it as it
// is on the wire and copies no events, which many streams share; any other marshals
// the message that is made of it.
type watchNews struct {
	header server.Header
	r      watch.Response
}

// Wire is rpc.Encoded's.
func (n *watchNews) Wire(head []byte) (_, body []byte) {
	head = appendHeader(head, n.header, n.r.Revision)
	head = appendNumber(head, 2, n.r.ID)
	return appendYes(head, 7, n.r.Fragment), n.r.Events
}

// ProtoReflect is proto.Message's.
func (n *watchNews) ProtoReflect() protoreflect.Message {
	return message(n.header, &n.r).ProtoReflect()
}

// message makes the message of a response. Its events are on the wire's form
// already: to the generated code they are unknown fields, which it appends as they
// are.
func message(h server.Header, r *watch.Response) *pb.WatchResponse {
	m := &pb.WatchResponse{
		Header: headerOf(h, r.Revision), WatchId: r.ID, Created: r.Created, Canceled: r.Canceled,
		CompactRevision: int64(r.Compacted), CancelReason: cancelReason(r.Refused), Fragment: r.Fragment,
	}
	if len(r.Events) > 0 {
		m.ProtoReflect().SetUnknown(r.Events)
	}
	return m
}

// cancelReason words a refusal as clients know it.
func cancelReason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, watch.ErrEmptyRange):
		return "mvcc: watcher range is empty"
	case errors.Is(err, watch.ErrDuplicateID):
		return "mvcc: duplicate watch ID provided on the WatchStream"
	case errors.Is(err, command.ErrCompacted): // without the code that others have
		return rpctypes.ErrCompacted.Error()
	}
	return toWire(err).Error()
}
