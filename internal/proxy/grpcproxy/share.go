package grpcproxy

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// trunk is the one link of all who show the same credentials, with a group on it for
// every interest of theirs.
//
// A watch is always created at the cluster as its client asked for it, on a link of its
// stream's own: so the cluster judges each, refuses it in its own words, and replays
// what it wants of the past. Once such a watch has caught up with the group of its
// interest, which events alone tell, it is moved there, and the one of its own is given up:
//
//	own watch        12 13 14 15 |                its cursor is 16
//	group      ... .. 13 14 15 16 17 18 ...       its last event was at 15: from is 16
//
// Invariant: the group delivers every event from its from on, and a watch is moved only
// if its cursor is not before that. What the group delivers before the cursor is left
// out. So a watch misses nothing, and sees nothing twice.
//
// Locks are taken in the order trunk, downstream, link.
type trunk struct {
	of   *watches
	who  string // key in of.trunks
	mu   sync.Mutex
	link *link // opened with the first group

	groups map[string]*group // by interest
	users  map[*downstream]bool
	asking map[*downstream]bool // want to be told of progress
	// polling: the cluster will be asked again for that.
	polling bool
	failed  error
	by      caller
	md      metadata.MD
}

// group are the watches of one interest.
type group struct {
	interest string
	feed     *feed
	created  bool
	// from is the lowest cursor that a watch may come with.
	from int64
	// upTo is the revision up to which all was delivered, as the cluster said last.
	upTo    int64
	members map[*watch]bool
	// waiting are those that may be moved once the group is created.
	waiting map[*watch]bool
}

// trunk is the one of a caller; the stream that uses it must leave it.
func (s *watches) trunk(d *downstream, by caller, md metadata.MD) *trunk {
	who := by.who
	if by.leader {
		who = joined(who, "leader")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.trunks[who]
	if t == nil {
		t = &trunk{of: s, who: who, by: by, md: md, groups: map[string]*group{}, users: map[*downstream]bool{}, asking: map[*downstream]bool{}}
		s.trunks[who] = t
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users[d] = true
	return t
}

// leave ends the use by a stream, whose watches have left.
func (t *trunk) leave(d *downstream) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.users, d)
	delete(t.asking, d)
	if len(t.users) > 0 {
		return
	}
	if t.of.trunks[t.who] == t {
		delete(t.of.trunks, t.who)
	}
	if t.link != nil {
		t.link.stop()
	}
}

// offer moves a watch of its own that has caught up to the group of its interest, which
// begins, if there is none, with what comes from now on. No lock is held.
func (t *trunk) offer(w *watch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return
	}
	g := t.groups[w.interest]
	if g == nil {
		if !w.d.standsAlone(w) {
			return
		}
		if t.link == nil {
			t.link = newLink(t.of.ctx, t.of.up, t.by, t.md, t)
		}
		g = &group{interest: w.interest, members: map[*watch]bool{}, waiting: map[*watch]bool{}}
		create := proto.Clone(w.create).(*pb.WatchCreateRequest)
		create.ProgressNotify = true // for those of its members who want it
		t.groups[w.interest] = g
		g.feed = t.link.add(&feed{owner: g, create: create, loose: true})
	}
	t.move(g, w)
}

// move has a watch fed by the group, if both are where that misses nothing. t.mu is held.
func (t *trunk) move(g *group, w *watch) {
	delete(g.waiting, w)
	switch w.d.moveTo(g, w) {
	case moved:
		g.members[w] = true
		t.progressOf(w.d)
	case later:
		g.waiting[w] = true
	}
}

// part takes a watch out of its group, which ends with its last one. No lock is held.
func (t *trunk) part(w *watch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.groups[w.interest]
	if g == nil {
		return
	}
	delete(g.members, w)
	delete(g.waiting, w)
	t.tidy(g)
}

// tidy ends a group that nobody needs. t.mu is held.
func (t *trunk) tidy(g *group) {
	if len(g.members) == 0 && len(g.waiting) == 0 && t.groups[g.interest] == g {
		delete(t.groups, g.interest)
		t.link.drop(g.feed)
	}
}

// take is receiver's.
func (t *trunk) take(f *feed, r *pb.WatchResponse) {
	p := pack(t.of.space, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	g := f.owner.(*group)
	if t.groups[g.interest] != g || g.feed != f {
		return
	}
	switch {
	case r.Canceled:
		// Each watch goes on by itself, and is told by the cluster what holds for it.
		delete(t.groups, g.interest)
		for w := range g.members {
			w.d.fallBack(w)
		}
	case r.Created:
		g.created, g.from = true, r.GetHeader().GetRevision()+1
		for w := range g.waiting {
			t.move(g, w)
		}
		if len(t.asking) > 0 {
			t.link.wantProgress()
		}
	default:
		if p.last > 0 {
			g.from = max(g.from, p.last+1)
		}
		t.of.delivered(len(p.events), len(g.members))
		for w := range g.members {
			if !w.d.share(w, p) {
				delete(g.members, w)
			}
		}
		t.tidy(g)
	}
}

// progressOf asks for the progress that a stream wants, if all its watches are here.
// t.mu is held.
func (t *trunk) progressOf(d *downstream) {
	if t.link != nil && d.awaitsProgress() {
		t.asking[d] = true
		t.link.wantProgress()
	}
}

// wantProgress is progressOf for a stream. No lock is held.
func (t *trunk) wantProgress(d *downstream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progressOf(d)
}

// progress is receiver's: those groups have all up to that revision, and so has every
// watch in one. Streams with another watch wait for the next word.
func (t *trunk) progress(h *pb.ResponseHeader, all []*feed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range all {
		f.owner.(*group).upTo = h.GetRevision()
	}
	for d := range t.asking {
		done := d.progressed(h, func(w *watch) bool {
			g := t.groups[w.interest]
			return g != nil && g.members[w] && g.upTo >= h.GetRevision()
		})
		if done {
			delete(t.asking, d)
		}
	}
	if len(t.asking) > 0 && !t.polling {
		t.polling = true
		time.AfterFunc(brief, t.again)
	}
}

// again asks once more for the progress that streams still wait for.
func (t *trunk) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.polling = false
	if len(t.asking) > 0 {
		t.link.wantProgress()
	}
}

// fail is receiver's: all streams end.
func (t *trunk) fail(err error) {
	t.of.mu.Lock()
	if t.of.trunks[t.who] == t {
		delete(t.of.trunks, t.who)
	}
	t.of.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = err
	for d := range t.users {
		d.fail(err)
	}
}

// packed is a response of the cluster in the form in which it goes to many.
type packed struct {
	from   *pb.WatchResponse
	events []*mvccpb.Event
	last   int64  // revision of the last event; 0: there is none
	raw    []byte // the events on the wire
}

// pack makes it; the response is the proxy's from then on.
func pack(s space, r *pb.WatchResponse) *packed {
	p := &packed{from: r, events: r.Events}
	s.events(p.events)
	if n := len(p.events); n > 0 {
		p.last = p.events[n-1].GetKv().GetModRevision()
		p.raw = wire(p.events)
	}
	return p
}

// wire is how events are sent; nil if they cannot be, which no event of a cluster is.
func wire(events []*mvccpb.Event) []byte {
	raw, err := proto.Marshal(&pb.WatchResponse{Events: events})
	if err != nil {
		return nil
	}
	return raw
}

// watches is the Watch service.
type watches struct {
	pb.UnimplementedWatchServer
	ctx      context.Context
	up       pb.WatchClient
	space    space
	fragment int // bytes

	mu     sync.Mutex
	trunks map[string]*trunk

	tally  sync.Mutex
	events uint64 // that members of groups got beside the first
}
