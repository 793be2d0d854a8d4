package grpcproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// cluster plays one: it has a history, and streams of watches on it. Nothing waits in it,
// and nothing happens in it but what a test has it do.
type cluster struct {
	t  *testing.T
	mu sync.Mutex

	revision, compacted int64
	history             []*mvccpb.Event
	streams             []*played
	// down refuses new streams; dumb leaves requests for progress unanswered; forbids
	// refuses watches.
	down, dumb, forbids bool
}

// played is one stream at the cluster's end.
type played struct {
	grpc.ClientStream
	of      *cluster
	ctx     context.Context
	out     chan *pb.WatchResponse
	broken  chan struct{}
	over    bool // guarded by of.mu, as what follows
	watches map[int64]*pb.WatchCreateRequest
}

var errBroken = status.Error(codes.Unavailable, "the member is gone")

func (c *cluster) Watch(ctx context.Context, _ ...grpc.CallOption) (pb.Watch_WatchClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errBroken
	}
	s := &played{of: c, ctx: ctx, out: make(chan *pb.WatchResponse, 1000), broken: make(chan struct{}), watches: map[int64]*pb.WatchCreateRequest{}}
	c.streams = append(c.streams, s)
	return s, nil
}

func (s *played) Recv() (*pb.WatchResponse, error) {
	select {
	case r := <-s.out:
		return r, nil
	case <-s.broken:
		return nil, errBroken
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *played) Send(r *pb.WatchRequest) error {
	c := s.of
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r := r.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		c.create(s, r.CreateRequest)
	case *pb.WatchRequest_CancelRequest:
		id := r.CancelRequest.WatchId
		delete(s.watches, id)
		s.out <- &pb.WatchResponse{Header: c.header(), WatchId: id, Canceled: true}
	case *pb.WatchRequest_ProgressRequest:
		if !c.dumb {
			s.out <- &pb.WatchResponse{Header: c.header(), WatchId: -1}
		}
	}
	return nil
}

func (c *cluster) header() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: c.revision} }

// create answers a creation as etcd does: a start that is compacted is told after it.
func (c *cluster) create(s *played, r *pb.WatchCreateRequest) {
	if c.forbids {
		s.out <- &pb.WatchResponse{Header: c.header(), WatchId: -1, Created: true, Canceled: true, CancelReason: "not allowed"}
		return
	}
	s.out <- &pb.WatchResponse{Header: c.header(), WatchId: r.WatchId, Created: true}
	if r.StartRevision > 0 && r.StartRevision < c.compacted {
		s.out <- &pb.WatchResponse{Header: c.header(), WatchId: r.WatchId, Canceled: true, CompactRevision: c.compacted}
		return
	}
	if r.StartRevision == 0 {
		r.StartRevision = c.revision + 1
	}
	s.watches[r.WatchId] = r
	for _, e := range c.history {
		s.tell(r, e)
	}
}

// tell tells a watch of an event that is its own.
func (s *played) tell(r *pb.WatchCreateRequest, e *mvccpb.Event) {
	if key := string(e.Kv.Key); e.Kv.ModRevision >= r.StartRevision && overlap([]byte(key), nil, r.Key, r.RangeEnd) {
		s.out <- &pb.WatchResponse{Header: s.of.header(), WatchId: r.WatchId, Events: []*mvccpb.Event{e}}
	}
}

// put writes a key; every watch that is open is told.
func (c *cluster) put(key, value string) {
	c.mu.Lock()
	c.revision++
	e := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: c.revision}}
	c.history = append(c.history, e)
	for _, s := range c.open() {
		for _, id := range sorted(s.watches) {
			s.tell(s.watches[id], e)
		}
	}
	c.mu.Unlock()
	synctest.Wait()
}

func sorted(m map[int64]*pb.WatchCreateRequest) (ids []int64) {
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// open are the streams that nobody has ended. c.mu is held.
func (c *cluster) open() (list []*played) {
	for _, s := range c.streams {
		if !s.over && s.ctx.Err() == nil {
			list = append(list, s)
		}
	}
	return list
}

// asked tells what watches are open: how many, and of what.
func (c *cluster) asked() (list []string) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.open() {
		for _, id := range sorted(s.watches) {
			list = append(list, string(s.watches[id].Key))
		}
	}
	slices.Sort(list)
	return list
}

// breaks ends all streams, and refuses new ones until it is up again.
func (c *cluster) breaks() {
	synctest.Wait()
	c.mu.Lock()
	for _, s := range c.open() {
		s.over = true
		close(s.broken)
	}
	c.down = true
	c.mu.Unlock()
	synctest.Wait()
}

func (c *cluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// ends ends every watch, with a reason, as where a permission is taken back.
func (c *cluster) ends(reason string) {
	c.mu.Lock()
	for _, s := range c.open() {
		for _, id := range sorted(s.watches) {
			delete(s.watches, id)
			s.out <- &pb.WatchResponse{Header: c.header(), WatchId: id, Canceled: true, CancelReason: reason}
		}
	}
	c.mu.Unlock()
	synctest.Wait()
}

// progresses tells every watch that wants it that there is no more, as etcd does by itself
// now and then.
func (c *cluster) progresses() {
	c.mu.Lock()
	for _, s := range c.open() {
		for _, id := range sorted(s.watches) {
			if s.watches[id].ProgressNotify {
				s.out <- &pb.WatchResponse{Header: c.header(), WatchId: id}
			}
		}
	}
	c.mu.Unlock()
	synctest.Wait()
}

// guest plays a client with one stream at the proxy.
type guest struct {
	grpc.ServerStream
	t     *testing.T
	ctx   context.Context
	leave context.CancelFunc
	in    chan *pb.WatchRequest
	err   chan error // what the stream ended with

	mu   sync.Mutex
	got  []string
	free *sync.Cond // it reads
	busy bool       // it does not
}

// scene is a proxy between guests and a cluster at revision 1.
type scene struct {
	*cluster
	proxy *watches
}

// play plays a scene to its end: nothing of it may be left over, which synctest sees to.
func play(t *testing.T, of func(*scene)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		c := &cluster{t: t, revision: 1}
		s := &scene{c, &watches{ctx: ctx, up: c, fragment: 1 << 20, trunks: map[string]*trunk{}}}
		of(s)
		stop()
		synctest.Wait()
		s.proxy.mu.Lock()
		defer s.proxy.mu.Unlock()
		if n := len(s.proxy.trunks); n > 0 {
			t.Errorf("%d trunks are left", n)
		}
	})
}

func (s *scene) guest(token string) *guest {
	g := &guest{t: s.t, in: make(chan *pb.WatchRequest, 100), err: make(chan error, 1)}
	g.free = sync.NewCond(&g.mu)
	ctx := context.Background()
	if token != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("token", token))
	}
	g.ctx, g.leave = context.WithCancel(ctx)
	go func() { g.err <- s.proxy.Watch(g) }()
	return g
}

func (g *guest) Context() context.Context { return g.ctx }

func (g *guest) Recv() (*pb.WatchRequest, error) {
	select {
	case r, ok := <-g.in:
		if !ok {
			return nil, io.EOF
		}
		return r, nil
	case <-g.ctx.Done():
		return nil, g.ctx.Err()
	}
}

func (g *guest) Send(r *pb.WatchResponse) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.busy {
		g.free.Wait()
	}
	text := fmt.Sprint(r.WatchId)
	events := unwired(g.t, r)
	for _, e := range events {
		value := string(e.Kv.Value)
		if len(value) > 10 {
			value = fmt.Sprintf("%d bytes", len(value))
		}
		text += fmt.Sprintf(" %d:%s=%s", e.Kv.ModRevision, e.Kv.Key, value)
	}
	switch {
	case r.Created && r.Canceled:
		text += " refused: " + r.CancelReason
	case r.Created:
		text += " created"
	case r.Canceled && r.CompactRevision > 0:
		text += fmt.Sprintf(" compacted %d", r.CompactRevision)
	case r.Canceled:
		text += " canceled " + r.CancelReason
	case len(events) == 0:
		text += fmt.Sprintf(" up to %d", r.Header.GetRevision())
	}
	g.got = append(g.got, text)
	return nil
}

// reads says whether the guest takes what it is sent.
func (g *guest) reads(now bool) {
	g.mu.Lock()
	g.busy = !now
	g.free.Broadcast()
	g.mu.Unlock()
	synctest.Wait()
}

func (g *guest) asks(r *pb.WatchRequest) {
	g.in <- r
	synctest.Wait()
}

func (g *guest) watches(r *pb.WatchCreateRequest) {
	g.asks(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

// on watches one key from a revision on; 0 is from now on.
func (g *guest) on(key string, start int64) {
	g.watches(&pb.WatchCreateRequest{Key: []byte(key), StartRevision: start})
}

func (g *guest) cancels(id int64) {
	g.asks(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (g *guest) wantsProgress() {
	g.asks(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// was compares what the guest was told since it was asked last.
func (g *guest) was(told ...string) {
	g.t.Helper()
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Equal(g.got, told) {
		g.t.Errorf("was told %q, want %q", g.got, told)
	}
	g.got = nil
}

// wasInAnyOrder is was for what is told in no particular order.
func (g *guest) wasInAnyOrder(told ...string) {
	g.t.Helper()
	synctest.Wait()
	g.mu.Lock()
	slices.Sort(g.got)
	g.mu.Unlock()
	g.was(told...)
}

// leaves ends the guest's stream.
func (g *guest) leaves() {
	g.leave()
	g.reads(true)
	if err := <-g.err; err == nil || errors.Is(err, io.EOF) {
		g.t.Errorf("the stream ended with %v", err)
	}
}
