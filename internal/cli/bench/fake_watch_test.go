package bench

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// hearing is what a fake keeps for watches and leases, under its mu.
type hearing struct {
	// events are all that ever happened, and changed is closed at the next one.
	events  []*mvccpb.Event
	changed chan struct{}
	// forget, if set, says of an event that no watch is told it.
	forget func(*mvccpb.Event) bool
	// soon ends leases so long before their time; left is when a renewal is answered with 0.
	soon    time.Duration
	gone    bool
	granted map[int64]int64
	opened  []*pb.WatchCreateRequest
	// open, if set, is called for each watch before it is answered.
	open func()
}

// tell notes an event. mu is held.
func (f *fake) tell(e *mvccpb.Event) {
	h := &f.hearing
	if h.forget == nil || !h.forget(e) {
		h.events = append(h.events, e)
	}
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// since are the events from the n-th on, and what is closed when there are more.
func (f *fake) since(n int) ([]*mvccpb.Event, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &f.hearing
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.events[min(n, len(h.events)):], h.changed
}

// Watch takes watches of equal start until the first event, as all of ours are.
func (f *fake) Watch(to grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	requests := make(chan *pb.WatchCreateRequest)
	go func() {
		for {
			r, err := to.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r.GetCreateRequest():
			case <-to.Context().Done():
				return
			}
		}
	}()
	f.mu.Lock()
	n := len(f.hearing.events)
	f.mu.Unlock()
	var watches []*pb.WatchCreateRequest
	for {
		list, more := f.since(n)
		for _, e := range list {
			n++
			for _, w := range watches {
				put := e.Type == mvccpb.Event_PUT
				if !covers(w, e.Kv.Key) || e.Kv.ModRevision < w.StartRevision || put && slices.Contains(w.Filters, pb.WatchCreateRequest_NOPUT) {
					continue
				}
				if err := to.Send(&pb.WatchResponse{WatchId: w.WatchId, Events: []*mvccpb.Event{e}}); err != nil {
					return err
				}
			}
		}
		select {
		case <-more:
		case r := <-requests:
			watches = append(watches, r)
			f.mu.Lock()
			f.hearing.opened = append(f.hearing.opened, r)
			open := f.hearing.open
			f.mu.Unlock()
			if open != nil {
				open()
			}
			if err := to.Send(&pb.WatchResponse{WatchId: r.WatchId, Created: true}); err != nil {
				return err
			}
			if r.StartRevision > 0 {
				n = 0
			}
		case <-to.Context().Done():
			return nil
		}
	}
}

func covers(w *pb.WatchCreateRequest, key []byte) bool {
	if len(w.RangeEnd) == 0 {
		return string(key) == string(w.Key)
	}
	return string(key) >= string(w.Key) && string(key) < string(w.RangeEnd)
}

func (f *fake) LeaseGrant(_ context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls["grant"]++
	h := &f.hearing
	if h.granted == nil {
		h.granted = map[int64]int64{}
	}
	name := r.ID
	if name == 0 {
		name = int64(len(h.granted) + 1)
	}
	if h.granted[name] != 0 {
		return nil, status.Error(codes.FailedPrecondition, "etcdserver: lease already exists")
	}
	h.granted[name] = r.TTL
	if r.TTL != longLease {
		time.AfterFunc(time.Duration(r.TTL)*time.Second-h.soon, func() { f.end(name) })
	}
	return &pb.LeaseGrantResponse{ID: name, TTL: r.TTL}, nil
}

// end deletes the keys of a lease.
func (f *fake) end(name int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, kv := range f.kvs {
		if kv.Lease == name {
			f.revision++
			delete(f.kvs, key)
			f.tell(&mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: f.revision}})
		}
	}
}

func (f *fake) LeaseKeepAlive(stream grpc.BidiStreamingServer[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return nil
		}
		f.mu.Lock()
		f.calls["renew"]++
		ttl := f.hearing.granted[r.ID]
		if f.hearing.gone {
			ttl = 0
		}
		f.mu.Unlock()
		if err := stream.Send(&pb.LeaseKeepAliveResponse{ID: r.ID, TTL: ttl}); err != nil {
			return err
		}
	}
}
