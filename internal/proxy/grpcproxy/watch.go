package grpcproxy

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Bounds of one stream.
const (
	// mostUnsent is what may wait for a client that does not read. Then its watches
	// leave their groups, and go on from their cursors once it has read: it delays
	// nobody, and costs no more.
	mostUnsent = 1 << 20
	// mostPending is how many creations may be unanswered before no more is taken.
	mostPending = 1000
)

// downstream is one client's stream. Its requests are taken by a goroutine of their
// own; the handler's sends.
type downstream struct {
	of    *watches
	to    pb.Watch_WatchServer
	trunk *trunk
	by    caller
	md    metadata.MD

	mu      sync.Mutex
	changed sync.Cond // there is room, or it is over
	watches map[int64]*watch
	pending []*watch // asked for, and not answered
	last    int64    // number that was given last; -1: none
	own     *link    // nil without a watch of its own
	behind  []*watch // go on when all was sent
	queue   []*pb.WatchResponse
	bytes   int // of queue, and of what is being sent
	header  *pb.ResponseHeader
	asks    bool  // for progress
	err     error // why it ends
	wake    chan struct{}
}

// watch is one of them. All but d, create, interest and what was asked for is guarded
// by downstream.mu.
type watch struct {
	d        *downstream
	create   *pb.WatchCreateRequest // as the cluster is asked for it
	interest string                 // equal for those that get the same events
	wants    int64                  // the number that was asked for; 0: any
	fragment bool
	progress bool

	id       int64
	told     bool // its creation was told
	state    where
	next     int64 // the first revision that it is owed; 0: not known
	caughtUp int64 // a cursor from which on nothing is the past
	own      *feed
	upTo     int64 // of one of its own: all up to there was told, as the cluster said; 0: not known
}

// where a watch gets its events from.
type where int

const (
	alone    where = iota // a watch of its own
	together              // its group
	nowhere               // it is behind
	gone
)

func newWatches(ctx context.Context, p *Proxy, fragment int) *watches {
	return &watches{ctx: ctx, up: pb.NewWatchClient(p.conn), space: p.space, fragment: fragment, trunks: map[string]*trunk{}}
}

// Watch serves one stream until its client leaves.
func (s *watches) Watch(to pb.Watch_WatchServer) error {
	md, _ := metadata.FromIncomingContext(to.Context())
	d := &downstream{of: s, to: to, by: shown(to.Context()), md: md, watches: map[int64]*watch{}, last: -1, wake: make(chan struct{}, 1)}
	d.changed.L = &d.mu
	d.trunk = s.trunk(d, d.by, md)
	defer d.end()
	stop := context.AfterFunc(to.Context(), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})
	defer stop()
	go func() {
		if err := d.receive(); err != nil {
			d.fail(err)
		}
	}()
	return d.send()
}

// end lets go of everything.
func (d *downstream) end() {
	d.fail(rpctypes.ErrGRPCWatchCanceled)
	d.mu.Lock()
	var all []*watch
	for _, w := range d.watches {
		all = append(all, w)
		w.state = gone
	}
	for _, w := range d.pending {
		w.state = gone
	}
	if d.own != nil {
		d.own.stop()
		d.own = nil
	}
	d.mu.Unlock()
	for _, w := range all {
		d.trunk.part(w)
	}
	d.trunk.leave(d)
}

// fail ends the stream with an error, the first that there was; it is receiver's too.
func (d *downstream) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
	d.changed.Broadcast()
	signal(d.wake)
}

// over says whether nothing is to be done any more. d.mu is held.
func (d *downstream) over() bool { return d.err != nil || d.to.Context().Err() != nil }

// receive takes requests until the client has no more; the watches go on then.
func (d *downstream) receive() error {
	for {
		req, err := d.to.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch r := req.GetRequestUnion().(type) {
		case *pb.WatchRequest_CreateRequest:
			if r.CreateRequest != nil {
				d.begin(r.CreateRequest)
			}
		case *pb.WatchRequest_CancelRequest:
			if r.CancelRequest != nil {
				d.cancel(r.CancelRequest.GetWatchId())
			}
		case *pb.WatchRequest_ProgressRequest:
			d.mu.Lock()
			d.asks = len(d.watches)+len(d.pending) > 0
			for _, w := range d.watches {
				w.upTo = 0 // what was true before is not what is asked for
			}
			if d.own != nil {
				d.own.wantProgress()
			}
			d.mu.Unlock()
			d.trunk.wantProgress(d)
		}
	}
}

// begin asks the cluster for a watch.
func (d *downstream) begin(r *pb.WatchCreateRequest) {
	w := &watch{d: d, create: r, wants: r.WatchId, fragment: r.Fragment, progress: r.ProgressNotify, next: r.StartRevision}
	d.of.space.watchUp(r)
	noPut, noDelete := slices.Contains(r.Filters, pb.WatchCreateRequest_NOPUT), slices.Contains(r.Filters, pb.WatchCreateRequest_NODELETE)
	w.interest = joined(string(r.Key), string(r.RangeEnd), string([]byte{flag(noPut), flag(noDelete), flag(r.PrevKv)}))
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.pending) >= mostPending && !d.over() {
		d.changed.Wait()
	}
	if d.over() {
		return
	}
	d.pending = append(d.pending, w)
	d.feedAlone(w)
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// feedAlone has a watch fed by one of its own. d.mu is held.
func (d *downstream) feedAlone(w *watch) {
	if d.own == nil {
		d.own = newLink(d.of.ctx, d.of.up, d.by, d.md, d)
	}
	w.state, w.caughtUp, w.upTo = alone, 0, 0
	w.own = d.own.add(&feed{owner: w, create: w.create, next: w.next})
}

// dropOwn ends a watch of its own. d.mu is held.
func (d *downstream) dropOwn(w *watch) {
	if w.own != nil && d.own != nil && d.own.drop(w.own) == 0 {
		d.own.stop()
		d.own = nil
	}
	w.own = nil
}

// cancel ends a watch; a number that there is not is no error. One that may be about to
// be given is waited for: the cluster takes requests one after the other, too.
func (d *downstream) cancel(id int64) {
	d.mu.Lock()
	for d.mayBecome(id) && !d.over() {
		d.changed.Wait()
	}
	w := d.watches[id]
	if w == nil {
		d.mu.Unlock()
		return
	}
	delete(d.watches, id)
	d.dropOwn(w)
	w.state = gone
	d.put(&pb.WatchResponse{Header: d.header, WatchId: id, Canceled: true}, 0)
	d.mu.Unlock()
	d.trunk.part(w)
	d.trunk.wantProgress(d) // it may have been the one that was waited for
}

// mayBecome says whether what is pending may get a number, or be refused it. d.mu is held.
func (d *downstream) mayBecome(id int64) bool {
	if d.watches[id] == nil {
		return len(d.pending) > 0
	}
	return slices.ContainsFunc(d.pending, func(w *watch) bool { return w.wants == id && id != 0 })
}

// take is receiver's: news of a watch of its own. As long as too much is unsent it
// waits, and so does the cluster.
func (d *downstream) take(f *feed, r *pb.WatchResponse) {
	w := f.owner.(*watch)
	p := pack(d.of.space, r)
	d.mu.Lock()
	for d.bytes > mostUnsent && w.own == f && !d.over() {
		d.changed.Wait()
	}
	if w.own != f || d.over() {
		d.mu.Unlock()
		return
	}
	d.saw(r.Header)
	switch {
	case r.Created && !r.Canceled:
		d.created(w, r)
	case r.Canceled:
		d.canceled(w, r)
	default:
		d.push(w, p)
	}
	ready := w.state == alone && w.caughtUp > 0 && w.next >= w.caughtUp
	d.mu.Unlock()
	if ready {
		d.trunk.offer(w)
	}
}

// created tells of a watch that the cluster has. d.mu is held.
func (d *downstream) created(w *watch, r *pb.WatchResponse) {
	current := r.GetHeader().GetRevision()
	if w.next == 0 {
		w.next = current + 1
	}
	// A watch that begins in the future has caught up when its time has come.
	if w.caughtUp = max(w.next, current+1); w.next > current+1 {
		w.caughtUp = w.next + 1
	}
	if d.asks {
		d.own.wantProgress()
	}
	if w.told {
		return
	}
	d.answered(w)
	if w.id = w.wants; w.id == 0 {
		for w.id = d.last + 1; d.watches[w.id] != nil; w.id++ {
		}
		d.last = w.id
	}
	if d.watches[w.id] != nil {
		d.dropOwn(w)
		w.state = gone
		d.put(&pb.WatchResponse{Header: r.Header, WatchId: -1, Created: true, Canceled: true, CancelReason: duplicate}, 0)
		return
	}
	w.told = true
	d.watches[w.id] = w
	d.put(&pb.WatchResponse{Header: r.Header, WatchId: w.id, Created: true}, 0)
}

// duplicate is the reason why a number is not given twice (spec/v3-api.md 3.1).
const duplicate = "mvcc: duplicate watch ID provided on the WatchStream"

// answered takes a watch from those that the client waits for. d.mu is held.
func (d *downstream) answered(w *watch) {
	if i := slices.Index(d.pending, w); i >= 0 {
		d.pending = slices.Delete(d.pending, i, i+1)
		d.changed.Broadcast()
	}
}

// canceled tells what the cluster says of a watch that it refused or ended. d.mu is held.
func (d *downstream) canceled(w *watch, r *pb.WatchResponse) {
	d.answered(w)
	d.dropOwn(w)
	w.state = gone
	id, created := w.id, false
	if w.told {
		delete(d.watches, w.id)
	} else {
		id, created = -1, true
	}
	d.put(&pb.WatchResponse{
		Header: r.Header, WatchId: id, Created: created, Canceled: true, CompactRevision: r.CompactRevision, CancelReason: r.CancelReason,
	}, 0)
}

// push sends a watch what it is owed of a response. d.mu is held.
func (d *downstream) push(w *watch, p *packed) {
	if p.last == 0 {
		after := p.from.GetHeader().GetRevision() + 1
		if w.progress && w.next <= after {
			d.put(&pb.WatchResponse{Header: p.from.Header, WatchId: w.id}, 0)
		}
		w.next = max(w.next, after)
		return
	}
	events, raw := p.events, p.raw
	if i := slices.IndexFunc(events, func(e *mvccpb.Event) bool { return e.GetKv().GetModRevision() >= w.next }); i != 0 {
		if i < 0 {
			return
		}
		events = events[i:]
		raw = wire(events)
	}
	w.next = p.last + 1
	if w.fragment && len(raw) >= d.of.fragment && len(events) > 1 {
		d.fragments(w, p.from.Header, events)
		return
	}
	m := &pb.WatchResponse{Header: p.from.Header, WatchId: w.id}
	m.ProtoReflect().SetUnknown(raw)
	d.put(m, len(raw))
}

// fragments sends events in pieces that are no larger than a client wants them, if it
// can be: an event is never divided. d.mu is held.
func (d *downstream) fragments(w *watch, h *pb.ResponseHeader, events []*mvccpb.Event) {
	for len(events) > 0 {
		n, size := 0, 0
		for ; n < len(events); n++ {
			if size += proto.Size(events[n]) + 8; n > 0 && size >= d.of.fragment {
				break
			}
		}
		m := &pb.WatchResponse{Header: h, WatchId: w.id, Fragment: n < len(events)}
		raw := wire(events[:n])
		m.ProtoReflect().SetUnknown(raw)
		d.put(m, len(raw))
		events = events[n:]
	}
}

// put queues a response; bytes are those of its events. d.mu is held.
func (d *downstream) put(m *pb.WatchResponse, bytes int) {
	d.queue = append(d.queue, m)
	d.bytes += bytes + responseBytes
	signal(d.wake)
}

// responseBytes is what a response is charged for beside its events.
const responseBytes = 64

// size is what a response was charged for.
func size(m *pb.WatchResponse) int { return len(m.ProtoReflect().GetUnknown()) + responseBytes }

func (d *downstream) saw(h *pb.ResponseHeader) {
	if h != nil && (d.header == nil || h.Revision >= d.header.Revision || h.ClusterId != d.header.ClusterId) {
		d.header = h
	}
}

// send sends what there is, and has watches that are behind go on when there is no more.
func (d *downstream) send() error {
	for {
		d.mu.Lock()
		queue := d.queue
		d.queue = nil
		if len(queue) == 0 && !d.over() {
			behind := d.behind
			d.behind = nil
			for _, w := range behind {
				if w.state == nowhere {
					d.feedAlone(w)
				}
			}
		}
		err := d.err
		d.mu.Unlock()
		for _, m := range queue {
			if err := d.to.Send(m); err != nil {
				return ended(d.to.Context(), err)
			}
			d.mu.Lock()
			d.bytes -= size(m)
			d.changed.Broadcast()
			d.mu.Unlock()
		}
		switch {
		case len(queue) > 0:
			continue
		case err != nil:
			return ended(d.to.Context(), err)
		}
		select {
		case <-d.wake:
		case <-d.to.Context().Done():
			return ended(d.to.Context(), d.to.Context().Err())
		case <-d.of.ctx.Done():
			return rpctypes.ErrGRPCStopped
		}
	}
}

// ended is how a stream ends that its client has left.
func ended(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return err
}

// Moving between an own watch and a group. The trunk calls these; it holds its lock.

// standsAlone says whether a watch is fed by one of its own.
func (d *downstream) standsAlone(w *watch) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return w.state == alone && w.told
}

type move int

const (
	moved move = iota
	later
	never
)

// moveTo has a watch fed by a group from its cursor on, if the group delivers all of that.
func (d *downstream) moveTo(g *group, w *watch) move {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case w.state != alone || !w.told:
		return never
	case !g.created || w.next < g.from:
		return later
	}
	w.state = together
	d.dropOwn(w)
	return moved
}

// share sends a member of a group what came. It is false for one that has left: it was
// cancelled, or its client does not read.
func (d *downstream) share(w *watch, p *packed) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w.state != together {
		return false
	}
	if d.bytes > mostUnsent {
		d.leave(w)
		return false
	}
	d.saw(p.from.Header)
	d.push(w, p)
	return true
}

// fallBack has a member go on by itself: its group is no more.
func (d *downstream) fallBack(w *watch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w.state == together {
		d.leave(w)
	}
}

// leave has a watch go on by itself when all was sent. d.mu is held.
func (d *downstream) leave(w *watch) {
	w.state = nowhere
	d.behind = append(d.behind, w)
	signal(d.wake)
}

// delivered counts events that went to more than one member.
func (s *watches) delivered(events, members int) {
	if members > 1 {
		s.tally.Lock()
		defer s.tally.Unlock()
		s.events += uint64(events) * uint64(members-1)
	}
}

// counts are for the metrics: members of groups beside the first, and what was spared
// by them.
func (s *watches) counts() (beside int, events uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trunks {
		t.mu.Lock()
		for _, g := range t.groups {
			beside += max(0, len(g.members)-1)
		}
		t.mu.Unlock()
	}
	s.tally.Lock()
	defer s.tally.Unlock()
	return beside, s.events
}
